"""What others do to this node's interfaces, noticed within about a minute: the metadata is read again and again.

That costs no call of EC2's. It lags behind, so nothing is believed of it but that EC2 is worth asking, once for each
difference; the VPC's ranges alone are taken from it, since nobody else says them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from backends.aws.inventory import Inventory
from backends.aws.model import Seen
from backends.cloud.failures import Lost
from backends.cloud.steps import Look, Steps

log = logging.getLogger(__name__)

INTERVAL: Final = 60.0
"""Seconds between looks, at most; at least half as many."""


class Watch:
    """*clock* answers seconds, *random* numbers from 0 to 1."""

    def __init__(self, inventory: Inventory, clock: Callable[[], float], random: Callable[[], float]) -> None:
        self._inventory = inventory
        self._clock = clock
        self._random = random
        self._left_at = clock()
        self._pause = 0.0
        self._asked: frozenset[tuple[str, str]] = frozenset()
        self.is_news = False
        """Whether the last look showed a difference that EC2 was not asked about yet."""

    def started(self) -> None:
        """It was read a moment ago."""
        self._left_at = self._clock()
        self._pause = INTERVAL * (0.5 + 0.5 * self._random())

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
        found = self._inventory.differences(seen.enis)
        self.is_news = bool(found - self._asked)
        self._asked = found
        return seen
