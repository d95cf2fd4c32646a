"""The process dies at every change of the kernel and at every write of the store, before or after it took effect.

After the restart: no lease without a pod, no pod without its lease, no address twice, nothing of ours left over, and
the runtime's retry succeeds. Each run says whether its fault was consumed; the first that was not ends the series.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest

from agent.keep.repair import Repair
from agent.keep.replay import delete_spooled
from agent.keep.spool import Spooled, Written
from agent.node.ledger import Asked
from agent.node.node import Removed
from backends.podlink import link_name
from backends.static.wiring import StaticWiring
from cni import frame
from cni.errors import InterfaceExists, KernelRefused, TryAgain
from cni.spec import Attachment
from dataplane.items import HOST, Item, Key
from ipam.moment import Moment
from ipam.store import Record, Store
from tests.fakes.kernel import Killed
from tests.fakes.world import OTHER, World

POD = Attachment("pods", "a", "eth0")
OLD = Attachment("pods", "b", "eth0")
OTHER_POD = Attachment("pods", "c", "eth0")
NETNS, OLD_NETNS, OTHER_NETNS = "/run/netns/a", "/run/netns/b", "/run/netns/c"
MANY = 200


class Deadly:
    """A store whose n-th write is the process's last."""

    def __init__(self, store: Store, fault: list[int], *, after: bool) -> None:
        self._store = store
        self._fault = fault
        self._after = after

    def _write(self, write: Callable[[], object]) -> object:
        if self._fault:
            self._fault[0] -= 1
            if self._fault[0] == 0:
                self._fault.clear()
                if self._after:
                    write()
                raise Killed
        return write()

    def save(self, record: Record) -> None:
        """See `Store.save`."""
        self._write(lambda: self._store.save(record))

    def enter(self, records: Collection[Record]) -> None:
        """See `Store.enter`."""
        self._write(lambda: self._store.enter(records))

    def drop(self, whos: Collection[Attachment], now: Moment) -> object:
        """See `Store.drop`."""
        return self._write(lambda: self._store.drop(whos, now))

    def cancel(self, whos: Collection[Attachment]) -> object:
        """See `Store.cancel`."""
        return self._write(lambda: self._store.cancel(whos))

    def remember(self, name: str, value: str) -> object:
        """See `Store.remember`."""
        return self._write(lambda: self._store.remember(name, value))

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


def add(world: World) -> None:
    world.add(POD, NETNS)


def delete(world: World) -> None:
    world.node.delete(OLD)


def delete_together(world: World) -> None:
    world.add(POD, NETNS)
    world.node.begin_removal([OLD, POD])()


def add_together(world: World) -> None:
    done = world.node.begin_addition({POD: Asked(NETNS), OTHER_POD: Asked(OTHER_NETNS)})()
    assert not done or set(done) == {POD, OTHER_POD}


def collect(world: World) -> None:
    world.node.collect("pods", set(), world.node.ledger.sequence)


def start(world: World) -> None:
    world.kernel.drift(Key(HOST, "route", "10.1.2.0/28"), None)
    world.restart()


def adopt(world: World) -> None:
    world.lose_store()
    world.restart()


def repair(world: World) -> None:
    for key in sorted(world.kernel.ours(), key=str):
        if key in world.kernel.ours() and key.place == HOST and key.kind in ("route", "neigh", "nexthop"):
            world.kernel.drift(key, None)
    world.reconcile()


def follow(world: World) -> None:
    world.nodes.set(next(iter(world.nodes.nodes - {OTHER})))
    world.reconcile()


OPERATIONS = {
    one.__name__: one
    for one in (add, add_together, delete, delete_together, collect, start, adopt, repair, follow)
}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Callable[[str], World]]:
    """Worlds with one old pod, and a namespace for a new one."""
    made: list[World] = []

    def make(name: str, wrap: Callable[[Store], Store] = lambda store: store) -> World:
        directory = tmp_path / name
        directory.mkdir()
        world = World(directory, wrap)
        made.append(world)
        for netns in (NETNS, OLD_NETNS, OTHER_NETNS):
            world.kernel.add_netns(netns)
        world.add(OLD, OLD_NETNS)
        return world

    yield make
    for one in made:
        one.close()


