"""What the agent makes of a list whose nodes have flaws."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from netaddr import IPNetwork

from agent.keep.survey import Survey
from agent.switch.way import State, Way
from backends.podcidrs import PodCidrs
from backends.site import Options
from backends.static.wiring import StaticWiring
from dataplane.host import Facts
from dataplane.uplink import Uplink
from tests.fakes.world import HERE, OTHER, THIRD, UPLINK, WIRINGS, Nodes, World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Three nodes."""
    made = World(tmp_path, nodes=(HERE, OTHER, THIRD))
    yield made
    made.close()


def unserved(survey: Survey) -> dict[str, str]:
    """Whom the node cannot reach, and why."""
    assert survey.now is not None
    return {one.peer: one.why for one in survey.now.unserved}


def test_a_flawed_peer_is_told_and_the_others_are_served(world: World) -> None:
    """What can be used of it is; all that is wrong with it is told."""
    half = replace(OTHER, pod_cidrs=OTHER.pod_cidrs[:1], flaws=("its range is none", "its name is odd"))
    world.nodes.set(HERE, half, THIRD)
    world.reconcile()
    assert unserved(world.survey) == {"node-b": "its range is none; its name is odd"}
    kept = {str(item) for item in world.kernel.ours().values()}
    for cidr in (*half.pod_cidrs, *THIRD.pod_cidrs):
        assert any(str(cidr) in one for one in kept)
    assert not any(str(OTHER.pod_cidrs[1]) in one for one in kept)


def test_an_uplink_that_has_another_address_of_its_network_is_another(world: World) -> None:
    """It is followed, and told."""
    now = [UPLINK]
    survey = Survey(
        node="node-a",
        uplink="eth0",
        options=Options(),
        source=Nodes(HERE, OTHER),
        fabric=PodCidrs(),
        find_uplink=lambda name, addresses, others: now[0],
        wire=Way(State("static", "static", "static"), WIRINGS).wiring,
        look=lambda uplink, addresses: Facts(),
    )
    survey.refresh()
    now[0] = Uplink("eth0", 1500, (IPNetwork("192.0.2.77/24"), IPNetwork("2001:db8::1/64")))
    assert now[0].addresses == UPLINK.addresses, "to netaddr they are equal"
    assert survey.refresh()
    assert survey.now is not None
    assert str(survey.now.site.uplink.addresses[0]) == "192.0.2.77/24"


def test_a_node_whose_own_entry_becomes_flawed_goes_on_as_it_was(world: World) -> None:
    """It is told, its pods keep their ranges, and what changes of the others is followed all the same."""
    world.nodes.set(replace(HERE, pod_cidrs=(), flaws=("its Node has no pod CIDRs",)), OTHER)
    world.reconcile()
    assert unserved(world.survey) == {"node-a": "its Node has no pod CIDRs"}
    assert world.survey.problem is None
    assert world.survey.now is not None
    assert world.survey.now.site.here == HERE
    assert {one.owner for one in world.survey.now.blocks} == {"node-a"}
    assert not any(str(THIRD.pod_cidrs[0]) in str(item) for item in world.kernel.ours().values())
    assert world.problems() == []


def test_an_address_of_the_node_that_none_of_its_links_has_is_told(world: World) -> None:
    """Others send by it what is for this node's pods, so these are not reached in that family."""
    world.facts = Facts(missing=frozenset({"2001:db8::1"}))
    world.reconcile()
    assert unserved(world.survey) == {"node-a": "no link of it has its address 2001:db8::1"}
    assert world.survey.problem is None
    world.facts = Facts()
    world.reconcile()
    assert unserved(world.survey) == {}


def test_a_node_that_never_was_well_waits_for_what_it_lacks() -> None:
    """The reason is the source's, by its name."""
    nodes = Nodes(replace(HERE, pod_cidrs=(), flaws=("its Node has no pod CIDRs yet",)), OTHER)
    survey = Survey(
        node="node-a",
        uplink="",
        options=Options(),
        source=nodes,
        fabric=PodCidrs(),
        find_uplink=lambda name, addresses, others: UPLINK,
        wire=StaticWiring,
        look=lambda uplink, addresses: Facts(),
    )
    survey.refresh()
    assert survey.now is None
    why = "node node-a cannot have pods yet, as it is in the list of nodes, the test: its Node has no pod CIDRs yet"
    assert str(survey.problem) == why
    nodes.set(HERE, OTHER)
    assert survey.refresh()
    assert survey.problem is None
