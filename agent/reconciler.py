"""The reconciler's thread: it looks at the world and has mended what differs, on events and now and then."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from typing import Final, Protocol

from agent.node import Node
from agent.repair import Repair
from agent.spool import Serve, Spool
from agent.survey import Survey
from cni.errors import Failure

log = logging.getLogger(__name__)

QUICK: Final = 1.0
"""Seconds between quick passes, which find what causes no event."""
WHOLE: Final = 30.0
"""Seconds between whole passes, should an event have been missed."""
SETTLE: Final = 0.05
"""Seconds for a burst of events to end before a pass looks."""
TIDY: Final = 3600.0
"""Seconds between removals of old history and of what was left in the spool."""
HISTORY: Final = 30 * 86400.0
"""Seconds for which the history of addresses is kept."""


class Wakeful(Protocol):
    """Where events come from: see ``dataplane.events``."""

    def wait(self, timeout: float) -> bool:
        """Whether something of ours may have changed, within *timeout* seconds."""

    def wake(self) -> None:
        """End a wait now, from any thread."""

    def watch(self, links: Collection[str]) -> None:
        """The links whose state concerns us."""


class Reconciler:
    """One thread; *on_death* is told if it ends unasked. *offered* is called after each look at what addresses there
    are. *clock* answers seconds, monotonic."""

    name: Final = "reconciler"

    def __init__(
        self,
        *,
        survey: Survey,
        node: Node,
        repair: Repair,
        spool: Spool,
        serve_spooled: Serve,
        events: Wakeful,
        offered: Callable[[], None],
        on_death: Callable[[str, BaseException], None],
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._survey = survey
        self._node = node
        self._repair = repair
        self._spool = spool
        self._serve_spooled = serve_spooled
        self._events = events
        self._offered = offered
        self._on_death = on_death
        self._clock = clock
        self._wall = wall
        self._stop = threading.Event()
        self._passes = threading.Condition()
        self._asked = self._served = 0
        self._whole_at = self._quick_at = self._tidy_at = 0.0
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)

    def start(self) -> None:
        """Begin; the first pass was the caller's, see ``once``."""
        self._thread.start()

    def stop(self) -> None:
        """End after the pass under way."""
        self._stop.set()
        self._events.wake()
        self._thread.join()

    def settle(self) -> None:
        """Return when a whole pass that begins after this call is over, or when the reconciler has ended."""
        with self._passes:
            self._asked += 1
            mine = self._asked
            self._events.wake()
            while self._served < mine and not self._stop.is_set():
                self._passes.wait(QUICK)

    def once(self, *, is_whole: bool) -> None:
        """Serve what waited, look at the surroundings, and mend: at once, in the calling thread."""
        self._node.ledger.tend()
        if len(self._spool):
            self._spool.replay(self._serve_spooled)
        changed = self._survey.refresh()
        now = self._survey.now
        if now is not None and now.wiring is not self._node.wiring:
            self._node.rewire(now.wiring)
            self._events.watch(now.site.links)
        elif now is None and self._survey.problem is not None:
            self._node.refuse(self._survey.problem)
        if changed or is_whole:
            self._repair.whole()
            self._whole_at = self._clock() + WHOLE
        if now is not None:
            self._node.ledger.offer(now.blocks)  # what they need of the kernel is there
        self._offered()
        self._repair.quick()
        self._quick_at = self._clock() + QUICK

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._turn()
        except BaseException as error:  # noqa: BLE001 (the top of a thread)
            self._on_death(self.name, error)

    def _turn(self) -> None:
        has_event = self._events.wait(max(0.0, min(self._whole_at, self._quick_at) - self._clock()))
        if has_event:
            self._stop.wait(SETTLE)
        if self._stop.is_set():
            return
        with self._passes:
            asked = self._asked
        try:
            self.once(is_whole=has_event or asked > self._served or self._clock() >= self._whole_at)
            if self._clock() >= self._tidy_at:
                self._tidy_at = self._clock() + TIDY
                self._node.ledger.prune(self._wall() - HISTORY)
                self._spool.sweep()
        except Failure as failure:
            log.error("a pass failed", extra={"error": str(failure)})
            self._quick_at = self._clock() + QUICK
            self._whole_at = min(self._whole_at, self._quick_at)
        finally:
            with self._passes:
                self._served = asked
                self._passes.notify_all()
