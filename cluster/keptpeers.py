"""Peers as they are kept on disk, for a start while the API server cannot be asked."""

from __future__ import annotations

import logging

import msgspec
from netaddr import IPAddress, IPNetwork

from cluster.kept import Kept
from cluster.peers import Peer

log = logging.getLogger(__name__)


class _Written(msgspec.Struct, frozen=True):
    """A peer on disk."""

    name: str
    addresses: list[str]
    pod_cidrs: list[str]
    flaws: list[str]
    asn: int = 0
    labels: tuple[tuple[str, str], ...] = ()


def written(one: Peer) -> bytes:
    """What is kept of it."""
    addresses, pod_cidrs = list(map(str, one.addresses)), list(map(str, one.pod_cidrs))
    return msgspec.json.encode(_Written(one.name, addresses, pod_cidrs, list(one.flaws), one.asn, one.labels))


def recalled(kept: Kept | None) -> frozenset[Peer]:
    """The peers that were *kept*; none where that is nothing that can be used."""
    raw = kept.load() if kept is not None else None
    try:
        written = msgspec.json.decode(raw, type=list[_Written]) if raw is not None else []
        return frozenset(
            Peer(
                one.name,
                tuple(map(IPAddress, one.addresses)),
                tuple(map(IPNetwork, one.pod_cidrs)),
                tuple(one.flaws),
                one.asn,
                one.labels,
            )
            for one in written
        )
    except ValueError as error:  # msgspec's and netaddr's errors are such
        log.warning("the copy of the last list of nodes cannot be used", extra={"error": str(error)})
        return frozenset()
