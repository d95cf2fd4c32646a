"""Interfaces that dead nodes left behind: found by tag and age, and deleted by whichever node sees them.

Who crashes between making an interface and attaching it, and never comes back, cannot delete it. Every node looks now
and then, at a time of its own; what is younger than `AGE` may still be somebody's on the way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Final

from backends.aws import model
from backends.aws.calls import pages
from backends.aws.model import CLUSTER_TAG, MADE_TAG, Eni
from backends.cloud.asking import Cloud
from backends.cloud.failures import Refused
from backends.cloud.steps import Steps

log = logging.getLogger(__name__)

INTERVAL: Final = 3600.0
"""Seconds between looks of one node, on average."""
AGE: Final = 600.0
"""Seconds from its making on which an interface that is attached nowhere is nobody's."""


class Sweep:
    """*random* answers numbers from 0 to 1, *wall* seconds since the epoch: a tag says by its node's wall clock when an
    interface was made."""

    def __init__(
        self,
        cluster: str,
        cloud: Cloud,
        clock: Callable[[], float],
        random: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._wall = wall
        self._cluster = cluster
        self._cloud = cloud
        self._clock = clock
        self._random = random
        self._at = clock() + INTERVAL * random()
        self._found: list[Eni] = []
        self.deleted = 0
        """Interfaces that were deleted."""

    def once(self, known: Collection[str]) -> Steps[bool]:
        """Look if it is time, or delete one that was found; *known* are on their way here. True: one was deleted."""
        if not self._found:
            if self._clock() >= self._at:
                self._at = self._clock() + INTERVAL * (0.5 + self._random())
                self._found = yield from self._look(known)
            return False
        one = self._found[-1]
        if one.id in known:  # it is on its way here since
            self._found.pop()
            return False
        try:
            yield from self._cloud.ask("DeleteNetworkInterface", NetworkInterfaceId=one.id)
        except Refused as error:  # somebody else was faster, or attached it after all
            log.info("an interface that seemed left behind was not deleted", extra={"error": str(error)})
        else:
            self.deleted += 1
            log.warning("deleted an interface that a dead node left behind", extra={"interface": one.id})
        self._found.pop()
        return True

    def _look(self, known: Collection[str]) -> Steps[list[Eni]]:
        wanted = model.filters({f"tag:{CLUSTER_TAG}": self._cluster, "status": "available"})
        found = yield from pages(self._cloud, "DescribeNetworkInterfaces", "NetworkInterfaces", Filters=wanted)
        old = self._wall() - AGE
        enis = [one for one in map(model.eni, found) if not one.is_unmanaged and one.id not in known]
        return [one for one in enis if _made(one) < old]


def _made(one: Eni) -> float:
    """When it was made; never, where it does not say."""
    text = one.tags.get(MADE_TAG, "")
    return float(text) if text.isdigit() else float("inf")
