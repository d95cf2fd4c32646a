"""The thread in which a fabric that grows lives: it has done what the fabric yields, one step after the other.

What always holds: a step that fails is told the fabric, which decides; only a bug ends the thread, and with it the
process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from typing import Any, Final

from backends.cloud.steps import Settle, Wait
from backends.threads import OnDeath, thread
from backends.told import Told

RETRY: Final = 1.0
"""Seconds until it is asked again whether the kernel has what is wanted, where it had not."""


class Errands:
    """*perform* does a step that is neither `Settle` nor `Wait`, and raises *failures* alone; *settle* answers
    whether the kernel has what is wanted; *on_death* is told if the thread ends unasked."""

    name: Final = "fabric"

    def __init__(
        self,
        life: Generator[Any, Any, None],
        perform: Callable[[Any], Any],
        failures: type[Exception],
        settle: Callable[[], bool],
        on_death: OnDeath,
    ) -> None:
        self._life = life
        self._perform = perform
        self._failures = failures
        self._settle = settle
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread = thread(self.name, self._live, on_death)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the step under way: what was begun is in the journal."""
        self._stop.set()
        self._wake.set()
        self._thread.join()

    def wake(self) -> None:
        """There is something to do: end a wait now. Any thread may call."""
        self._wake.set()

    def told(self) -> Told:
        """Nothing: the fabric tells."""
        return Told()

    def _live(self) -> None:
        answer: Any = None
        failure: Exception | None = None
        while not self._stop.is_set():
            step = self._life.send(answer) if failure is None else self._life.throw(failure)
            answer = failure = None
            if isinstance(step, Wait):
                self._wake.wait(step.seconds)
                self._wake.clear()
            elif isinstance(step, Settle):
                while not self._stop.is_set() and not self._settle():
                    self._stop.wait(RETRY)  # what comes next is only right when the kernel has it
            else:
                try:
                    answer = self._perform(step)
                except self._failures as error:
                    failure = error
