"""Seconds as the machine grants them.

Who promises to be done within two seconds breaks that by being slow, not by a machine that stalls, or that has more to
do than it can: how late a thread is woken that does nothing but sleep tells how much it withheld from everybody.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Final, Self

from demo.place import Failed

_STEP: Final = 0.02


class Stopwatch:
    """Within the context, *seconds* are those that passed less those that were withheld; afterwards they stand."""

    def __init__(self) -> None:
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._doze)
        self.withheld = self._began = self._ended = 0.0

    @property
    def seconds(self) -> float:
        """How long it takes until now, or took."""
        return (self._ended or time.monotonic()) - self._began - self.withheld

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = time.monotonic()
        self._is_over.set()
        self._thread.join()

    def _doze(self) -> None:
        while not self._is_over.is_set():
            slept = time.monotonic()
            time.sleep(_STEP)
            self.withheld += max(0.0, (self._ended or time.monotonic()) - slept - _STEP)


def within(seconds: float, what: str, is_so: Callable[[], Any]) -> Any:
    """What *is_so* answers as soon as that is true. Failed: it did not become so within *seconds* of those granted."""
    with Stopwatch() as watch:
        while not (answer := is_so()):
            if watch.seconds > seconds:
                raise Failed(f"not within {seconds:g} s: {what}")
            time.sleep(0.01)
    return answer
