"""How often one object may be repaired: two owners fighting over it must not become a busy loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Final

from cni.errors import Failure

BURST: Final = 10
"""Repairs of one object that are made at once; then it has to wait for the rest of a `PERIOD`."""
PERIOD: Final = 60.0
"""Seconds."""
AGAIN: Final = 5.0
"""Seconds after which what the kernel refused is tried once more, however often it was."""


class Limiter:
    """Allows *burst* repairs of one object within *period* seconds; whoever wants more waits and is reported.

    What was refused, instead of undone by somebody, may be tried once more *again* seconds later: the reason may be
    gone by then.
    """

    def __init__(self, burst: int, period: float, again: float) -> None:
        self._burst = burst
        self._period = period
        self._again = again
        self._times: dict[Hashable, deque[float]] = {}
        self._refused: dict[Hashable, float] = {}

    def allow(self, key: Hashable, now: float) -> bool:
        """Whether the object *key* may be repaired at *now* (seconds, monotonic). Only what is tried counts, see below:
        a repair that something else kept from being tried uses nothing up."""
        times, refused = self._times.get(key), self._refused.get(key)
        if times is None or len(times) < self._burst or now - times[0] >= self._period:
            return True
        return refused is not None and now >= refused + self._again

    def made(self, key: Hashable, now: float) -> None:
        """It was repaired: what was refused before nobody undid, so the count begins anew."""
        if self._refused.pop(key, None) is not None:
            self._times.pop(key, None)
        self._count(key, now)

    def refuse(self, key: Hashable, now: float) -> None:
        """It was tried, and could not be made."""
        self._refused[key] = now
        self._count(key, now)

    def _count(self, key: Hashable, now: float) -> None:
        self._times.setdefault(key, deque(maxlen=self._burst)).append(now)

    def fought_over(self, now: float) -> list[Hashable]:
        """What may not be repaired at *now*; what had peace for a whole period is forgotten."""
        for key in [key for key, times in self._times.items() if now - times[-1] >= self._period]:
            del self._times[key]
            self._refused.pop(key, None)
        return [
            key for key, times in self._times.items() if len(times) == self._burst and now - times[0] < self._period
        ]


def fought(what: str) -> Failure:
    """What is said of an object that had all its repairs."""
    why = f"it was mended {BURST} times within {PERIOD:.0f} s: another program keeps changing it; stop that one"
    return Failure(f"{what} is fought over", why)
