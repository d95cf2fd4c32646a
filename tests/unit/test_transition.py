"""What a node wants between two backends: who is reached by which, and what is tried."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import pytest
from netaddr import IPAddress, IPNetwork

from backends.podcidrs import own_addresses
from backends.reach import Passage, spare
from backends.site import Options, Site
from backends.static.wiring import StaticWiring
from backends.transition import Transition
from backends.vxlan.wiring import VxlanWiring
from backends.wiring import Wired, Wiring
from cluster.peers import Peer
from dataplane.items import HOST, Item, Key, Nexthop, Route, Rule
from dataplane.links import VXLAN_LINK
from ipam.store import Record
from tests.fakes.world import HERE, OTHER, THIRD, UPLINK

SITE = Site(HERE, UPLINK, Options())
PEERS = frozenset((HERE, OTHER, THIRD))


def reached(transition: Transition) -> dict[str, str]:
    """The device by which each range or address of others is reached."""
    plan = transition.node(PEERS).plan
    found = {}
    for item in plan.values():
        if isinstance(item, Route) and item.nhid:
            nexthop = plan[Key(HOST, "nexthop", str(item.nhid))]
            assert isinstance(nexthop, Nexthop)
            found[item.dst] = nexthop.dev
    return found


@pytest.mark.parametrize("moved", [(), ("node-b",), ("node-b", "node-c")])
def test_what_is_tried_goes_the_other_way(moved: tuple[str, ...]) -> None:
    """The last address of each range of the peer's, and nothing else: least of all one that somebody sends from, since
    the answers to that would tell another than the way to our pods."""
    wirings = StaticWiring(SITE), VxlanWiring(SITE)
    plain = reached(Transition(SITE, *wirings, lambda name: name in moved))
    tried = reached(Transition(SITE, *wirings, lambda name: name in moved, frozenset(["node-b", "node-c"])))
    assert {dst: tried[dst] for dst in plain} == plain
    other = {"eth0": VXLAN_LINK, VXLAN_LINK: "eth0"}
    assert {dst: dev for dst, dev in tried.items() if dst not in plain} == {
        "10.1.2.15/32": other[plain["10.1.2.0/28"]],
        "2001:db8:2:0:ffff:ffff:ffff:ffff/128": other[plain["2001:db8:2::/64"]],
        "10.1.3.15/32": other[plain["10.1.3.0/28"]],
        "2001:db8:3:0:ffff:ffff:ffff:ffff/128": other[plain["2001:db8:3::/64"]],
    }
    sources = [address for peer in PEERS for address in own_addresses(peer)]
    assert not [dst for dst in tried.keys() - plain.keys() for one in sources if one in IPNetwork(dst)]


def test_an_id_that_another_has_is_passed_over_for_what_is_tried() -> None:
    """As for the nexthops of the pods' own routes: through another's object nothing of ours may lead."""
    wirings = StaticWiring(SITE), VxlanWiring(SITE)
    tried = Transition(SITE, *wirings, lambda name: False, frozenset(["node-b"])).node(PEERS).plan
    route = tried[Key(HOST, "route", "10.1.2.15/32")]
    assert isinstance(route, Route)
    site = replace(SITE, taken=frozenset({route.nhid, route.nhid + 1}))
    again = Transition(site, StaticWiring(site), VxlanWiring(site), lambda name: False, frozenset(["node-b"]))
    moved = again.node(PEERS).plan[Key(HOST, "route", "10.1.2.15/32")]
    assert isinstance(moved, Route)
    assert moved.nhid == route.nhid + 2


class Daemon:
    """A wiring whose routes to peers another program has in the kernel, with a higher metric than ours; it keeps them
    in a table of its own besides, to which a rule can lead if it *can_be_tried*."""

    def __init__(self, *, can_be_tried: bool = True) -> None:
        self._static = StaticWiring(SITE)
        self._can_be_tried = can_be_tried
        self.mtu = self._static.mtu

    @property
    def reach(self) -> Daemon:
        return self

    def pod(self, record: Record) -> dict[Key, Item]:
        return self._static.pod(record)

    def node(self, peers: Collection[Peer]) -> Wired:
        return self._static.node([HERE])

    def own(self, node: Peer) -> Sequence[IPAddress]:
        return own_addresses(node)

    def passages(self, peer: Peer, plan: Mapping[Key, Item]) -> Sequence[Passage]:
        return [Passage(cidr, (), "eth0") for cidr in peer.pod_cidrs]

    def aside(self, peer: Peer, range_: IPNetwork, plan: Mapping[Key, Item]) -> Sequence[Item]:
        if not self._can_be_tried:
            return ()
        return [Rule(range_.version, 8200, 8200, dst=str(IPNetwork(spare(range_))))]


@pytest.mark.parametrize("ours", [StaticWiring(SITE), VxlanWiring(SITE)], ids=["static", "vxlan"])
def test_a_peer_moves_to_routes_that_are_not_ours_as_ours_go(ours: Wiring) -> None:
    """And back as they come: those of the others stay as they are, there and back."""
    plain = {dst for peer in (OTHER, THIRD) for dst in map(str, peer.pod_cidrs)}
    of_other = set(map(str, OTHER.pod_cidrs))
    for old, new, left in ((ours, Daemon(), plain - of_other), (Daemon(), ours, of_other)):
        before = reached(Transition(SITE, old, new))
        assert set(before) == (plain if old is ours else set())
        assert set(reached(Transition(SITE, old, new, lambda name: name == OTHER.name))) == left
        after = Transition(SITE, old, new, lambda name: True).node(PEERS).plan
        assert all(new.node(PEERS).plan[key] == item for key, item in after.items() if key.kind in ("route", "nexthop"))


def test_such_a_peer_is_tried_as_its_wiring_says() -> None:
    """Before it moves, and once it has, when it falls silent."""
    there = Transition(SITE, VxlanWiring(SITE), Daemon(), lambda name: False, frozenset([OTHER.name]))
    tried = [item for item in there.node(PEERS).plan.values() if isinstance(item, Rule)]
    assert [rule.dst for rule in tried] == ["10.1.2.15/32", "2001:db8:2:0:ffff:ffff:ffff:ffff/128"]
    (probe, _) = there.movable(PEERS)[OTHER.name]
    assert (str(probe.source), str(probe.target), str(probe.spare)) == ("10.1.1.0", "10.1.2.0", "10.1.2.15")
    assert probe.device == "eth0"
    assert there.unasked(PEERS) == []
    back = Transition(SITE, VxlanWiring(SITE), Daemon(), lambda name: True, frozenset([OTHER.name]))
    assert reached(back) == {"10.1.2.15/32": VXLAN_LINK, "2001:db8:2:0:ffff:ffff:ffff:ffff/128": VXLAN_LINK}


def test_who_cannot_be_asked_is_named_with_the_reason() -> None:
    """A peer without an address of its own among its pods', this node without one, a way that cannot be tried; not
    one without pods."""
    tiny = replace(OTHER, pod_cidrs=(IPNetwork("10.1.2.0/31"), OTHER.pod_cidrs[1]))
    foreign = replace(THIRD, pod_cidrs=())
    between = Transition(SITE, StaticWiring(SITE), VxlanWiring(SITE))
    assert [(one.peer, one.why) for one in between.unasked([HERE, tiny, foreign])] == [
        ("node-b", "node-b has no IPv4 address that it could be asked by among its pods'")
    ]
    assert [str(probe.target) for probe in between.movable([HERE, tiny])["node-b"]] == ["2001:db8:2::"]
    here = replace(HERE, pod_cidrs=(IPNetwork("10.1.1.0/31"),))
    site = replace(SITE, here=here)
    between = Transition(site, StaticWiring(site), VxlanWiring(site))
    assert [one.why for one in between.unasked([here, OTHER])] == [
        "node-a has no IPv4 address that it could be asked by among its pods'"
    ]
    between = Transition(SITE, VxlanWiring(SITE), Daemon(can_be_tried=False))
    assert [one.why for one in between.unasked([HERE, OTHER])] == [
        f"by the new way node-b is reached over IPv{family} with all its pods or not at all" for family in (4, 6)
    ]


def test_a_way_that_leads_nowhere_has_nothing_beside_it() -> None:
    """A peer that has moved falls silent, and the old way does not reach it any more: it is not tried by that."""
    far = replace(OTHER, addresses=(IPAddress("198.51.100.9"), IPAddress("2001:db8:9::9")))
    transition = Transition(SITE, StaticWiring(SITE), VxlanWiring(SITE), lambda name: True, frozenset([OTHER.name]))
    plan = transition.node([HERE, far]).plan
    assert [item.dst for item in plan.values() if isinstance(item, Route) and item.nhid] == [
        "10.1.2.0/28",
        "2001:db8:2::/64",
    ]
