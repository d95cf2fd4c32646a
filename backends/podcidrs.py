"""The fabric of backends whose nodes own ranges of their own: the node's pod CIDRs in the list of nodes."""

from __future__ import annotations

from backends.fabric import Shortage, Supplied
from backends.told import Told
from cluster.peers import Peer
from cni.errors import Failure
from ipam.lease import Block


class PodCidrs:
    """`backends.fabric.Fabric` of a node whose ranges do not grow."""

    def supplied(self, here: Peer) -> Supplied:
        """One block per pod CIDR."""
        return Supplied((), (), frozenset(Block(cidr, here.name) for cidr in here.pod_cidrs))

    def shortage(self, failure: Failure) -> Shortage:
        """There are no more."""
        return Shortage(failure, may_end=False)

    def told(self) -> Told:
        """Nothing: who the nodes are, the list tells."""
        return Told()
