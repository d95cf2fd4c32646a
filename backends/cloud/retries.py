"""When something is tried again that did not come to its end: soon, and then twice as late each time. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from typing import Final

FIRST: Final = 1.0
"""Seconds until the first further try."""
LONGEST: Final = 30.0
"""Seconds between tries at most."""


class Retries:
    """*clock* answers seconds. What is tried has a name."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: dict[Hashable, tuple[float, float]] = {}

    def left(self, name: Hashable) -> float:
        """Seconds until *name* may be tried again."""
        due, pause = self._known.get(name, (0.0, 0.0))
        return min(max(0.0, due - self._clock()), pause)

    def later(self, name: Hashable) -> None:
        """It was tried."""
        _, pause = self._known.get(name, (0.0, FIRST / 2))
        pause = min(LONGEST, pause * 2)
        self._known[name] = self._clock() + pause, pause

    def now(self, name: Hashable) -> None:
        """It may be tried at once: something was learned."""
        self._known.pop(name, None)

    def keep(self, names: Collection[Hashable]) -> None:
        """Forget all but these."""
        self._known = {name: found for name, found in self._known.items() if name in names}
