"""The security groups of interfaces that are there already: those of the configuration, as soon as EC2 shows others.

What an operator changes holds for all interfaces that agents made, not only for those that are made afterwards. The
primary interface's are the instance's own business, and so is everything where nothing is configured.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from backends.aws.calls import MODIFY
from backends.aws.inventory import Inventory
from backends.aws.model import Seen
from backends.aws.options import EniOptions
from backends.aws.placement import Placement
from backends.cloud.asking import Cloud, Later
from backends.cloud.failures import Refused
from backends.cloud.steps import Steps

log = logging.getLogger(__name__)

PAUSE: Final = 60.0
"""Seconds from EC2's word on what there is to the first change, at least."""
SPREAD: Final = 240.0
"""Seconds over which nodes spread theirs that were all restarted with other groups: the account's bucket is shared."""


class Guards:
    """*clock* answers seconds, *random* numbers from 0 to 1."""

    def __init__(
        self,
        options: EniOptions,
        inventory: Inventory,
        placement: Placement,
        cloud: Cloud,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._is_wanted = bool(options.groups or options.group_tags)
        self._inventory = inventory
        self._placement = placement
        self._cloud = cloud
        self._clock = clock
        self._random = random
        self._due = float("inf")

    def described(self) -> None:
        """EC2 has said anew what is attached, so that the groups are known."""
        self._due = min(self._due, self._clock() + PAUSE + SPREAD * self._random())

    def once(self, seen: Seen) -> Steps[bool]:
        """Put right what differs. Each interface by itself: one that is refused does not keep the others from it."""
        if not self._is_wanted or self._clock() < self._due:
            return False
        wanted = yield from self._placement.groups(seen)
        self._due = float("inf")
        for one in list(self._inventory.enis.values()):
            is_free = self._inventory.is_ours(one) and not self._inventory.is_busy(one.id)
            if not wanted or not is_free or set(one.groups) == set(wanted):
                continue
            try:
                yield from self._cloud.ask(
                    MODIFY, f"{one.id} groups", NetworkInterfaceId=one.id, Groups=list(wanted)
                )
            except Later:
                self._due = self._clock()  # the others have to wait as well
                raise
            except Refused as error:
                log.error("security groups could not be changed", extra={"error": str(error)})
                continue
            self._inventory.put(replace(one, groups=wanted))
            log.info("security groups changed", extra={"interface": one.id, "groups": " ".join(wanted)})
        return False
