"""A node on its way from one wiring to another: both are programmed, and each peer is reached by one or the other.

A packet from pod to pod goes as in one of the two wirings; what decides which one, each wiring says itself
(`backends.reach`): where both have nexthop objects, those have the same ids in both, so to move a peer is to replace
them, under routes that stay. What arrives is taken from either way all the time, so a node that has moved and one that
has not understand each other in both directions.

The pods' routes say the smaller MTU of the two from before the first peer moves until after the last has, so no packet
is under way that the new way could not carry.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

from netaddr import IPAddress, IPNetwork

from backends import podlink
from backends.nodeplan import families
from backends.reach import spare
from backends.site import Site
from backends.wiring import Unserved, Wired, Wiring
from cluster.peers import Peer
from dataplane.items import Item, Key
from ipam.store import Record


class Probe(NamedTuple):
    """How to find out whether a peer is reached: something sent from *source*, this node's own address among its pods',
    which the peer answers as it sends to our pods, to *target*, the peer's; *device* leads there, and
    *answerers* are the peer's addresses, one of which an ICMP error must come from to be its answer.

    *spare* is what is asked before the peer moves: see `backends.reach.spare`.
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
        self.reach = new.reach

    def pod(self, record: Record) -> dict[Key, Item]:
        """See `backends.wiring.Wiring.pod`."""
        return podlink.pod(record, min(self._old.mtu, self._new.mtu), self._site)

    def node(self, peers: Collection[Peer]) -> Wired:
        """See `backends.wiring.Wiring.node`."""
        old, new = self._old.node(peers), self._new.node(peers)
        whole = {**new.plan, **old.plan}
        decisive: dict[Key, Item] = {}
        for peer in peers:
            gone, put = self._decisive(peer, old.plan, new.plan)
            for key in gone:
                whole.pop(key, None)
            decisive.update((item.key, item) for item in put)
        whole.update(decisive)
        unserved = [one for one in new.unserved if self._has_moved(one.peer)]
        unserved += [one for one in old.unserved if not self._has_moved(one.peer)]
        return Wired(whole, tuple(unserved))

    def _decisive(
        self, peer: Peer, old: Mapping[Key, Item], new: Mapping[Key, Item]
    ) -> tuple[list[Key], list[Item]]:
        """What must not be, and what must, for the *peer* to be reached the one way; its spare addresses, if it is
        tried, the other. A range to which the one way does not lead is left to the other."""
        ways = (self._old.reach, old), (self._new.reach, new)
        (reach, plan), (other_reach, other) = reversed(ways) if self._has_moved(peer.name) else ways
        passages = reach.passages(peer, plan)
        ranges = {one.range for one in passages}
        gone = [key for one in other_reach.passages(peer, other) if one.range in ranges for key in one.decide]
        put = [plan[key] for one in passages for key in one.decide]
        if peer.name in self._tried:
            put += [item for _, range_ in self._targets(peer) for item in other_reach.aside(peer, range_, other)]
        return gone, put

    def movable(self, peers: Collection[Peer]) -> dict[str, list[Probe]]:
        """The peers that *new* can reach, and how to find out whether it does."""
        new = self._new.node(peers)
        unserved = {one.peer for one in new.unserved}
        return {
            peer.name: list(self._probes(peer, new.plan))
            for peer in peers
            if peer.name not in unserved and peer.name != self._here.name
        }

    def immovable(self, peers: Collection[Peer]) -> list[Unserved]:
        """The peers that *old* reaches and *new* cannot, and why."""
        lost = {one.peer for one in self._old.node(peers).unserved}
        return [one for one in self._new.node(peers).unserved if one.peer not in lost]

    def unasked(self, peers: Collection[Peer]) -> list[Unserved]:
        """The peers that *new* can reach, but that cannot be asked whether it does; and why."""
        movable = self.movable(peers)
        found: list[Unserved] = []
        for peer in peers:
            asked = {probe.target.version for probe in movable.get(peer.name, ())}
            needed = set(families(peer)) & set(families(self._here)) if peer.name in movable else set()
            found += [Unserved(peer.name, self._why_unasked(peer, family)) for family in sorted(needed - asked)]
        return found

    def _own(self, node: Peer) -> list[IPAddress]:
        """The addresses that a node has itself where it is wired in either way."""
        return list(dict.fromkeys((*self._old.reach.own(node), *self._new.reach.own(node))))

    def _targets(self, peer: Peer) -> list[tuple[IPAddress, IPNetwork]]:
        """The addresses of the *peer*'s that can be asked, and the ranges that they are of."""
        return [(one, next(cidr for cidr in peer.pod_cidrs if one in cidr)) for one in self._own(peer)]

    def _probes(self, peer: Peer, plan: Mapping[Key, Item]) -> Iterator[Probe]:
        sources = {address.version: address for address in self._own(self._here)}
        devices = {passage.range: passage.device for passage in self._new.reach.passages(peer, plan)}
        for target, range_ in self._targets(peer):
            if target.version not in sources or range_ not in devices:
                continue
            if self._new.reach.aside(peer, range_, plan):
                answerers = target, *peer.addresses
                yield Probe(sources[target.version], target, spare(range_), devices[range_], answerers)

    def _why_unasked(self, peer: Peer, family: int) -> str:
        for node in (peer, self._here):
            if all(one.version != family for one in self._own(node)):
                return f"{node.name} has no IPv{family} address that it could be asked by among its pods'"
        return f"by the new way {peer.name} is reached over IPv{family} with all its pods or not at all"
