"""How the agent ends when parts of it hang."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from agent.process import life as module
from agent.process.life import Life


class Part:
    """Ends when it *may_stop*."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.may_stop = threading.Event()
        self.is_stopped = False

    def start(self) -> None:
        pass

    def stop(self) -> None:
        self.may_stop.wait()
        self.is_stopped = True


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The exit codes with which the process would have been left; its signals are as they were afterwards."""
    monkeypatch.setattr(module, "GRACE", 0.2)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield []
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_parts_that_stop_are_waited_for(left: list[int]) -> None:
    """Then the end is the caller's."""
    life, parts, done = Life(left.append), [Part("one"), Part("two")], []
    for part in parts:
        life.begin(part)
        part.may_stop.set()
    life.end(lambda: done.append("closed"), lambda: done.append("flushed"))
    assert [part.is_stopped for part in parts] == [True, True]
    assert (left, done, life.code) == ([], [], 0)


def test_a_part_that_hangs_keeps_neither_the_others_nor_the_end(
    left: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Nor does a journal that cannot be closed, or a log that nobody reads."""
    life, parts = Life(left.append), [Part("one"), Part("two"), Part("three")]
    for part in parts:
        life.begin(part)
    parts[1].may_stop.set()
    never = threading.Event()
    life.end(never.wait, never.wait)
    assert left == [1]
    assert parts[1].is_stopped
    assert [vars(record)["parts"] for record in caplog.records] == ["one, three"]
    for event in (never, *(part.may_stop for part in parts)):
        event.set()


def test_a_stop_that_fails_is_an_end_too(left: list[int], caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the others are stopped."""

    class Buggy(Part):
        def stop(self) -> None:
            raise ZeroDivisionError("a bug")

    life = Life(left.append)
    life.begin(Buggy("one"))
    life.end(lambda: None, lambda: None)
    assert left == []
    assert "ZeroDivisionError" in caplog.text
