"""The thread that has this node's Node say what is wished, and nothing more often than it must.

What always holds: it is looked before it is written, and what the Node says already costs no request; what somebody
else says meanwhile is not written over (409: look again); whatever the API server does, nothing else waits for it; and
a Node is changed at most `BURST` times within `PERIOD`, whatever changes by turns and whoever undoes it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import msgspec

from agent.keep.limiter import Limiter
from backends.threads import OnDeath, thread
from cluster.apiserver import Api, Conflict, Unanswered
from cluster.kubernetes import PATH
from cluster.ownnode import Said, Wish, said, spec_change, status_change
from cni.errors import Failure, TryAgain

log = logging.getLogger(__name__)

EVERY: Final = 1.0
"""Seconds between looks, which ask nobody."""
AGAIN: Final = (1.0, 300.0)
"""Seconds until the first try after a failure, and at most; doubled in between, each by half more or less."""
TOLD: Final = 30.0
"""A failure that may pass is told after so many seconds: an API server that is replaced is away for less."""
TRIES: Final = 5
"""For what somebody else changes at the same time: as kubelet does with its own."""
BURST: Final = 6
PERIOD: Final = 600.0


_Change = dict[str, Any]


class Step(NamedTuple):
    """One kind of change: *resource* in words for who grants permissions, *suffix* of the path, and what it *changes*
    of a Node of that version, {} for nothing."""

    resource: str
    suffix: str
    change: Callable[[Said, str, Wish, str], _Change]


STEPS: Final = (
    Step("nodes/status", "/status", lambda now, version, wish, time: status_change(now, wish, time)),
    Step("nodes", "", lambda now, version, wish, time: spec_change(now, version, wish)),
)
"""The status first: who is let in by the second shall find it."""


class Announcer:
    """*heard* answers what the Node says as far as was heard, *wished* what it shall say, None for nothing yet; *api*
    is asked. *clock* answers seconds, monotonic, *wall* seconds since the epoch, *random* a number from 0 to 1;
    *on_death* is told if the thread ends unasked."""

    name: Final = "announcer"

    def __init__(
        self,
        api: Api,
        *,
        heard: Callable[[], Said | None],
        wished: Callable[[], Wish | None],
        clock: Callable[[], float],
        wall: Callable[[], float],
        random: Callable[[], float],
        on_death: OnDeath,
        every: float = EVERY,
    ) -> None:
        self._api = api
        self._heard = heard
        self._wished = wished
        self._clock = clock
        self._wall = wall
        self._random = random
        self._every = every
        self._settled: tuple[Said | None, Wish | None] = None, None
        """What was heard and wished when all was said. While nothing else is, nothing is asked; what is heard anew is
        looked at anew, also if it is the same: what was said meanwhile may have been undone."""
        self._limiter = Limiter(BURST, PERIOD, PERIOD)
        self._failures = 0
        self._failing_since = self._again_at = 0.0
        self._failure: Failure | None = None
        self._stopping = threading.Event()
        self._thread = thread(self.name, self._live, on_death)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, in the middle of an answer too; what was said stays."""
        self._stopping.set()
        self._api.end()
        self._thread.join()

    @property
    def problems(self) -> Sequence[Failure]:
        """Why it is not said. Any thread may read."""
        failure = self._failure
        is_late = self._clock() - self._failing_since >= TOLD
        return [failure] if failure is not None and (is_late or not isinstance(failure, TryAgain)) else []

    def _live(self) -> None:
        while not self._stopping.wait(self._every):
            self.look()

    def look(self) -> None:
        """Say what is wished, if the Node does not say it already."""
        wish, heard = self._wished(), self._heard()
        if wish is None or heard is None or self._clock() < self._again_at:
            return
        if heard is self._settled[0] and wish == self._settled[1]:
            return
        if any(step.change(heard, "", wish, "") for step in STEPS):
            if not self._limiter.allow(heard.uid, self._clock()):
                why = f"it was changed {BURST} times within {PERIOD:.0f} s: somebody undoes it, or it comes and goes"
                self._failure = Failure(f"the Node {heard.name} is not changed for a while", why)
                return
            try:
                self._say(heard.name, wish)
            except Unanswered as unanswered:
                self._failed(unanswered)
                return
        self._settled, self._failure, self._failures = (heard, wish), None, 0

    def _say(self, name: str, wish: Wish) -> None:
        """Unanswered: not all of it could be said; each part is tried."""
        for attempt in range(1, TRIES + 1):
            try:
                self._try(name, wish)
            except Conflict:
                if attempt == TRIES:
                    raise
            else:
                return

    def _try(self, name: str, wish: Wish) -> None:
        now, version = self._asked(name)
        refusal: Unanswered | None = None
        for step in STEPS:
            change = step.change(now, version, wish, _rfc3339(self._wall()))
            if not change:
                continue
            try:
                now, version = self._asked(name, step, change)
            except Conflict:
                raise
            except Unanswered as unanswered:
                refusal = refusal or unanswered
            else:
                self._limiter.made(now.uid, self._clock())
                log.info("said on the Node", extra={"node": now.name, "change": msgspec.json.encode(change).decode()})
        if refusal is not None:
            raise refusal

    def _asked(self, name: str, step: Step | None = None, change: _Change | None = None) -> tuple[Said, str]:
        """What the Node says, after the *change* of the *step* if there is one. Each request has a connection of its
        own: they are few, and whoever refuses one may close it."""
        path = f"{PATH}/{quote(name)}"
        with self._api.connected() as connection:
            if step is None:
                answer = connection.answer(path, {}, "the verb get on nodes")
            else:
                needs = f"the verb patch on {step.resource}"
                answer = connection.patch(f"{path}{step.suffix}", msgspec.json.encode(change), needs)
        why = "it is of another"
        try:
            now, version = said(answer)
            if now.name == name:
                return now, version
        except ValueError as error:
            why = f"{error}; is it an API server?"
        raise Unanswered(TryAgain(f"the API server answers with something else than the Node {name}", why))

    def _failed(self, unanswered: Unanswered) -> None:
        first, most = AGAIN
        pause = min(most, first * 2.0 ** min(self._failures, 10)) * (0.5 + self._random())
        self._again_at = self._clock() + max(pause, unanswered.after)
        if not self._failures:
            self._failing_since = self._clock()
        self._failures += 1
        what = f"this node's Node cannot be told: {unanswered.failure.message}"
        failure = type(unanswered.failure)(what, unanswered.failure.details)
        if str(failure) != str(self._failure):
            log.warning("not said on the Node", extra={"error": str(failure)})
        self._failure = failure


def _rfc3339(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
