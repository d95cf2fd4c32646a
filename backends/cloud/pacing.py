"""How often the cloud is asked: a token bucket and a backoff for each action, and a circuit breaker for all. Pure.

A cloud's own buckets are shared by all that use the account there, so one node must not take more than a share, and has
to give way at the first sign of throttling: full jitter, so that thousands do not come back together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

FIRST: Final = 1.0
"""Seconds: the longest of the first pause after throttling."""
LONGEST: Final = 120.0
"""Seconds: the longest of all."""
FAILURES: Final = 5
"""Calls in a row that got no answer, after which nothing is asked for a while."""


@dataclass(slots=True)
class _Action:
    tokens: float
    since: float
    throttles: int = 0
    until: float = 0.0


@dataclass(slots=True)
class Pacer:
    """*capacity* calls of one action are made at once, and *refill* per second in the long run. *random* answers
    numbers from 0 to 1. Times are seconds of one clock."""

    capacity: float
    refill: float
    random: Callable[[], float]
    _actions: dict[str, _Action] = field(default_factory=dict)
    _failures: int = 0
    _open_until: float = 0.0

    def delay(self, action: str, now: float) -> float:
        """Seconds until *action* may be called."""
        one = self._of(action, now)
        left = (1.0 - one.tokens) / self.refill if one.tokens < 1.0 else 0.0
        return max(0.0, left, one.until - now, self._open_until - now)

    def spend(self, action: str, now: float) -> None:
        """It is called now."""
        self._of(action, now).tokens -= 1.0

    def throttled(self, action: str, now: float) -> None:
        """It was one call too many: the next comes later, each time twice as late, and never at once."""
        one = self._of(action, now)
        longest = min(LONGEST, FIRST * 2.0**one.throttles)
        one.throttles += 1
        one.until = now + longest * (0.5 + 0.5 * self.random())
        self._failures = 0

    def lost(self, now: float) -> None:
        """There was no answer; after some of these in a row nothing is asked for a while."""
        self._failures += 1
        over = self._failures - FAILURES
        if over >= 0:
            self._open_until = now + min(LONGEST, FIRST * 2.0 ** (over + 1)) * (0.5 + 0.5 * self.random())

    def answered(self, action: str) -> None:
        """There was an answer, whatever it was."""
        self._failures = 0
        if action in self._actions:
            self._actions[action].throttles = 0

    @property
    def is_open(self) -> bool:
        """Whether the cloud gives no answers."""
        return self._failures >= FAILURES

    def _of(self, action: str, now: float) -> _Action:
        one = self._actions.setdefault(action, _Action(self.capacity, now))
        one.tokens = min(self.capacity, one.tokens + max(0.0, now - one.since) * self.refill)
        one.since = now
        return one
