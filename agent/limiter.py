"""How often one object may be repaired: two owners fighting over it must not become a busy loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from math import inf


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
        """Whether the object *key* may be repaired at *now* (seconds, monotonic); an allowance is used up."""
        times = self._times.setdefault(key, deque(maxlen=self._burst))
        refused = self._refused.get(key)
        if len(times) == self._burst and now - times[0] < self._period:
            is_time = refused is not None and now >= refused + self._again
            if is_time:
                self._refused[key] = inf
            return is_time
        times.append(now)
        return True

    def refuse(self, key: Hashable, now: float) -> None:
        """The repair that was allowed could not be made."""
        self._refused[key] = now

    def made(self, key: Hashable) -> None:
        """The repair that was allowed was made: what was refused before nobody undid, so the count begins anew."""
        if self._refused.pop(key, None) is not None:
            self._times.pop(key, None)

    def fought_over(self, now: float) -> list[Hashable]:
        """What may not be repaired at *now*; what had peace for a whole period is forgotten."""
        for key in [key for key, times in self._times.items() if now - times[-1] >= self._period]:
            del self._times[key]
            self._refused.pop(key, None)
        return [
            key for key, times in self._times.items() if len(times) == self._burst and now - times[0] < self._period
        ]
