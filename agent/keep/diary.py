"""What repair did and could not do, as status, metrics and the log tell it."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from agent.keep.strays import Stray
from cni.errors import Failure
from dataplane.diff import Change, render

log = logging.getLogger(__name__)

REMEMBERED: Final = 20
"""How many mendings and failures are shown."""


class Entry(NamedTuple):
    """Something worth showing: when (seconds since the epoch) and what, in a person's words."""

    time: float
    text: str


class Diary:
    """One thread writes, pass by pass; any may read. *wall* answers seconds since the epoch."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._now: dict[str, Failure] = {}
        self._strays: Sequence[Stray] = ()
        self.counts: Counter[str] = Counter()
        """Objects mended since the start, by kind."""
        self.entries: deque[Entry] = deque(maxlen=REMEMBERED)
        """The last mendings and failures."""
        self.failing: Mapping[str, Failure] = {}
        """What could not be put right in the last pass, and why."""

    def begin(self, kept: Mapping[str, Failure] | None = None) -> None:
        """A pass begins; it does not look at what failed with those *kept*."""
        self._now = dict(kept or {})

    def end(self) -> None:
        """The pass is over: what failed in it is what is told from now on."""
        self.failing, self._now = self._now, {}

    def has_failed(self, what: str) -> bool:
        """Whether *what* failed in this pass."""
        return what in self._now

    def fail(self, what: str, failure: Failure) -> None:
        """It could not be put right; what failed in the same way before is no news."""
        self._now[what] = failure
        known = self.failing.get(what)
        if known is None or str(known) != str(failure):
            self.entries.append(Entry(self._wall(), str(failure)))
            log.error("could not be put right", extra={"what": what, "error": str(failure)})

    def mended(self, what: str, changes: Sequence[Change]) -> None:
        """The *changes* were made, which *what* sums up."""
        if not changes:
            return
        self.counts.update(change.item.key.kind for change in changes)
        self.entries.append(Entry(self._wall(), f"{what}: {render(changes)}"))
        log.warning(what, extra={"difference": render(changes)})

    def note(self, text: str) -> None:
        """Something else was put right; any thread may call."""
        self.entries.append(Entry(self._wall(), text))
        log.warning(text)

    def stray(self, found: Sequence[Stray]) -> None:
        """All pods' addresses that are not this node's any more; those from before are no news."""
        for one in found:
            if one not in self._strays:
                text = f"a pod has an address that is not of this node any more: {one}"
                self.entries.append(Entry(self._wall(), text))
                log.warning(text)
        self._strays = found