def recovered(world: World) -> None:
    """What must be true once a new process has started, and what the runtime does next."""
    world.restart()
    assert world.problems(on_host=True) == []
    for who, netns in ((POD, NETNS), (OLD, OLD_NETNS)):
        record = world.add(who, netns)  # never answered, as far as the new process knows: it is completed
        assert [one for one in world.problems() if netns in one] == []
        with pytest.raises(InterfaceExists):
            world.add(who, netns)
        assert record == world.node.ledger.record(who)
    for who in (POD, OLD, OTHER_POD):
        world.node.delete(who)
    assert world.problems() == []
    assert world.pods_links() == 0
    assert world.node.ledger.records() == {}
    assert [item.key.name for item in world.kernel.foreign().values()] == ["203.0.113.0/24"]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", sorted(OPERATIONS.keys() - {"adopt"}))
def test_death_at_every_change_of_the_kernel(world: Callable[[str], World], name: str, after: bool) -> None:
    """Whatever was being done."""
    for number in range(1, MANY):
        one = world(f"{number}")
        one.kernel.fail_at(number, Killed(), after=after)
        try:
            OPERATIONS[name](one)
        except Killed:
            assert one.kernel.consumed
            recovered(one)
            continue
        assert not one.kernel.consumed, "the fault was swallowed"
        assert number > 1, "the operation changes nothing: this proves nothing"
        return
    raise AssertionError(f"more than {MANY} changes")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", ["add", "add_together", "delete", "delete_together", "collect", "adopt"])
def test_death_at_every_write_of_the_store(world: Callable[..., World], name: str, after: bool) -> None:
    """Whatever was being done."""
    for number in range(1, MANY):
        fault: list[int] = []
        one: World = world(f"{number}", lambda store, fault=fault: Deadly(store, fault, after=after))
        fault.append(number)
        try:
            OPERATIONS[name](one)
        except Killed:
            assert fault == []
            recovered(one)
            continue
        assert fault != [], "the fault was swallowed"
        assert number > 1, "the operation writes nothing: this proves nothing"
        return
    raise AssertionError(f"more than {MANY} writes")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_an_add_that_the_kernel_refuses_anywhere_leaves_nothing(world: Callable[[str], World], after: bool) -> None:
    """No restart needed: the address is free at once and the retry succeeds."""
    for number in range(1, MANY):
        one = world(f"{number}")
        free = sum(counts.free for counts in one.node.ledger.counts() if counts.block.family == 4)
        one.kernel.fail_at(number, KernelRefused("no", "", 1), after=after)
        try:
            add(one)
        except KernelRefused:
            assert one.problems() == []
            assert sum(counts.free for counts in one.node.ledger.counts() if counts.block.family == 4) == free
            add(one)
            assert one.problems() == []
            continue
        assert not one.kernel.consumed
        return


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_adds_together_that_the_kernel_refuses_anywhere_leave_nothing(
    world: Callable[[str], World], after: bool
) -> None:
    """None of them is attached then, no address is taken, and alone each succeeds or says what is wrong."""
    for number in range(1, MANY):
        one = world(f"{number}")
        free = [counts.free for counts in one.node.ledger.counts()]
        one.kernel.fail_at(number, KernelRefused("no", "", 1), after=after)
        done = one.node.begin_addition({POD: Asked(NETNS), OTHER_POD: Asked(OTHER_NETNS)})()
        if not one.kernel.consumed:
            assert set(done) == {POD, OTHER_POD}
            assert one.problems() == []
            return
        assert done == {}
        assert one.problems() == []
        assert [counts.free for counts in one.node.ledger.counts()] == free
        add(one)
        assert one.problems() == []


def test_of_adds_together_those_are_left_out_that_must_be_served_alone(world: Callable[[str], World]) -> None:
    """What is attached already or gets no address: alone it is told why, and the others are attached. With one whose
    namespace is gone, or is none, all are left as they were."""
    one = world("mixed")
    full = {Attachment("pods", f"f{number}", "eth0"): Asked(f"/run/netns/f{number}") for number in range(14)}
    for asked in full.values():
        one.kernel.add_netns(asked.netns)
    for netns in ("/run/netns/gone", "/proc/self/ns/net"):
        assert one.node.begin_addition({POD: Asked(netns), **full})() == {}
        assert one.problems() == []
        assert set(one.node.ledger.records()) == {OLD}
    done = one.node.begin_addition({OLD: Asked(OLD_NETNS), **full})()
    assert len(done) == 13, "as many as there were addresses"
    assert OLD not in done
    assert one.problems() == []
    assert len(one.node.ledger.records()) == 14


