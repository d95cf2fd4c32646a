"""The seam of a wiring: how packets get to and from pods. Pure.

What always holds: the same arguments give the same plan; a peer is served wholly or named among the unserved with the
reason, never routed the wrong way.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple, Protocol

from backends.reach import Reach
from cluster.peers import Peer
from dataplane.items import Item, Key
from ipam.store import Record


class Unserved(NamedTuple):
    """A peer that the backend cannot reach, and why, in words for the operator."""

    peer: str
    why: str


class Wired(NamedTuple):
    """The node's own part of the kernel: all but what belongs to single pods."""

    plan: dict[Key, Item]
    unserved: tuple[Unserved, ...]


class Wiring(Protocol):
    """How packets get to and from pods."""

    @property
    def mtu(self) -> int:
        """The MTU of a new pod's link, in bytes."""

    def pod(self, record: Record) -> dict[Key, Item]:
        """Everything that one pod needs, on the host and in its namespace."""

    def node(self, peers: Collection[Peer]) -> Wired:
        """Everything else, for the whole set of nodes, this one among them."""

    @property
    def reach(self) -> Reach:
        """How peers are reached: by that nodes change to this wiring, or from it."""
