"""The cluster's nodes from the Kubernetes API: listed once, page by page, and watched from then on.

What holds always: `nodes` changes by the API server's own word alone: by a list that came whole, or by an event. While
it is away, or says nothing that can be used, they stay as they were; after a start, as they were when the agent before
ended. Nothing is asked again that is known: a watch goes on from the last version heard of, bookmarks keep that young,
and only where the server has forgotten it (410) all is listed anew.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final, NamedTuple

from cluster.apiserver import Api, Connection, Gone, Unanswered, refused
from cluster.claims import settled
from cluster.kept import Kept
from cluster.keptpeers import recalled, written
from cluster.nodeobjects import Described, Event, NodeObject, Page, StatusObject, decoded, described
from cluster.ownnode import Said, said
from cluster.ownnode import found as own_in
from cluster.peers import Peer
from cni.errors import Failure, TryAgain

log = logging.getLogger(__name__)

PATH: Final = "/api/v1/nodes"


class Pace(NamedTuple):
    """How much, how long and how often, in nodes and seconds."""

    page: int = 200
    """Nodes per answer. One is some 15 kB, most of it names of images."""
    watch: tuple[float, float] = 300.0, 600.0
    """The server is to end a watch after a time between these, chosen anew for each: the next has fresh credentials,
    and maybe another server."""
    silence: float = 150.0
    """A watch counts as lost without a line for so long. Bookmarks come about every minute."""
    again: tuple[float, float] = 1.0, 30.0
    """Until the first try after a failure, and at most; doubled in between, each by 50 % more or less."""
    spread: float = 0.002
    """Per node: over so long the agents of a cluster spread their lists where all must list anew, as when an API server
    starts and has all of them to serve."""
    told: float = 30.0
    """A server may be away for so long until that is told: one that is replaced is away for less."""


class KubernetesNodes:
    """A ``peers.Source`` that asks *api*, which is called *origin*.

    One thread does `live`, one refreshes, any may read. *clock* answers seconds, monotonic, *random* a number from 0
    to 1; *kept* is where a copy of the last list is kept. Of the Node *here* all is heard that an agent may say there;
    with *is_alone* no other is asked for.
    """

    def __init__(
        self,
        api: Api,
        origin: str,
        clock: Callable[[], float],
        random: Callable[[], float],
        kept: Kept | None = None,
        pace: Pace | None = None,
        here: str = "",
        *,
        is_alone: bool = False,
    ) -> None:
        self.origin = origin
        self._api = api
        self._clock = clock
        self._random = random
        self._kept = kept
        self._pace = pace = pace or Pace()
        self._here = here
        self._selector = {"fieldSelector": f"metadata.name={here}"} if is_alone else {}
        self._end = threading.Event()
        self._lock = threading.Lock()  # of what both threads use:
        self._heard: dict[str, Described] = {}
        self._is_new = False
        """Whether `_heard` is other than what `_nodes` was made of."""
        self._failure: Failure | None = TryAgain(f"{origin} has not answered yet")
        """Why there is no watch."""
        self.own: Said | None = None
        """What this node's own Node says, as far as was heard; None: it was not heard of, or is not there."""
        self._lost_at = clock()
        self._failures = 0
        self._version = ""
        """What was heard of last; '': all must be listed."""
        self._page = pace.page
        self._nodes = recalled(kept)
        self._texts: dict[Peer, bytes] = {}
        """What is on disk, by whom it is of: of thousands mostly one is another."""
        self._error: Failure | None = None
        self.refresh()

    # --- what others read -----------------------------------------------------------------------------------------

    @property
    def nodes(self) -> frozenset[Peer]:
        """See `cluster.peers.Source.nodes`."""
        return self._nodes

    @property
    def error(self) -> Failure | None:
        """See `cluster.peers.Source.error`."""
        return self._error

    def refresh(self) -> bool:
        """See `cluster.peers.Source.refresh`: nothing is asked here."""
        with self._lock:
            heard = list(self._heard.values()) if self._is_new else None
            self._is_new = False
            failure, is_late = self._failure, self._clock() - self._lost_at >= self._pace.told
        before, error = self._nodes, self._error
        if heard is not None:
            self._nodes = settled(heard)
        if self._kept is not None and self._nodes != before:
            # Before anything is changed by it: an agent that is started anew goes on from there.
            self._texts = {one: self._texts.get(one) or written(one) for one in self._nodes}
            self._kept.save(b"[" + b",\n".join(self._texts.values()) + b"]")
        now: Failure | None = None  # whoever reads meanwhile must not take it for being over
        if failure is not None and not self._nodes:
            now = TryAgain("the cluster's nodes are not known yet", str(failure))
        elif failure is not None and is_late:
            known = "the nodes that were known last are used"
            now = type(failure)(failure.message, "; ".join(filter(None, (failure.details, known))))
        self._error = now
        return self._nodes != before or str(now) != str(error)

    # --- the thread that listens ----------------------------------------------------------------------------------

    def live(self, wake: Callable[[], None]) -> None:
        """Listen until `end`; *wake* is called when there are other nodes. That there are none to be heard of is left
        to the next `refresh`."""
        while not self._end.is_set():
            try:
                self.listen(wake)
            except Unanswered as unanswered:
                self._end.wait(self._failed(unanswered))

    def end(self) -> None:
        """Listen no more; any thread may call."""
        self._end.set()
        self._api.end()

    def listen(self, wake: Callable[[], None]) -> None:
        """Over one connection: list, where that is needed, and watch until the server ends it."""
        with self._api.connected() as connection:
            if not self._version:
                self._listed(connection, wake)
            self._watched(connection, wake)

    def look(self) -> None:
        """List, once. Failure: why that is not possible."""
        try:
            with self._api.connected() as connection:
                self._listed(connection, lambda: None)
        except Unanswered as unanswered:
            raise unanswered.failure from unanswered
        self.refresh()

    def _listed(self, connection: Connection, wake: Callable[[], None]) -> None:
        try:
            found, own, version = self._all(connection)
        except Gone:
            self._page = 0  # the pages took longer than the server remembers: all at once, the next time
            raise
        self._page = self._pace.page
        with self._lock:
            is_new = found != self._heard
            self.own = own
            self._heard, self._version, self._is_new = found, version, self._is_new or is_new
            # Not yet the end of the failures in a row: the watch from there may be refused, too.
            self._failure = None
        log.info("the nodes are listed", extra={"nodes": len(found), "source": self.origin})
        if is_new:
            wake()

    def _all(self, connection: Connection) -> tuple[dict[str, Described], Said | None, str]:
        """All Nodes by name, what the own one says, and the version of the list."""
        found: dict[str, Described] = {}
        own: Said | None = None
        asked = {**self._selector, **({"limit": str(self._page)} if self._page else {})}
        while True:
            try:
                raw = connection.answer(PATH, asked)
                page = decoded(raw, Page)
                if self._here and any(node.metadata.name == self._here for node in page.items or ()):
                    own = own_in(raw, self._here)
            except ValueError as error:
                raise _garbled(self.origin, "a list", error) from error
            if page.kind != "NodeList" or not page.metadata.resource_version:
                what = f"it is a {page.kind!r} of version {page.metadata.resource_version!r}"
                raise _garbled(self.origin, "a list", what)
            found.update((node.metadata.name, described(node)) for node in page.items or ())
            if "" in found:
                raise _garbled(self.origin, "a list", "an item has no name")
            if not page.metadata.rest:
                return found, own, page.metadata.resource_version
            if page.metadata.rest == asked.get("continue"):
                raise _garbled(self.origin, "a list", "a page is followed by itself")
            asked["continue"] = page.metadata.rest

    def _watched(self, connection: Connection, wake: Callable[[], None]) -> None:
        shortest, longest = self._pace.watch
        asked = {
            **self._selector,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(int(shortest + (longest - shortest) * self._random())),
        }
        began = self._clock()
        is_silent = True
        try:
            for line in connection.lines(PATH, asked, self._pace.silence):
                is_silent = False
                if self._is_news(line):
                    wake()
        except Unanswered:
            if is_silent and self._clock() - began >= self._pace.silence:
                # A server that was restored from a copy knows fewer versions than we do, and says nothing before it has
                # as many again.
                self._version = ""
            raise
        if self._clock() - began < self._pace.again[0]:
            raise Unanswered(TryAgain(f"{self.origin} ends every watch at once"))
        self._failures = 0

    def _is_news(self, line: bytes) -> bool:
        """Take in one line of a watch: whether it changes anything."""
        try:
            event = decoded(line, Event)
            if event.type == "ERROR":
                refusal = decoded(event.object, StatusObject)
                raise refused(self.origin, refusal.code, None, bytes(event.object))
            node = decoded(event.object, NodeObject)
            is_own = bool(self._here) and node.metadata.name == self._here
            own = said(event.object)[0] if is_own and event.type in ("ADDED", "MODIFIED") else None
        except ValueError as error:
            raise _garbled(self.origin, "a watch", error) from error
        name, now = node.metadata.name, described(node) if event.type in ("ADDED", "MODIFIED") else None
        if not name and event.type != "BOOKMARK":
            raise _garbled(self.origin, "a watch", f"what was {event.type} has no name")
        with self._lock:
            if is_own:
                self.own = own
            self._version = node.metadata.resource_version or self._version
            self._failure, self._failures = None, 0
            if now == self._heard.get(name) or (now is None and event.type != "DELETED"):
                return False  # a heartbeat, a label, a bookmark
            if now is None:
                del self._heard[name]
            else:
                self._heard[name] = now
            self._is_new = True
            return True

    def _failed(self, unanswered: Unanswered) -> float:
        """The seconds until the next try."""
        first, most = self._pace.again
        with self._lock:
            if self._failure is None:
                self._lost_at = self._clock()
            self._failure = unanswered.failure
            pause = min(most, first * 2.0 ** min(self._failures, 10)) * (0.5 + self._random())
            if isinstance(unanswered, Gone):
                self._version = ""
                if self._failures == 0:
                    pause = self._random() * self._pace.spread * len(self._heard)
            self._failures += 1
            return max(pause, unanswered.after)


def _garbled(origin: str, what: str, why: object) -> Unanswered:
    return Unanswered(TryAgain(f"{origin} answers {what} of Nodes with something else", f"{why}; is it an API server?"))
