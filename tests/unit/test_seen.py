"""Which backend a node was left with, where no journal tells it: what is in the kernel does."""

from __future__ import annotations

import pytest
from netaddr import IPNetwork

import backends
from agent.switch.way import State, seen
from backends.bgp.table import BgpTable
from backends.site import Options, Site
from backends.transition import Transition
from backends.wiring import Wiring
from tests.fakes.world import HERE, OTHER, THIRD, UPLINK

SITE = Site(HERE, UPLINK, Options())
PEERS = (HERE, OTHER, THIRD)
NAMES = [one.name for one in PEERS]
BGP = BgpTable(asn=64512, accept=(IPNetwork("10.0.0.0/8"), IPNetwork("2001:db8::/32")))
ALIKE = ("static", "vxlan", "bgp")


def wiring(name: str) -> Wiring:
    """By that backend."""
    backend = backends.load(name)
    made: Wiring = backend.wiring(SITE, BGP if name == "bgp" else backend.table())
    return made


@pytest.mark.parametrize("configured", ALIKE)
@pytest.mark.parametrize("used", ALIKE)
def test_what_is_in_use_is_gone_on_from(used: str, configured: str) -> None:
    """Every peer is left with it until it was asked, but where it is what is configured."""
    state = seen(wiring(used).node(PEERS).plan, NAMES, configured)
    assert (state.active, state.wanted) == (used, configured)
    assert [name for name in (OTHER.name, THIRD.name) if state.has_moved(name)] == []


@pytest.mark.parametrize("old", ALIKE)
@pytest.mark.parametrize("new", ALIKE)
def test_on_the_way_each_peer_is_where_it_was(old: str, new: str) -> None:
    """Whatever either backend has in the kernel for a peer, or has not."""
    if old == new:
        return
    between = Transition(SITE, wiring(old), wiring(new), lambda name: name == OTHER.name)
    state = seen(between.node(PEERS).plan, NAMES, new)
    assert (state.active, state.wanted) == (old, new)
    assert {name: state.has_moved(name) for name in (OTHER.name, THIRD.name)} == {"node-b": True, "node-c": False}


def test_nothing_in_the_kernel_is_nothing_to_go_on_from() -> None:
    """A node that was never wired, or has been booted."""
    assert seen({}, NAMES, "static") == State("static", "static", "static")
