"""What a node wants between two backends: who is reached by which, and what is tried."""

from __future__ import annotations

from dataclasses import replace

import pytest
from netaddr import IPNetwork

from backends.site import Options, Site
from backends.static.wiring import StaticWiring
from backends.transition import Transition
from backends.vxlan.wiring import VxlanWiring, overlay_addresses
from dataplane.items import HOST, VXLAN_LINK, Key, Nexthop, Route
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
    sources = [address for peer in PEERS for address in overlay_addresses(peer)]
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
