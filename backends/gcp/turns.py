"""The life of ``gcp-alias``'s fabric: in turns, what it wants of the outside.

What was cut off comes first, then the metadata's word, then the API's on what there is, where these differ, then what
the pool wants.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from netaddr import IPNetwork

from backends.cloud.asking import Cloud
from backends.cloud.ownnode import OwnNode
from backends.cloud.steps import Settle, Steps, Wait
from backends.cloud.turns import TICK, turn
from backends.cloud.usage import Usage
from backends.cloud.watch import Watch
from backends.gcp.changes import Changes
from backends.gcp.holding import STALE, Holding
from backends.gcp.model import Seen
from backends.gcp.options import AliasOptions
from backends.gcp.refusals import Refusals
from backends.gcp.stock import Stock
from cni.errors import Failure
from ipam.warmpool import Assign, Unassign, actions

log = logging.getLogger(__name__)

AGAIN_TOO: Final = 2
"""How often the API is asked again, where its answer is not what the metadata shows."""
NEVER: Final = float("inf")
PATIENCE: Final = 30.0
"""Seconds for which a restarted agent waits for the API's word, before it gives addresses by what the metadata shows:
the library alone takes some to load."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Each is what its class says; *answered* are ranges for which another program has the host itself answer."""

    options: AliasOptions
    usage: Usage
    obstacles: Refusals
    cloud: Cloud
    holding: Holding
    changes: Changes
    stock: Stock
    watch: Watch[Seen]
    answered: Callable[[], frozenset[IPNetwork]]


class Turns:
    """The life of the fabric of the node that *source* tells of. One thread goes through `life`; any may read."""

    def __init__(self, source: OwnNode, parts: Parts, clock: Callable[[], float]) -> None:
        self._source = source
        self._parts = parts
        self._holding = parts.holding
        self._clock = clock
        self._has_news = False
        self._shown: frozenset[IPNetwork] = frozenset()
        self._due = NEVER
        self._left = 0
        self._trust_at = 0.0
        self.is_growing = False
        """Whether more is being asked for at this moment."""
        self.seen: Seen | None = None
        """What the metadata said."""
        self.answered: frozenset[IPNetwork] = frozenset()
        """Ranges for which another program has the host itself answer."""

    def life(self) -> Steps[None]:
        """Never ends."""
        yield from self._arrive()
        while True:
            pause = yield from self._turn()
            yield Wait(min(TICK, pause), pause)

    def news(self) -> None:
        """The metadata has changed. Any thread may call."""
        self._has_news = True

    def _arrive(self) -> Steps[None]:
        seen: Seen = yield from self._source.read()
        self._holding.arrived(seen)
        self._shown = seen.blocks
        self._trust_at = self._clock() + PATIENCE
        if self._parts.stock.is_unsure:
            self.ask()
        self._parts.watch.started()
        self._look_around()
        self._source.is_at(seen.address)
        self.seen = seen
        yield Settle()

    @property
    def _here(self) -> Seen:
        """What the metadata said: known to all that comes after the arrival."""
        assert self.seen is not None
        return self.seen

    def _turn(self) -> Steps[float]:
        """Everything once, until something was done; the seconds until there may be more to do."""
        parts = (self._look,) if self._parts.options.is_fixed else (self._resume, self._look, self._read, self._balance)
        return (yield from turn(parts, "GCP", self.ask))

    def ask(self) -> None:
        """The API is asked what there is as soon as it may be."""
        if not self._parts.options.is_fixed:
            self._due, self._left = min(self._due, self._clock()), AGAIN_TOO

    def _resume(self) -> Steps[bool]:
        return (yield from self._parts.changes.resume(self._here))

    def _look(self) -> Steps[bool]:
        """Whether others changed something: the metadata's word."""
        if self._has_news:
            self._has_news = False
            self._parts.watch.soon()
        seen = yield from self._parts.watch.once()
        if seen is None:
            return False
        self._look_around()
        self._shown = seen.blocks
        if self._parts.options.is_fixed:
            is_other, self.seen = self._holding.seen(seen), seen
            if is_other:
                yield Settle()
            return is_other
        if self._parts.watch.is_news:
            self.ask()
        if lags := self._holding.lags:
            self._parts.watch.soon(lags)
        if self._holding.intents:
            self._parts.changes.hurry()
            return True
        return False

    def _look_around(self) -> None:
        try:
            self.answered = self._parts.answered()
        except Failure as failure:
            log.debug("the host's local routes cannot be seen", extra={"error": str(failure)})

    def _read(self) -> Steps[bool]:
        """What there is, by the API's word: where metadata and journal do not agree."""
        if self._parts.stock.is_unsure and self._clock() >= self._trust_at:
            self._trust_at = float("inf")
            self._holding.trust()
            yield Settle()
        if self._clock() < self._due or self._holding.intents:
            return False
        found = yield from self._parts.changes.read(self._here)
        # The answer may be older than what the metadata shows: then the next will say more, or the one after that.
        self._due = self._clock() + STALE if found.blocks != self._shown and self._left else NEVER
        self._left -= 1
        if self._holding.described(found):
            yield Settle()
            return True
        return False

    def _balance(self) -> Steps[bool]:
        """What the pool wants: the first of it that can be done. True: something was."""
        stock, changes = self._parts.stock, self._parts.changes
        if stock.is_unsure or self._holding.intents or stock.is_refused():
            return False
        pool = stock.pool()
        stock.idle.note(pool)
        for action in actions(pool, self._parts.options.warm):
            if isinstance(action, Assign):
                self.is_growing = True
                try:
                    yield from changes.grow(self._here, action.chunks, action.size)
                finally:
                    self.is_growing = False
                return True
            if isinstance(action, Unassign):
                if len(action.chunks) == len(self._holding.ranges) == 1:
                    continue  # the last one stays
                yield from changes.shrink(self._here, frozenset(map(IPNetwork, action.chunks)))
                return True
        return False
