"""How packets get to and from pods whose addresses are of alias ranges. Pure.

The VPC delivers a packet to any address of an alias range to the interface that has the range; the main table has the
pod's route. A packet from a pod leaves by the same interface: the VPC takes every source there that is of one of its
ranges. Nothing is wrapped, nothing translated, and where each pod is the VPC knows, so no node needs to know another.

Tables: per range an unreachable route, so that packets to an address that no pod has do not go in circles; per pod one
route. No rule of ours: the first one would part the tables local and main for good, after which a ``local`` route of
Google's guest agent, which makes one for every alias range, would come before the pods' routes. If the operator wants
that, two ``throw`` routes per range in the table local, one for each half, are more specific than that route, and send
the kernel on to the main table.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from netaddr import IPNetwork

from backends import nodeplan, podlink
from backends.plainroutes import ByNexthops
from backends.site import Site, pod_mtu
from backends.wiring import Wired
from cluster.peers import Peer
from dataplane.items import HOST, LOCAL, Item, Key, Route, plan
from ipam.store import Record


class AliasWiring:
    """`backends.wiring.Wiring` of a node with alias ranges. If it *is_overriding*, routes by which the host would
    answer for its pods are overridden. ConfigInvalid: the MTU is impossible."""

    def __init__(self, site: Site, *, is_overriding: bool = False) -> None:
        self._site = site
        blocks = tuple(sorted(block for one in site.interfaces for block in one.blocks))
        # What a node needs for ranges of its own, wherever it has them from.
        own = replace(site, here=replace(site.here, pod_cidrs=blocks))
        items = [*nodeplan.common(own), *nodeplan.first(own, [own.here])]
        self._plan = plan(*items, *(_overriding(blocks) if is_overriding else ()))
        self.mtu = pod_mtu(site, 0)
        self.reach = ByNexthops(site)

    def pod(self, record: Record) -> dict[Key, Item]:
        """See `backends.wiring.Wiring.pod`."""
        return podlink.pod(record, self.mtu, self._site)

    def node(self, peers: Collection[Peer]) -> Wired:
        """See `backends.wiring.Wiring.node`: other nodes are the VPC's business."""
        return Wired(self._plan, ())


def _overriding(blocks: Collection[IPNetwork]) -> Iterator[Route]:
    for block in blocks:
        for half in block.subnet(block.prefixlen + 1) if block.size > 1 else ():
            yield Route(HOST, str(half), table=LOCAL, throw=True)
