"""A part's own thread: who is told if it dies, for the process to end with it."""

from __future__ import annotations

import threading
from collections.abc import Callable

OnDeath = Callable[[str, BaseException], None]
"""Told the name of a thread that ended unasked, and what of."""


def thread(name: str, work: Callable[[], object], on_death: OnDeath) -> threading.Thread:
    """A thread whose whole life is *work*. It does not keep the process alive."""
    return threading.Thread(target=watched(name, work, on_death), name=name, daemon=True)


def watched(name: str, work: Callable[[], object], on_death: OnDeath) -> Callable[[], None]:
    """*work*, for the thread *name*: *on_death* is told if anything is raised in it."""

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 (the top of a thread)
            on_death(name, error)

    return run
