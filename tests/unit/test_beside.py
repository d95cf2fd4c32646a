"""A second network of a pod: what of it is in the pod's namespace goes with it, for the pod may live on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.node.ledger import Asked
from cni.errors import KernelRefused
from cni.spec import Attachment
from dataplane.items import Item, Key, Rule
from tests.fakes.world import World, lived_in

NETNS = "/run/netns/a"
FIRST, SECOND = Attachment("pods", "c1", "eth0"), Attachment("second", "c1", "net1")
ASKED = Asked("", beside=frozenset((4, 6)))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A node with a pod that has one network."""
    with lived_in(tmp_path, FIRST, NETNS) as made:
        yield made


@pytest.fixture
def before(world: World) -> dict[Key, Item]:
    """The kernel with the pod's first network alone."""
    return world.kernel.ours()


@pytest.mark.parametrize("verb", ["DEL", "DEL of many", "GC"])
def test_its_rules_go_with_it(world: World, before: dict[Key, Item], verb: str) -> None:
    """However it ends; the first network stays as it was."""
    world.add(SECOND, NETNS, ASKED)
    assert sum(isinstance(item, Rule) for item in world.kernel.ours().values()) == 2
    if verb == "DEL":
        assert world.node.delete(SECOND)
    elif verb == "GC":
        assert world.node.collect("second", (), world.node.ledger.sequence) == [SECOND]
    else:
        assert world.node.begin_removal([SECOND])()[SECOND].error is None
    assert world.kernel.ours() == before


def test_an_add_of_it_that_fails_anywhere_leaves_nothing(world: World, before: dict[Key, Item]) -> None:
    """At each change of the kernel, though the change took effect."""
    for number in range(1, 100):
        world.kernel.fail_at(number, KernelRefused("no", ""), after=True)
        try:
            world.add(SECOND, NETNS, ASKED)
        except KernelRefused:
            assert world.kernel.consumed
            assert world.kernel.ours() == before
        else:
            break
    assert number > 10
    world.kernel.forgive()
    assert world.problems() == []
