"""A node on its way from one wiring to another: both are programmed, and each peer is reached by one or the other.

A packet from pod to pod goes as in one of the two wirings; which one is decided by the peer's nexthop objects alone,
that have the same ids in both: to move a peer is to replace those, under routes that stay. What arrives is taken from
either way all the time, so a node that has moved and one that has not understand each other in both directions.

The pods' routes say the smaller MTU of the two from before the first peer moves until after the last has, so no packet
is under way that the new way could not carry.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from netaddr import IPAddress

from backends import nodeplan, podlink
from backends.site import Site
from backends.wiring import Unserved, Wired, Wiring
from cluster.peers import Peer
from dataplane.items import HOST, Item, Key, Nexthop, Route, nexthop_key
from ipam.store import Record


class Probe(NamedTuple):
    """How to find out whether a peer is reached: something sent from *source*, this node's own address among its pods',
    which the peer answers as it sends to our pods, to *target*, the peer's; *device* leads there, and
    *answerers* are the peer's addresses, one of which an ICMP error must come from to be its answer.

    *spare* is an address of the peer's pod CIDR that neither a pod nor a node has, nor sends from: a route to that
    alone is no way for anything else, least of all for the answer that tells the peer how we send to its pods.
    """

    source: IPAddress
    target: IPAddress
    spare: IPAddress
    device: str
    answerers: tuple[IPAddress, ...]


class Transition:
    """`backends.wiring.Wiring` between *old* and *new*, at *site*.

    Peers for whose name *has_moved* are reached by *new*. Of those named in *tried* the spare addresses alone are
    reached by the other way than the peer's pods.
    """

    def __init__(
        self,
        site: Site,
        old: Wiring,
        new: Wiring,
        has_moved: Callable[[str], bool] = lambda name: False,
        tried: frozenset[str] = frozenset(),
    ) -> None:
        self._site = site
        self._here = site.here
        self._old, self._new = old, new
        self._has_moved, self._tried = has_moved, tried
        self.mtu = new.mtu

    def pod(self, record: Record) -> dict[Key, Item]:
        """See `backends.wiring.Wiring.pod`."""
        return podlink.pod(record, min(self._old.mtu, self._new.mtu), self._site)

    def node(self, peers: Collection[Peer]) -> Wired:
        """See `backends.wiring.Wiring.node`."""
        old, new = self._old.node(peers), self._new.node(peers)
        whole = {**new.plan, **old.plan}
        for peer in peers:
            if self._has_moved(peer.name):
                whole.update((key, new.plan[key]) for key in self._nexthops(peer, new) if key in new.plan)
            if peer.name in self._tried:
                for item in self._tries(peer, old if self._has_moved(peer.name) else new):
                    whole[item.key] = item
        unserved = [one for one in new.unserved if self._has_moved(one.peer)]
        unserved += [one for one in old.unserved if not self._has_moved(one.peer)]
        return Wired(whole, tuple(unserved))

    def own(self, node: Peer) -> Sequence[IPAddress]:
        """See `backends.wiring.Wiring.own`: those of either."""
        return list(dict.fromkeys((*self._old.own(node), *self._new.own(node))))

    def movable(self, peers: Collection[Peer]) -> dict[str, list[Probe]]:
        """The peers that *new* can reach, and how to find out whether it does."""
        new = self._new.node(peers)
        unserved = {one.peer for one in new.unserved}
        return {
            peer.name: [probe for probe, _ in self._ways(peer, new)]
            for peer in peers
            if peer.name not in unserved and peer.name != self._here.name
        }

    def immovable(self, peers: Collection[Peer]) -> list[Unserved]:
        """The peers that *old* reaches and *new* cannot, and why."""
        lost = {one.peer for one in self._old.node(peers).unserved}
        return [one for one in self._new.node(peers).unserved if one.peer not in lost]

    def _nexthops(self, peer: Peer, wired: Wired) -> Iterator[Key]:
        """The keys of the nexthops that the peer's routes have in *wired*."""
        for cidr in peer.pod_cidrs:
            route = wired.plan.get(Key(HOST, "route", str(cidr)))
            if isinstance(route, Route) and route.nhid:
                yield nexthop_key(route.nhid)

    def _ways(self, peer: Peer, wired: Wired) -> Iterator[tuple[Probe, Nexthop]]:
        sources = {address.version: address for address in self.own(self._here)}
        for target in self.own(peer):
            cidr = next(one for one in peer.pod_cidrs if target in one)
            route = wired.plan.get(Key(HOST, "route", str(cidr)))
            nexthop = wired.plan.get(nexthop_key(route.nhid)) if isinstance(route, Route) else None
            if isinstance(nexthop, Nexthop) and target.version in sources:
                spare = IPAddress(cidr.last, cidr.version)
                answerers = target, *peer.addresses
                yield Probe(sources[target.version], target, spare, nexthop.dev, answerers), nexthop

    def _tries(self, peer: Peer, wired: Wired) -> Iterator[Item]:
        """A route to the spare address of each probe by the way that *wired* has."""
        for probe, way in self._ways(peer, wired):
            number = nodeplan.nexthop_id(f"{peer.name} tried", probe.spare.version)
            while nexthop_key(number) in wired.plan or number in self._site.taken:
                number += 1
            yield way._replace(id=number)
            yield Route(HOST, f"{probe.spare}/{podlink.BITS[probe.spare.version]}", nhid=number)
