"""The seam of a fabric: where addresses come from (all the I/O of a backend), and what it tells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from netaddr import IPNetwork

from backends.site import Nic
from cluster.peers import Peer
from cni.errors import Failure
from ipam.lease import Block


class Supplied(NamedTuple):
    """What a fabric gives to a node: see `Site` for *interfaces* and *networks*; *blocks* are all that pods may have
    addresses of now."""

    interfaces: tuple[Nic, ...]
    networks: tuple[IPNetwork, ...]
    blocks: frozenset[Block]


class Shortage(NamedTuple):
    """What to tell a pod for which there is no address, and whether that *may_end* by itself soon, so that it waits."""

    failure: Failure
    may_end: bool


class Report(NamedTuple):
    """What a cloud gives and refuses: *interfaces* of *most* are attached, *obstacles* stand in the way of more,
    *under_way* are changes whose end is not known; *calls* are counted by action and error, '' for none. *undelivered*
    are pods' addresses that the cloud does not deliver to this node any more."""

    cloud: str
    interfaces: int
    most: int
    obstacles: tuple[str, ...]
    under_way: tuple[str, ...]
    calls: Mapping[tuple[str, str], int]
    undelivered: tuple[str, ...] = ()


class Fabric(Protocol):
    """Where addresses come from."""

    def supplied(self, here: Peer) -> Supplied:
        """What there is for the node *here* now."""

    def shortage(self, failure: Failure) -> Shortage:
        """What *failure*, that there is no address, means here."""

    def report(self) -> Report | None:
        """How the cloud is doing; None where there is none."""
