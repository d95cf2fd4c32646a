"""The seam of a fabric: where addresses come from (all the I/O of a backend)."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from netaddr import IPNetwork

from backends.site import Nic
from backends.told import Teller
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


class Fabric(Teller, Protocol):
    """Where addresses come from."""

    def supplied(self, here: Peer) -> Supplied:
        """What there is for the node *here* now."""

    def shortage(self, failure: Failure) -> Shortage:
        """What *failure*, that there is no address, means here."""
