"""The reconciler's thread: it looks at the world and has mended what differs, on events and now and then."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from subprocess import SubprocessError
from typing import Final, Protocol

from agent.keep.limiter import AGAIN
from agent.keep.repair import Repair
from agent.keep.spool import Serve, Spool
from agent.keep.survey import Surroundings, Survey
from agent.node.node import Node
from backends.threads import OnDeath, thread
from cni.errors import Failure, NotReady, bug
from ipam.store import Record

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
LATE: Final = 60.0
"""Seconds without a completed pass from which on nothing counts as mended any more. A whole pass takes less than one,
with 5,000 peers a few on a slow machine; what may hang in it, a call of nft, is given up after ten."""


class Wakeful(Protocol):
    """Where events come from: see ``dataplane.events``."""

    def wait(self, timeout: float) -> bool:
        """Whether something of ours may have changed, within *timeout* seconds."""

    def wake(self) -> None:
        """End a wait now, from any thread."""

    def watch(self, links: Collection[str]) -> None:
        """The links whose state concerns us."""


class Sceptic(Protocol):
    """Who does not believe that what was programmed is what happens: see ``agent.keep.reality``."""

    @property
    def is_suspicious(self) -> bool:
        """Whether it is worth a look soon."""

    def look(self, around: Surroundings, records: Collection[Record]) -> None:
        """Ask the kernel once more; raises nothing."""


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
        reality: Sceptic,
        spool: Spool,
        serve_spooled: Serve,
        events: Wakeful,
        offered: Callable[[], None],
        on_death: OnDeath,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._survey = survey
        self._node = node
        self._repair = repair
        self._reality = reality
        self._spool = spool
        self._serve_spooled = serve_spooled
        self._events = events
        self._offered = offered
        self._clock = clock
        self._wall = wall
        self._stop = threading.Event()
        self._passes = threading.Condition()
        self._asked = self._ended = self._completed = 0
        self._completed_at = clock()
        self._failure: Failure | None = None
        self._whole_at = self._quick_at = self._tidy_at = 0.0
        self._thread = thread(self.name, self._live, on_death)

    def start(self) -> None:
        """Begin; the first pass was the caller's, see ``once``."""
        self._thread.start()

    def stop(self) -> None:
        """End after the pass under way."""
        self._end()
        self._events.wake()
        self._thread.join()

    def age(self) -> float:
        """Seconds since a pass was completed last. Any thread may ask."""
        return self._clock() - self._completed_at

    def problem(self) -> Failure | None:
        """Why nothing is mended any more, if no pass has been completed for `LATE` seconds: they fail, or the thread
        hangs. Any thread may ask."""
        if self.age() < LATE:
            return None
        why = str(self._failure or "one is under way for as long: something that it waits for hangs")
        return NotReady(f"what changes on this node is not mended: no pass was completed for {LATE:.0f} s", why)

    def settle(self) -> bool:
        """Whether the kernel has what is wanted: a whole pass that began after this call was completed. False: it
        failed, has not ended within `LATE` seconds, or the reconciler ends."""
        with self._passes:
            self._asked += 1
            mine = self._asked
            self._events.wake()
            self._passes.wait_for(lambda: self._ended >= mine or self._stop.is_set(), LATE)
            return self._completed >= mine

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
            is_seen = self._repair.whole()
            every = AGAIN if self._repair.is_refused else WHOLE  # no event tells that a refusal's reason has gone
            self._whole_at = self._clock() + (every if is_seen else QUICK)
        if now is not None:
            self._node.ledger.offer(now.blocks)  # what they need of the kernel is there
        self._offered()
        self._repair.quick()
        if now is not None and (changed or is_whole or self._reality.is_suspicious):
            self._reality.look(now, self._node.ledger.records().values())
        self._quick_at = self._clock() + QUICK

    def _live(self) -> None:
        try:
            while not self._stop.is_set():
                self._turn()
        finally:
            self._end()

    def _end(self) -> None:
        """Nobody waits for a pass any more."""
        with self._passes:
            self._stop.set()
            self._passes.notify_all()

    def _turn(self) -> None:
        has_event = self._events.wait(max(0.0, min(self._whole_at, self._quick_at) - self._clock()))
        if has_event:
            self._stop.wait(SETTLE)
        if self._stop.is_set():
            return
        with self._passes:
            asked = self._asked
        is_completed = False
        try:
            self.once(is_whole=has_event or asked > self._ended or self._clock() >= self._whole_at)
            is_completed = True
            self._tidy()
        except Failure as failure:
            self._failed(failure, None)
        except (OSError, SubprocessError) as error:
            # The world's doing, and not translated where it came in: that is a bug, but one that the next pass may be
            # spared. Any other error means that we are not what we believe to be, and the process begins anew.
            self._failed(bug(error), error)
        else:
            self._succeeded()
        finally:
            with self._passes:
                self._ended = asked
                if is_completed:
                    self._completed, self._completed_at = asked, self._clock()
                self._passes.notify_all()

    def _tidy(self) -> None:
        if self._clock() >= self._tidy_at:
            self._tidy_at = self._clock() + TIDY
            self._node.ledger.prune(self._wall() - HISTORY)
            self._spool.sweep()

    def _failed(self, failure: Failure, error: Exception | None) -> None:
        """Tell it, once for as long as it stays the same; and try again soon."""
        if str(failure) != str(self._failure):
            log.error("a pass failed", exc_info=error, extra={"error": str(failure)})
        self._failure = failure
        self._quick_at = self._clock() + QUICK
        self._whole_at = min(self._whole_at, self._quick_at)

    def _succeeded(self) -> None:
        if self._failure is not None:
            log.info("passes are completed again")
            self._failure = None
