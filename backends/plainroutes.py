"""Routes to a peer's pods by way of nexthop objects, how those decide where its packets go, and whether a peer is on
this node's own segment. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from socket import AF_INET, AF_INET6, inet_ntop

from netaddr import IPAddress, IPNetwork

from backends import nodeplan, podlink
from backends.reach import Passage, spare
from backends.site import Site
from cluster.peers import Peer
from dataplane.items import HOST, Item, Key, Nexthop, Route, nexthop_key


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


class ByNexthops:
    """`backends.reach.Reach` of a wiring that has a route of ours for each range of a peer's, by a nexthop object: that
    object is replaced under the routes, which stay. *own* answers a node's own addresses."""

    def __init__(self, site: Site, own: Callable[[Peer], Sequence[IPAddress]] = lambda node: ()) -> None:
        self._taken = site.taken
        self._own = own

    def own(self, node: Peer) -> Sequence[IPAddress]:
        """See `backends.reach.Reach.own`."""
        return self._own(node)

    def passages(self, peer: Peer, plan: Mapping[Key, Item]) -> list[Passage]:
        """See `backends.reach.Reach.passages`."""
        found = []
        for cidr in peer.pod_cidrs:
            key = Key(HOST, "route", _text(cidr))
            nexthop = _nexthop(key, plan)
            if nexthop is not None:
                found.append(Passage(cidr, (nexthop.key, key), nexthop.dev))
        return found

    def aside(self, peer: Peer, range_: IPNetwork, plan: Mapping[Key, Item]) -> tuple[Item, ...]:
        """See `backends.reach.Reach.aside`: a route, and a nexthop object like that of the pods' routes."""
        nexthop = _nexthop(Key(HOST, "route", _text(range_)), plan)
        if nexthop is None:
            return ()
        family = range_.version
        number = nodeplan.nexthop_id(f"{peer.name} tried", family)
        while nexthop_key(number) in plan or number in self._taken:
            number += 1
        route = Route(HOST, f"{spare(range_)}/{podlink.BITS[family]}", nhid=number)
        return nexthop._replace(id=number), route


def _nexthop(key: Key, plan: Mapping[Key, Item]) -> Nexthop | None:
    """What the route of that *key* leads through."""
    route = plan.get(key)
    found = plan.get(nexthop_key(route.nhid)) if isinstance(route, Route) and route.nhid else None
    return found if isinstance(found, Nexthop) else None
