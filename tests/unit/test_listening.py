"""The thread that listens to a source of nodes."""

from __future__ import annotations

import threading
from collections.abc import Callable

from agent.keep.listening import Listening


class Source:
    """Tells what a test wants; *failure* is what ends it."""

    def __init__(self, failure: Exception | None = None) -> None:
        self._failure = failure
        self._ended = threading.Event()

    def live(self, wake: Callable[[], None]) -> None:
        """One thing to tell, and then nothing."""
        wake()
        if self._failure is not None:
            raise self._failure
        assert self._ended.wait(10)

    def end(self) -> None:
        """No more."""
        self._ended.set()


def test_what_is_told_wakes_the_reconciler_and_an_end_is_one() -> None:
    """`stop` returns when the thread has ended, and that is no death."""
    woken, deaths = threading.Event(), []
    one = Listening(Source(), woken.set, lambda name, error: deaths.append((name, error)))
    one.start()
    assert woken.wait(10)
    one.stop()
    assert not deaths


def test_its_death_is_told() -> None:
    """By the name of the thread, with the reason."""
    told = threading.Event()
    deaths: list[tuple[str, BaseException]] = []

    def died(name: str, error: BaseException) -> None:
        deaths.append((name, error))
        told.set()

    failure = RuntimeError("a bug")
    Listening(Source(failure), lambda: None, died).start()
    assert told.wait(10)
    assert deaths == [("nodes", failure)]
