"""The thread in which a fabric lives: it has done what is yielded, and says how that went."""

from __future__ import annotations

import queue
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from backends.cloud import errands as module
from backends.cloud.errands import Errands
from backends.cloud.steps import Settle, Wait

DEADLINE = 60.0


class Refused(Exception):
    """What a step may raise."""


class Outside:
    """Does the steps, and writes down in *done* what happened, in order."""

    def __init__(self) -> None:
        self.done: queue.Queue[str] = queue.Queue()
        self.is_settled = True

    def perform(self, step: Any) -> Any:
        if step == "refused":
            raise Refused("no")
        if step == "bug":
            raise ZeroDivisionError("a bug")
        return f"answer to {step}"

    def settle(self) -> bool:
        self.done.put("settled" if self.is_settled else "not settled")
        return self.is_settled

    def died(self, thread: str, error: BaseException) -> None:
        self.done.put(f"{thread} died: {error}")

    def next(self) -> str:
        return self.done.get(timeout=DEADLINE)


@contextmanager
def living(life: Generator[Any, Any, None], outside: Outside) -> Iterator[Errands]:
    errands = Errands(life, outside.perform, Refused, outside.settle, outside.died)
    errands.start()
    try:
        yield errands
    finally:
        errands.stop()


def test_steps_are_done_in_order_and_failures_are_thrown_where_they_belong() -> None:
    """Only what a step may raise; the life goes on after it."""
    outside = Outside()

    def life() -> Generator[Any, Any, None]:
        outside.done.put((yield "first"))
        try:
            yield "refused"
        except Refused as error:
            outside.done.put(f"caught {error}")
        outside.done.put(str((yield Settle())))
        outside.done.put((yield "second"))
        yield Wait(DEADLINE, DEADLINE)

    with living(life(), outside):
        found = [outside.next() for _ in range(5)]
    assert found == ["answer to first", "caught no", "settled", "None", "answer to second"]


def test_what_needs_the_kernel_waits_until_that_has_what_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass that failed is not taken for one that was completed: addresses would be taken away under pods."""
    monkeypatch.setattr(module, "RETRY", 0.01)
    outside = Outside()
    outside.is_settled = False

    def life() -> Generator[Any, Any, None]:
        yield Settle()
        outside.done.put("goes on")
        yield Wait(DEADLINE, DEADLINE)

    with living(life(), outside):
        assert [outside.next(), outside.next()] == ["not settled"] * 2
        outside.is_settled = True
        while (found := outside.next()) == "not settled":
            pass
        assert [found, outside.next()] == ["settled", "goes on"]


def test_a_wait_ends_when_there_is_something_to_do_and_at_the_end() -> None:
    """Also if that was said just before the wait began: nothing is missed."""
    outside = Outside()

    def life() -> Generator[Any, Any, None]:
        while True:
            outside.done.put("looked")
            yield Wait(3600.0, 3600.0)

    with living(life(), outside) as errands:
        for _ in range(3):
            assert outside.next() == "looked"
            errands.wake()
        assert outside.next() == "looked"


def test_a_bug_ends_the_thread_and_is_told() -> None:
    """The process follows, for its supervisor to start anew."""
    outside = Outside()

    def life() -> Generator[Any, Any, None]:
        yield "bug"

    with living(life(), outside):
        assert outside.next() == "fabric died: a bug"
