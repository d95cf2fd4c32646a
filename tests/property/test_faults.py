"""Any call of the kernel is refused, with any failure that the seam allows, whatever was being done.

What must hold then: nothing but a `Failure` comes out, and out of a pass nothing at all; what the fault did not concern
is served in the same pass; what it did is told; and when it is over, all is as it must be. Each run says whether its
fault was consumed; the first that was not ends the series.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from agent.node.ledger import Asked
from backends.podlink import link_name
from cni.errors import EnvironmentInvalid, Failure, InterfaceExists, KernelRefused, TryAgain
from cni.spec import Attachment
from dataplane.items import HOST, Key
from ipam.store import Store
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


class Full:
    """A store that refuses the n-th write from now, where *fault* holds such a number."""

    def __init__(self, store: Store, fault: list[int]) -> None:
        self._store = store
        self._fault = fault

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        return partial(self._write, found) if name in ("save", "enter", "drop", "cancel", "remember") else found

    def _write(self, write: Callable[..., object], *arguments: object) -> object:
        if self._fault:
            self._fault[0] -= 1
            if self._fault[0] == 0:
                self._fault.clear()
                raise TryAgain("the store cannot be written: its file system is full")
        return write(*arguments)


def full(tmp_path: Path, fault: list[int]) -> World:
    """A world with some pods whose journal is such."""
    world = World(tmp_path, lambda store: cast(Store, Full(store, fault)))
    world.kernel.add_netns(NETNS)
    for who, netns in PODS.items():
        world.kernel.add_netns(netns)
        world.add(who, netns)
    world.reconcile()
    return world


def settled(world: World) -> None:
    """When the fault is over: a pass later all is right, a runtime's retry succeeds, and nothing is left in the end."""
    world.now += 61
    world.reconcile()
    assert world.problems(on_host=True) == []
    assert dict(world.repair.diary.failing) == {}
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


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_a_request_whose_journal_takes_nothing_at_any_write(tmp_path: Path, name: str) -> None:
    """It fails, or is tried one by one; nobody is told that what is not kept was done."""
    for number in range(1, MANY):
        directory = tmp_path / f"{number}"
        directory.mkdir()
        fault: list[int] = []
        with closing(full(directory, fault)) as world:
            fault.append(number)
            with suppress(TryAgain):
                OPERATIONS[name](world)
            if fault:
                fault.clear()
                assert number > 1 or name == "check", "it writes nothing: this proves nothing"
                return
            world.restart()
            settled(world)
    raise AssertionError(f"more than {MANY} writes")


def test_a_journal_that_cannot_be_built_anew_is_told_until_it_can(tmp_path: Path) -> None:
    """Where its directory has become a file, and where the new one takes nothing: each look tries again."""
    fault: list[int] = []
    directory = tmp_path / "state"
    directory.mkdir()
    with closing(full(directory, fault)) as world:
        directory.rename(tmp_path / "away")
        directory.write_text("not a directory")
        world.reconcile()
        assert "cannot be" in str(world.node.ledger.problem)
        directory.unlink()
        fault.append(2)
        world.reconcile()
        assert "its file system is full" in str(world.node.ledger.problem)
        world.reconcile()
        assert world.node.ledger.problem is None
        assert world.problems() == []
        settled(world)


@pytest.mark.parametrize("name", ["add", "add_together"])
def test_an_add_that_can_neither_be_made_nor_undone(tmp_path: Path, name: str) -> None:
    """The kernel refuses, and so does the journal: the address stays whose it is until its DEL, which comes."""
    for number in range(1, MANY):
        directory = tmp_path / f"{number}"
        directory.mkdir()
        fault: list[int] = []
        with closing(full(directory, fault)) as world:
            fault.append(2)  # after the lease itself
            world.kernel.fail_at(number, FAILURES["refused"])
            with suppress(Failure):
                OPERATIONS[name](world)
            if not world.kernel.consumed:
                assert number > 3
                return
            fault.clear()
            world.kernel.forgive()
            assert len({one for record in world.node.ledger.records().values() for one in record.lease.addresses}) == 8
            settled(world)
    raise AssertionError(f"more than {MANY} changes")


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
