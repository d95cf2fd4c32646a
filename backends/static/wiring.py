"""Static routes: every pod CIDR of a peer by way of the peer's own address. For small clusters on one segment.

A packet from pod to pod: the pod's link, this host's main table (the peer's pod CIDR by nexthop object), the uplink,
the peer, its route to the pod's address, the pod's link. Nothing is wrapped and nothing translated: no overhead, and
whatever can route to a node can reach its pods.

Tables: two nexthop objects and two routes per dual-stack peer, one route per local pod address. The limit is the
segment: every peer must be on-link, and is one neighbour entry (the kernel's default keeps 1,024 per family).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial

from backends import nodeplan, podlink
from backends.plainroutes import ByNexthops, off_link, routes
from backends.site import Site, pod_mtu
from backends.wiring import Unserved, Wired
from cluster.peers import Peer
from dataplane.items import Item, Key, Nexthop, plan
from ipam.store import Record


class StaticWiring:
    """`backends.wiring.Wiring` by routes to the peers' addresses. ConfigInvalid: the MTU is impossible."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._peers = nodeplan.Peers(site, nodeplan.common(site), self._share, partial(nodeplan.first, site))
        self.reach = ByNexthops(site)
        self.mtu = pod_mtu(site, 0)

    def pod(self, record: Record) -> dict[Key, Item]:
        """See `backends.wiring.Wiring.pod`."""
        return podlink.pod(record, self.mtu, self._site)

    def node(self, peers: Collection[Peer]) -> Wired:
        """See `backends.wiring.Wiring.node`."""
        return self._peers.wired(peers)

    def _share(self, peer: Peer, ids: Mapping[int, int]) -> nodeplan.Share:
        items: list[Item] = []
        unserved = []
        for family, number in ids.items():
            via = peer.address(family)
            why = off_link(self._site, peer, family)
            if why or via is None:
                unserved.append(Unserved(peer.name, why))
                continue
            items.append(Nexthop(number, str(via), self._site.uplink.name))
            items += routes(peer, family, number)
        return nodeplan.Share(peer, ids, plan(*items), tuple(unserved))
