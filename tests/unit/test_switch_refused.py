"""What a change of backend is refused for before anything is done, and what it waits for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from netaddr import IPNetwork

from agent.process.machine import boot_id
from agent.switch.switch import Switch
from cni.errors import ConfigInvalid, NotReady, TryAgain
from tests.fakes.world import HERE, OTHER, THIRD, WIRINGS, World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A node at rest."""
    made = World(tmp_path)
    yield made
    made.close()


def made(world: World, **changes: Any) -> Switch:
    """Its switch, with *changes*."""
    parts: dict[str, Any] = {
        "way": world.way,
        "boot": boot_id(),
        "journal": world.node.ledger,
        "let_pass": lambda patience: True,
        "load": WIRINGS,
        "settle": world.settled,
        "use": world.used.append,
        "missing": lambda plan: [],
        "silence": world.is_silent,
        "on_death": lambda thread, error: None,
        "drain": 0.0,
    }
    return Switch(**{**parts, **changes})


def ask(switch: Switch, world: World) -> None:
    """Go to vxlan."""
    switch.ask("vxlan", world.survey.now, is_dry=False, is_forced=False)


def test_what_surrounds_the_node_is_known_first(world: World) -> None:
    """Without a list of nodes nobody can say whom the new way reaches."""
    with pytest.raises(TryAgain, match="the list of nodes is not known yet"):
        made(world).ask("vxlan", None, is_dry=True, is_forced=True)


def test_what_the_machine_lacks_is_told_before_anything_is_changed(world: World) -> None:
    """All of it, and the node stays as it is."""
    before = world.way.state
    switch = made(world, missing=lambda plan: ["the module vxlan", "room"])
    with pytest.raises(NotReady, match="lacks what vxlan needs: the module vxlan; room"):
        ask(switch, world)
    assert world.way.state == before


def test_a_request_that_began_with_the_old_mtu_is_waited_for(world: World) -> None:
    """No peer moves meanwhile; when it is over the change goes on by itself."""
    is_over = False
    switch = made(world, let_pass=lambda patience: is_over)
    ask(switch, world)
    switch.advance()
    assert "a request that began before the change is not over yet" in str(switch.progress()["waiting"])
    assert switch.progress()["moved"] == 0
    is_over = True
    switch.advance()
    assert switch.progress()["phase"] == "at rest"
    assert switch.backend == "vxlan"


TINY = replace(THIRD, pod_cidrs=(IPNetwork("10.1.3.0/31"),))


def test_a_peer_that_nobody_can_ask_is_moved_only_where_that_is_forced(world: World) -> None:
    """Refused before anything is changed, by name; one that comes meanwhile stays on the old way and is waited for;
    forced, it moves."""
    world.nodes.set(HERE, OTHER, TINY)
    world.reconcile()
    switch = made(world)
    with pytest.raises(ConfigInvalid, match=r"node-c cannot be asked whether vxlan reaches them: .*; --force"):
        ask(switch, world)
    assert world.way.state.is_resting
    world.nodes.set(HERE, OTHER)
    world.reconcile()
    ask(switch, world)
    world.nodes.set(HERE, OTHER, TINY)
    switch.advance()
    progress = switch.progress()
    assert (progress["phase"], progress["moved"], list(progress["waiting"])) == ("waiting for peers", 1, ["node-c"])
    assert not world.way.state.has_moved("node-c")
    switch.ask("vxlan", world.survey.now, is_dry=False, is_forced=True)
    switch.advance()
    assert (switch.backend, switch.progress()["waiting"]) == ("vxlan", {})
