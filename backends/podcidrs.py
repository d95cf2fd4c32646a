"""The fabric of backends whose nodes own ranges of their own: the node's pod CIDRs in the list of nodes."""

from __future__ import annotations

from cluster.peers import Peer
from ipam.lease import Block


class PodCidrs:
    """`backends.wiring.Fabric` of the node *here*."""

    def __init__(self, here: Peer) -> None:
        self._here = here

    def blocks(self) -> frozenset[Block]:
        """One block per pod CIDR."""
        return frozenset(Block(cidr, self._here.name) for cidr in self._here.pod_cidrs)