def test_one_delete_of_many_that_the_kernel_refuses(world: Callable[[str], World]) -> None:
    """The others are deleted all the same, and its own failure is its own; the next DEL succeeds."""
    for number in range(1, MANY):
        one = world(f"{number}")
        one.add(POD, NETNS)
        one.kernel.fail_at(number, KernelRefused("no", "", 1))
        first = one.node.begin_removal([OLD, POD])()
        assert set(first) == {OLD, POD}
        assert first[OLD].error is None or first[POD].error is None
        if one.kernel.consumed:
            assert all(removed.error is None for removed in one.node.begin_removal([OLD, POD])().values())
        assert one.problems() == []
        assert one.node.ledger.records() == {}
        if not one.kernel.consumed:
            return


def test_a_delete_among_many_does_not_wait_for_a_request_under_way(world: Callable[[str], World]) -> None:
    """It is left out, for being served alone, and the others are deleted."""
    one = world("busy")
    done: list[dict[Attachment, Removed]] = []

    class Slow(StaticWiring):
        def pod(self, record: Record) -> dict[Key, Item]:
            if record.lease.who == POD and not done:
                done.append(one.node.begin_removal([OLD, POD])())
            return super().pod(record)

    around = one.survey.now
    assert around is not None
    one.node.rewire(Slow(around.site))
    one.add(POD, NETNS)
    assert done == [{OLD: Removed(True)}]
    assert set(one.node.ledger.records()) == {POD}


def test_a_repair_that_the_kernel_refuses_comes_again(world: Callable[[str], World]) -> None:
    """One object that cannot be put right does not keep the others from it, is told, and is right after the next
    pass."""
    for number in range(1, MANY):
        one = world(f"{number}")
        one.kernel.fail_at(number, TryAgain("no memory"))
        repair(one)
        if not one.kernel.consumed:
            return
        one.now += 61
        one.reconcile()
        assert one.problems() == []
        assert dict(one.repair.diary.failing) == {}


def test_a_pass_over_the_pods_gives_way_to_requests(world: Callable[[str], World]) -> None:
    """While somebody waits for an answer it pauses, but not for ever: drift is still found within two seconds."""
    one = world("busy")
    around = one.survey.now
    assert around is not None
    pauses: list[float] = []
    repair = Repair(
        node=one.node,
        survey=one.survey,
        dataplane=one.kernel,
        clock=lambda: one.now,
        wall=lambda: one.now,
        pause=pauses.append,
    )
    repair.quick()
    assert pauses == []

    class Slow(StaticWiring):
        def pod(self, record: Record) -> dict[Key, Item]:
            if record.lease.who == POD and not pauses:
                repair.quick()
            return super().pod(record)

    one.node.rewire(Slow(around.site))
    one.kernel.drift(Key(HOST, "link", link_name(OLD)), None)
    one.add(POD, NETNS)
    assert 0.4 < sum(pauses) <= 0.6
    assert one.pods_links() == 2, "and then it looks all the same"


def test_spooled_deletes_end_what_was_there_when_they_were_written(world: Callable[[str], World]) -> None:
    """Together; what was added later is left alone, what is not known or no DEL is done with, and a failure is told."""
    one = world("spooled")
    one.now += 100
    one.add(POD, NETNS)

    def spooled(who: Attachment, written: float, verb: bytes = b"DEL") -> Spooled:
        env = {"CNI_COMMAND": verb, "CNI_CONTAINERID": who.container.encode(), "CNI_IFNAME": who.ifname.encode()}
        return Spooled(frame.Request(env, b'{"cniVersion": "1.0.0", "name": "pods"}'), Written(written, 0.0))

    before = one.now - 50
    batch = [spooled(OLD, before), spooled(POD, before), spooled(OTHER_POD, before), spooled(POD, one.now + 1, b"ADD")]
    one.kernel.fail_at(1, KernelRefused("no", "", 1))  # of many: each is tried again alone
    assert delete_spooled(one.node, batch) == [None] * 4
    assert set(one.node.ledger.records()) == {POD}
    assert one.problems() == []
    assert delete_spooled(one.node, [spooled(POD, one.now + 1), spooled(POD, before)]) == [None, None]
    assert one.node.ledger.records() == {}
    one.add(POD, NETNS)
    one.kernel.fail_at(1, KernelRefused("no", "", 1))
    (failure,) = delete_spooled(one.node, [spooled(POD, one.now + 1)])
    assert isinstance(failure, KernelRefused)
    assert delete_spooled(one.node, [spooled(POD, one.now + 1)]) == [None]
    assert one.problems() == []
