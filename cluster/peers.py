"""A node of the cluster as the others see it, and the seam behind which the set of nodes comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from netaddr import IPAddress, IPNetwork

from cni.errors import Failure

ASN_MAX: Final = (1 << 32) - 2
"""The highest number of an autonomous system (RFC 7300)."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One node: *name*, at most one address per family (IPv4 first) and the CIDRs that its pods live in.

    *flaws* are what the source says of it that cannot be used, each in words for the operator; what can be is there.
    *asn* is the number of its autonomous system where the source names one, else 0; *labels* are in order.
    The node that the agent runs on is a Peer like the others; who reads the set picks it out by its name.
    """

    name: str
    addresses: tuple[IPAddress, ...]
    pod_cidrs: tuple[IPNetwork, ...]
    flaws: tuple[str, ...] = ()
    asn: int = 0
    labels: tuple[tuple[str, str], ...] = ()

    def __hash__(self) -> int:
        """By the name, which only one has: sets of thousands are made whenever one of them changes."""
        return hash(self.name)

    def address(self, family: int) -> IPAddress | None:
        """The node's own address of *family* (4 or 6), or None when it has none."""
        for one in self.addresses:
            if one.version == family:
                return one
        return None


class Source(Protocol):
    """Where nodes come from. The whole set is passed, never a change to it. Every pass asks ``refresh``, each
    second; one that is told of changes, as by a watch, has the next pass come at once."""

    @property
    def origin(self) -> str:
        """What it is called when it is spoken of."""

    @property
    def nodes(self) -> frozenset[Peer]:
        """The last good set; empty until the first successful ``refresh``."""

    @property
    def error(self) -> Failure | None:
        """Why the source as it is now cannot be used (``nodes`` stays as it was); None when it can."""

    def refresh(self) -> bool:
        """Look at the source again, cheaply if nothing happened: True when ``nodes`` or ``error`` changed."""
