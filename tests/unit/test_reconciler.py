"""The reconciler's thread: whether a pass was completed, and when the last one was."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from subprocess import TimeoutExpired

import pytest

from agent.keep import reconciler as module
from agent.keep.reconciler import Reconciler
from agent.keep.spool import Spool
from agent.keep.survey import Surroundings
from cni.errors import KernelRefused
from ipam.store import Record
from tests.fakes.world import HERE, OTHER, THIRD, Nodes, World

DEADLINE = 60.0


class Doorbell:
    """Events that are a wake's alone: no pass comes by itself."""

    def __init__(self) -> None:
        self._rung = threading.Event()

    def wait(self, timeout: float) -> bool:
        self._rung.wait()
        self._rung.clear()
        return False

    def wake(self) -> None:
        self._rung.set()

    def watch(self, links: Collection[str]) -> None:
        pass


class Content:
    """Believes that all is well."""

    is_suspicious = False

    def look(self, around: Surroundings, records: Collection[Record]) -> None:
        pass


class Unruly(Nodes):
    """A list of nodes that a pass looks at first: *look* is called then."""

    look: Callable[[], object] = staticmethod(lambda: None)

    def refresh(self) -> bool:
        self.look()
        return super().refresh()


class Case:
    """A reconciler, what of it a test turns, and who died."""

    def __init__(self, world: World, nodes: Unruly, directory: Path) -> None:
        self.nodes = nodes
        self.survey = world.survey
        self.offered = threading.Event()
        self.now = 1000.0
        self.deaths: list[str] = []
        self.events = Doorbell()
        self.reconciler = Reconciler(
            survey=world.survey,
            node=world.node,
            repair=world.repair,
            reality=Content(),
            spool=Spool(directory / "spool", world.boot, lambda: world.now),
            serve_spooled=lambda spooled: [],
            events=self.events,
            offered=self.offered.set,
            on_death=lambda thread, error: self.deaths.append(f"{thread}: {error!r}"),
            clock=lambda: self.now,
            wall=lambda: world.now,
        )

    def fail(self, error: BaseException) -> None:
        """From now on every pass does."""

        def look() -> None:
            raise error

        self.nodes.look = look

    def text(self) -> str:
        """Its problem, in words."""
        return str(self.reconciler.problem() or "")


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    world = World(tmp_path)
    nodes = world.nodes = Unruly(HERE, OTHER)
    world.restart()
    (tmp_path / "spool").mkdir()
    one = Case(world, nodes, tmp_path)
    one.reconciler.start()
    yield one
    nodes.look = lambda: None
    one.reconciler.stop()
    world.close()


def test_a_source_that_watches_has_its_news_looked_at_at_once(case: Case) -> None:
    """It does no more than ring: here no pass comes by itself."""
    assert case.reconciler.settle()
    case.offered.clear()
    case.nodes.set(HERE, OTHER, THIRD)
    case.events.wake()
    assert case.offered.wait(DEADLINE)
    assert case.survey.now is not None
    assert THIRD in case.survey.now.peers


ERRORS = [
    KernelRefused("nothing can be read"),
    OSError(24, "Too many open files"),
    TimeoutExpired("nft", 10.0),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_what_the_world_does_to_a_pass_fails_that_pass_alone(
    case: Case, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody takes it for one that was completed; it is told once; the next one may be."""
    assert case.reconciler.settle()
    case.fail(error)
    for _ in range(3):
        assert not case.reconciler.settle()
    case.nodes.look = lambda: None
    assert case.reconciler.settle()
    assert case.deaths == []
    assert [record.message for record in caplog.records if record.name == "agent.keep.reconciler"] == ["a pass failed"]


@pytest.mark.parametrize("error", [ZeroDivisionError(), MemoryError(), SystemExit()], ids=repr)
def test_a_bug_ends_the_thread_and_nobody_waits_for_it(case: Case, error: BaseException) -> None:
    """Neither who waits then nor who comes later."""
    case.fail(error)
    assert not case.reconciler.settle()
    assert not case.reconciler.settle()
    case.reconciler.stop()
    assert case.deaths == [f"reconciler: {error!r}"]


def test_that_no_pass_was_completed_for_long_is_a_problem(case: Case) -> None:
    """Whether they fail or one hangs; each that is completed ends it."""
    assert case.reconciler.settle()
    assert case.reconciler.age() == 0
    case.now += module.LATE - 1
    assert case.reconciler.age() == module.LATE - 1
    assert case.text() == ""
    case.fail(KernelRefused("nothing can be read"))
    assert not case.reconciler.settle()
    case.now += 1
    assert case.text() == (
        "what changes on this node is not mended: no pass was completed for 60 s: nothing can be read"
    )
    case.nodes.look = lambda: None
    assert case.reconciler.settle()
    assert case.text() == ""
    assert case.reconciler.age() == 0
    case.now += module.LATE
    assert "something that it waits for hangs" in case.text()


def test_who_waits_for_a_pass_that_hangs_is_told_so_in_time(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """And at the end at once."""
    monkeypatch.setattr(module, "LATE", 0.2)
    begun, may_go_on = threading.Event(), threading.Event()

    def look() -> None:
        begun.set()
        may_go_on.wait(DEADLINE)

    case.nodes.look = look
    assert not case.reconciler.settle()
    monkeypatch.setattr(module, "LATE", DEADLINE)
    answers: list[bool] = []
    waiting = threading.Thread(target=lambda: answers.append(case.reconciler.settle()))
    waiting.start()
    stopping = threading.Thread(target=case.reconciler.stop)
    stopping.start()
    waiting.join(DEADLINE)
    assert answers == [False]
    may_go_on.set()
    stopping.join(DEADLINE)
    assert not stopping.is_alive()
