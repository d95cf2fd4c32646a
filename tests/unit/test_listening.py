"""The thread that listens to a source of nodes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from agent.keep.listening import Listening


class Source:
    """Tells what a test wants; *failure* is what ends it."""

    def __init__(
        self, failure: Exception | None = None, tell: Callable[[Callable[[], None]], None] | None = None
    ) -> None:
        self._failure = failure
        self._tell = tell
        self._ended = threading.Event()

    def live(self, wake: Callable[[], None]) -> None:
        """One thing to tell, or what the test has, and then nothing."""
        if self._tell is not None:
            self._tell(wake)
        else:
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
    one = Listening(Source(), woken.set, lambda name, error: deaths.append((name, error)), time.monotonic)
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
    Listening(Source(failure), lambda: None, died, time.monotonic).start()
    assert told.wait(10)
    assert deaths == [("nodes", failure)]


def test_a_burst_of_news_is_one_pass() -> None:
    """Who was woken looks again within a second anyway; the first news after that wakes anew."""
    now, woken = [50.0], []

    def tell(wake: Callable[[], None]) -> None:
        for second in (0.0, 0.1, 0.9, 1.0, 1.5, 7.0):
            now[0] = 50.0 + second
            wake()

    source = Source(tell=tell)
    source.end()
    one = Listening(source, lambda: woken.append(now[0]), lambda name, error: None, lambda: now[0])
    one.start()
    one.stop()
    assert woken == [50.0, 51.0, 57.0]
