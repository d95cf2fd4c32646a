"""What others do to this machine's addresses, noticed within about a minute: its metadata is read again and again.

That costs no call of the cloud's. It lags behind, so nothing is believed of it but that the cloud is worth asking, a
few times for each difference: the first answers may lag behind, too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from backends.cloud.failures import Lost
from backends.cloud.steps import Look, Steps

log = logging.getLogger(__name__)

INTERVAL: Final = 60.0
"""Seconds between looks, at most; at least half as many."""
TIMES: Final = 3
"""Looks in a row that show a difference about which the cloud is asked."""
Seen = TypeVar("Seen")
"""What a cloud's metadata says."""


class Watch(Generic[Seen]):
    """*differences* are those between what is known and what was seen, by names that stay the same. *clock* answers
    seconds, *random* numbers from 0 to 1."""

    def __init__(
        self, differences: Callable[[Seen], frozenset[Any]], clock: Callable[[], float], random: Callable[[], float]
    ) -> None:
        self._differences = differences
        self._clock = clock
        self._random = random
        self._left_at = clock()
        self._pause = 0.0
        self._shown: dict[Any, int] = {}
        """How many looks in a row showed a difference."""
        self.is_news = False
        """Whether the last look showed a difference that the cloud is to be asked about."""

    def started(self) -> None:
        """It was read a moment ago."""
        self._left_at = self._clock()
        self._pause = INTERVAL * (0.5 + 0.5 * self._random())

    def soon(self, seconds: float = 0.0) -> None:
        """It is read again in so many seconds: it has changed, or should have."""
        self._pause = min(self._pause, seconds)

    def once(self) -> Steps[Seen | None]:
        """What it says now, if it is time; see `is_news`."""
        self.is_news = False
        if abs(self._clock() - self._left_at) < self._pause:
            return None
        self.started()
        try:
            seen: Seen = yield Look()
        except Lost as error:
            log.debug("the instance metadata cannot be read now", extra={"error": str(error)})
            return None
        self._shown = {one: self._shown.get(one, 0) + 1 for one in self._differences(seen)}
        self.is_news = any(times <= TIMES for times in self._shown.values())
        return seen
