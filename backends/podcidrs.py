"""The fabric of backends whose nodes own ranges of their own: the node's pod CIDRs in the list of nodes."""

from __future__ import annotations

from netaddr import IPAddress

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


def own_addresses(node: Peer) -> list[IPAddress]:
    """The addresses out of its pod CIDRs that a *node* can have itself, the source of what it sends to pods: of each
    family the first address of the first one of which pods are not given that. Of a /31 or /127 they are given both."""
    firsts: dict[int, IPAddress] = {}
    for cidr in sorted(node.pod_cidrs):
        first, _ = Block(cidr, node.name).usable
        if first > cidr.first:
            firsts.setdefault(cidr.version, IPAddress(cidr.first, cidr.version))
    return list(firsts.values())
