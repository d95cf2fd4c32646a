"""Pods whose addresses are not this node's any more: its ranges in the list of nodes changed under them. Pure.

They keep their addresses, links and routes, since a list that was wrong for a moment must cost no pod its network: this
node reaches them still, and so do its other pods. Other nodes send to where the list says, and another pod may be given
the same address there, so they are told until they are gone or the range is back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from netaddr import IPAddress

from backends.site import Site
from cluster.peers import Peer
from ipam.store import Record


class Stray(NamedTuple):
    """An address of a pod here, who that is, and the node whose address it is by the list now, '' for nobody's."""

    address: IPAddress
    pod: str
    owner: str

    def __str__(self) -> str:
        return f"{self.address} ({self.pod}) is {f'of {self.owner}' if self.owner else 'of no node'}"


def strays(records: Iterable[Record], site: Site, peers: Collection[Peer]) -> list[Stray]:
    """The addresses in *records* that are outside of this node's ranges. Where a cloud gives the addresses, it knows
    better."""
    if site.interfaces:
        return []
    own = site.here.pod_cidrs
    return [
        Stray(address, record.called, _owner(address, peers))
        for record in records
        for address in record.lease.addresses
        if not any(address in cidr for cidr in own)
    ]


def _owner(address: IPAddress, peers: Collection[Peer]) -> str:
    return next((peer.name for peer in peers if any(address in cidr for cidr in peer.pod_cidrs)), "")
