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
from socket import AF_INET, AF_INET6, inet_ntop

from netaddr import IPAddress, IPNetwork

from backends import nodeplan, podlink
from backends.wiring import Site, Unserved, Wired, pod_mtu
from cluster.peers import Peer
from dataplane.items import HOST, Item, Key, Nexthop, Route, plan
from ipam.store import Record


class StaticWiring:
    """`backends.wiring.Wiring` by routes to the peers' addresses. ConfigInvalid: the MTU is impossible."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._peers = nodeplan.Peers(site, nodeplan.common(site), self._part, partial(nodeplan.first, site))
        self.mtu = pod_mtu(site, 0)

    def pod(self, record: Record) -> dict[Key, Item]:
        """See `backends.wiring.Wiring.pod`."""
        return podlink.pod(record, self.mtu, self._site)

    def node(self, peers: Collection[Peer]) -> Wired:
        """See `backends.wiring.Wiring.node`."""
        return self._peers.wired(peers)

    def _part(self, peer: Peer, ids: Mapping[int, int]) -> nodeplan.Part:
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
        return nodeplan.Part(peer, ids, plan(*items), tuple(unserved))


def routes(peer: Peer, family: int, nexthop: int) -> list[Route]:
    """The routes to a peer's pods of one family."""
    return [Route(HOST, _text(cidr), nhid=nexthop) for cidr in peer.pod_cidrs if cidr.version == family]


def _text(cidr: IPNetwork) -> str:
    """What ``str`` answers, in a third of the time: a node has thousands."""
    family, length = (AF_INET, 4) if cidr.version == 4 else (AF_INET6, 16)
    return f"{inet_ntop(family, int(cidr.first).to_bytes(length, 'big'))}/{cidr.prefixlen}"


def off_link(site: Site, peer: Peer, family: int) -> str:
    """Why no plain route to *peer* can be had for *family*; '' when it can."""
    address: IPAddress | None = peer.address(family)
    if address is None:
        return f"{peer.name} has IPv{family} pods but no IPv{family} address of its own; give it one in its list entry"
    if site.uplink.is_on_link(address):
        return ""
    networks = ", ".join(str(one) for one in site.uplink.connected if one.version == family) or "none"
    return (
        f"{peer.name} ({address}) is not on-link at {site.uplink.name} (IPv{family} networks there: {networks}); "
        "put it on that segment, or use backend vxlan"
    )
