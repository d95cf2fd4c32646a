"""A second network of a pod: what of it is in the pod's namespace goes with it, for the pod may live on."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.node.ledger import Asked
from backends.podlink import link_name
from cni.errors import KernelRefused
from cni.spec import Attachment
from dataplane.items import HOST, Item, Key, Rule
from demo.lab import eventually
from ipam.store import Record
from tests.fakes.world import World, lived_in

NETNS = "/run/netns/a"
OTHER = Attachment("pods", "c2", "eth0")
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


def test_two_networks_that_come_at_once(tmp_path: Path) -> None:
    """As a runtime with two configurations asks for them: the one that begins first has the default routes, and the
    other waits until it sees them."""
    with lived_in(tmp_path, OTHER, "/run/netns/b") as world, ThreadPoolExecutor(1) as pool:
        world.kernel.add_netns(NETNS)
        crossing: list[Future[Record]] = []

        def cross() -> None:
            if not crossing:
                crossing.append(pool.submit(world.add, SECOND, NETNS))
                waiting = world.node._keys._locks
                eventually("it waits", lambda: crossing[0].done() or any(users == 2 for _, users in waiting.values()))

        world.kernel.between = cross
        assert world.add(FIRST, NETNS).beside == ()
        assert crossing[0].result().beside == (4, 6)
        assert world.problems() == []


def test_two_networks_that_come_in_one_batch(tmp_path: Path) -> None:
    """The first is attached, and the other left to be added alone."""
    with lived_in(tmp_path, OTHER, "/run/netns/b") as world:
        world.kernel.add_netns(NETNS)
        assert list(world.node.begin_addition({FIRST: Asked(NETNS), SECOND: Asked(NETNS)})()) == [FIRST]
        assert world.add(SECOND, NETNS).beside == (4, 6)
        done = world.node.begin_removal([SECOND, FIRST])()
        assert {who: removed.was_attached for who, removed in done.items()} == {FIRST: True, SECOND: True}
        assert world.problems() == []


def test_a_first_network_made_again_after_the_second_became_the_first(world: World) -> None:
    """Its link was lost, and before anybody saw that, another network came and found no default route: that has it
    now, and the link is made again beside it, for as long as it lives."""
    world.kernel.drift(Key(HOST, "link", link_name(FIRST)), None)
    assert world.add(SECOND, NETNS).beside == ()
    world.reconcile()
    assert dict(world.repair.diary.failing) == {}
    assert world.problems() == []
    record = world.node.ledger.record(FIRST)
    assert record is not None
    assert record.beside == (4, 6)
    world.restart()
    assert world.problems() == []


def test_a_network_without_a_default_route_whose_journal_was_lost(tmp_path: Path) -> None:
    """Its rules in the pod tell: CHECK finds all as it was, its link gets no default route when it is made again, and
    its DEL leaves nothing in the pod that lives on."""
    with lived_in(tmp_path, OTHER, "/run/netns/b") as world:
        world.kernel.add_netns(NETNS)
        before = world.kernel.ours()
        world.add(FIRST, NETNS, ASKED)
        world.lose_store()
        world.restart()
        world.node.check(FIRST, NETNS, "", 0)
        assert world.problems() == []
        world.kernel.drift(Key(HOST, "link", link_name(FIRST)), None)
        world.reconcile()
        assert world.problems() == []
        assert world.kernel.defaults(NETNS, "") == frozenset()
        assert world.node.delete(FIRST)
        assert world.kernel.ours() == before
