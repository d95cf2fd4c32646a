"""Any call of the kernel is refused, with any failure that the seam allows, whatever was being done.

What must hold then: nothing but a `Failure` comes out, and out of a pass nothing at all; what the fault did not concern
is served in the same pass; what it did is told; and when it is over, all is as it must be. Each run says whether its
fault was consumed; the first that was not ends the series.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from agent.node.ledger import Asked
from backends.podlink import link_name
from cni.errors import EnvironmentInvalid, Failure, InterfaceExists, KernelRefused, TryAgain
from cni.spec import Attachment
from dataplane.items import HOST, Key
from tests.fakes.world import World

PODS = {Attachment("pods", name, "eth0"): f"/run/netns/{name}" for name in "abc"}
NEW, NETNS = Attachment("pods", "n", "eth0"), "/run/netns/n"
FAILURES = {
    "try again": TryAgain("cannot look now", "No buffer space available (ENOBUFS)"),
    "refused": KernelRefused("cannot look", "Input/output error (EIO)", errno.EIO),
    "exists": KernelRefused("the kernel refused", "File exists (EEXIST)", errno.EEXIST, "route"),
    "absent": KernelRefused("the pod's network namespace is gone", "", errno.ENOENT),
    "no namespace": EnvironmentInvalid("CNI_NETNS is not a network namespace"),
}
MANY = 300


def add(world: World) -> None:
    world.add(NEW, NETNS)


def add_together(world: World) -> None:
    world.node.begin_addition({NEW: Asked(NETNS)})()


def delete(world: World) -> None:
    world.node.delete(next(iter(PODS)))


def delete_together(world: World) -> None:
    world.node.begin_removal(list(PODS)[:2])()


def collect(world: World) -> None:
    world.node.collect("pods", {("a", "eth0")}, world.node.ledger.sequence)


def check(world: World) -> None:
    for who, netns in PODS.items():
        world.node.check(who, netns, "", 0)


def start(world: World) -> None:
    world.restart()


OPERATIONS = {one.__name__: one for one in (add, add_together, delete, delete_together, collect, check, start)}
Make = Callable[[str], World]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Worlds with some pods, and a namespace for a new one."""
    made: list[World] = []

    def make(name: str) -> World:
        directory = tmp_path / name
        directory.mkdir()
        world = World(directory)
        made.append(world)
        world.kernel.add_netns(NETNS)
        for who, netns in PODS.items():
            world.kernel.add_netns(netns)
            world.add(who, netns)
        world.reconcile()
        return world

    yield make
    for one in made:
        one.close()


def settled(world: World) -> None:
    """When the fault is over: a pass later all is right, a runtime's retry succeeds, and nothing is left in the end."""
    world.now += 61
    world.reconcile()
    assert world.problems(on_host=True) == []
    assert dict(world.repair.failing) == {}
    with suppress(InterfaceExists):
        world.add(NEW, NETNS)
    assert world.problems() == []
    for who in (*PODS, NEW):
        world.node.delete(who)
    assert world.problems() == []
    assert world.pods_links() == 0


@pytest.mark.parametrize("failure", sorted(FAILURES))
@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_a_request_that_meets_a_fault_anywhere(make: Make, name: str, failure: str) -> None:
    """It fails as that, or is served all the same; the next one is served."""
    for number in range(1, MANY):
        world = make(f"{number}")
        world.kernel.refuse_at(number, FAILURES[failure])
        try:
            OPERATIONS[name](world)
        except Failure:
            if name == "start":  # the process ends with that, and its supervisor starts another
                world.restart()
        if not world.kernel.consumed:
            assert number > 1, "it asks nothing of the kernel: this proves nothing"
            return
        settled(world)
    raise AssertionError(f"more than {MANY} calls")


@pytest.mark.parametrize("failure", sorted(FAILURES))
def test_a_pass_that_meets_a_fault_anywhere(make: Make, failure: str) -> None:
    """Nothing comes out of it. Of the pods whose links, routes and neighbours somebody removed all but the one that the
    fault concerns are mended within it, and so is the node's part, object by object."""
    for number in range(1, MANY):
        world = make(f"{number}")
        for who in PODS:
            world.kernel.drift(Key(HOST, "link", link_name(who)), None)
        world.kernel.drift(Key(HOST, "route", "10.1.2.0/28"), None)
        world.kernel.refuse_at(number, FAILURES[failure])
        world.reconcile()
        if not world.kernel.consumed:
            assert world.problems(on_host=True) == []
            assert number > 10
            return
        left = world.problems(on_host=True)
        harmed = [who for who in PODS if any(link_name(who) in one for one in left)]
        assert len(harmed) <= 1
        assert not harmed or "10.1.2.0/28" not in str(left)
        settled(world)
    raise AssertionError(f"more than {MANY} calls")
