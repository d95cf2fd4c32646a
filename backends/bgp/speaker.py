"""The part that lives: has BIRD be what the node's surroundings want of it, and knows what BIRD knows.

What always holds: every round begins from what is, whoever made it so, a process before this one or somebody by hand.
BIRD is not this process's: it is neither ended with it nor started anew for it. One that died, or does not answer, is
started again so that its neighbours keep its routes (RFC 4724). It is ended where the node is to be reached otherwise,
once nobody needs what it announces.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final, Protocol

from netaddr import IPAddress, IPNetwork

from backends.bgp import conf, replies, told
from backends.bgp.control import Line
from backends.bgp.passwords import passwords
from backends.bgp.seen import Md5, Seen
from backends.bgp.sessions import Speech, speech
from backends.bgp.table import BgpTable, ranges
from backends.descriptor import Around
from backends.site import Site
from backends.threads import OnDeath, thread
from backends.told import Told
from cluster.peers import Peer
from cni.errors import ConfigInvalid, Failure, Limited, TryAgain

log = logging.getLogger(__name__)

TICK: Final = 1.0
"""Seconds between rounds."""
HUNG: Final = 6.0
"""Seconds of asking without an answer after which a BIRD that lives is ended, to be started again."""
SHARE: Final = 20
"""What looking at all sessions may take of the time: one part in so many."""
AGAIN_MAX: Final = 30.0
"""Seconds at most between starts of a BIRD that ends by itself, again and again; 1 at first, then twice as many."""
GIVEN_UP: Final = 5.0
"""Seconds until sessions that BIRD gave up are tried again."""
LINGER: Final = 5.0
"""Seconds at least for which a node that was left announces what it did: its sessions may have just begun."""
_STILL: Final = f" && !(bgp_large_community ~ [ (*, {conf.LEAVING}) ])"
STEADY: Final = 60.0
"""Seconds for which a BIRD must have lived for its end not to count as one of many."""


class Engine(Protocol):
    """See `backends.bgp.process.Bird`."""

    pid: int

    def mark(self) -> str: ...
    def has_ended(self) -> bool: ...
    def ask(self, *commands: str) -> list[Sequence[Line]]: ...
    def last_words(self) -> str: ...
    def write(self, text: str) -> None: ...
    def configure(self) -> None: ...
    def start(self, *, is_restart: bool) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...


class Kernel(Protocol):
    """The routes that BIRD has in the kernel."""

    def networks(self) -> Collection[str]:
        """Of all of them."""

    def forget(self) -> int:
        """Remove them; how many there were."""


class Speaker:
    """*around* answers what surrounds the node, *pods* the addresses of those that it has, *is_drained* whether nothing
    is to be announced. *clock* counts seconds since the boot."""

    name: Final = "speaker"

    def __init__(
        self,
        *,
        backend: str,
        table: BgpTable,
        bird: Engine,
        kernel: Kernel,
        around: Callable[[], Around | None],
        pods: Callable[[], Collection[IPAddress]],
        is_drained: Callable[[], bool],
        md5: Callable[[], Md5],
        on_death: OnDeath,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backend = backend
        self._table = table
        self._bird = bird
        self._kernel = kernel
        self._around = around
        self._pods = pods
        self._is_drained = is_drained
        self._md5 = md5
        self._clock = clock
        self._began = clock()
        self._asked_in_vain: float | None = None
        """Since when; None: it answered."""
        self._started = float("-inf")
        self._wait = 0.0
        self._next_look = 0.0
        self._next_try = 0.0
        self._wanted = ""
        self._speech_of: tuple[tuple[Site, frozenset[Peer], tuple[IPAddress, ...]], Speech] | None = None
        self._text_of: tuple[object, str] = (None, "")
        self._told_of: tuple[Seen | None, bool, Told] = (None, True, Told())
        self._is_left = False
        self._left_at = 0.0
        self.seen = Seen()
        """What BIRD said last. Any thread may read."""
        self._stop = threading.Event()
        self._thread = thread(self.name, self._live, on_death)

    # --- a part -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; BIRD goes on."""
        self._stop.set()
        self._thread.join()

    def wake(self) -> None:
        """See `backends.descriptor.Part.wake`: who waits for an address waits for nothing here."""

    def told(self) -> Told:
        """See `backends.told.Teller.told`. Several ask, and with hundreds of sessions it takes a while: what was seen
        is worked out once."""
        seen, age = self.seen, self._clock() - self._began
        known, was_early, words = self._told_of
        if known is not seen or was_early != (age <= told.PATIENCE):
            words = told.told(self._table, seen, age)
            self._told_of = seen, age <= told.PATIENCE, words
        return words

    def _live(self) -> None:
        while not self._stop.wait(TICK):
            self.advance()

    # --- a round ------------------------------------------------------------------------------------------------------

    def advance(self) -> None:
        """One round, in the calling thread."""
        around = self._around()
        if around is None:
            return  # what is there goes on as it is
        try:
            if self._backend in around.backends:
                self._is_left = False
                self._keep(around, is_leaving=False)
            elif not self._is_left:
                self._leave(around)
        except Failure as failure:
            if str(failure) != str(self.seen.problem):
                log.error("BIRD is not as it should be", extra={"error": str(failure)})
            self.seen = self.seen._replace(problem=failure)

    def _keep(self, around: Around, *, is_leaving: bool) -> None:
        """Have BIRD run, and say what this node has to say."""
        says = self._says(around)
        mood = conf.Mood(self._is_drained(), len(around.backends) > 1, is_leaving)
        refused: Failure | None = None
        try:
            self._prepare(says, mood)
        except Failure as failure:  # what runs goes on with what it was told before
            refused = failure
        try:
            mark = self._running()
        except Failure as failure:
            raise refused or failure from failure  # what it could not be told may be why it is not there
        if refused is None and mark != self._wanted:
            self._bird.configure()
            log.info("BIRD was told anew", extra={"sessions": len(says.sessions)})
        if self._clock() >= self._next_look:
            begun = self._clock()
            self.seen = self._look(says, around, mood)
            self._try_again()
            self._next_look = self._clock() + SHARE * (self._clock() - begun)
        self.seen = self.seen._replace(problem=refused)

    def _prepare(self, says: Speech, mood: conf.Mood) -> None:
        """Have what BIRD is to be told in its file. ConfigInvalid: it cannot be told."""
        secret = passwords(one.password_file for one in says.sessions)
        key = (says, mood, secret)
        if key != self._text_of[0]:
            self._text_of = key, conf.configuration(self._table, says, secret, mood)
        text = self._text_of[1]
        self._bird.write(text)
        self._wanted = conf.mark_of(text)

    def _says(self, around: Around) -> Speech:
        """What this node has to say, worked out where anything it depends on has changed."""
        key = (around.site, around.peers, tuple(self._pods()))
        if self._speech_of is None or key != self._speech_of[0]:
            self._speech_of = key, speech(self._table, *key)
        return self._speech_of[1]

    def _running(self) -> str:
        """The mark of the BIRD that answers; one that has ended, or does not answer any more, is started again.

        TryAgain: it does not answer yet.
        """
        begun = self._clock()
        try:
            found = self._bird.mark()
        except TryAgain as failure:
            since = self._asked_in_vain = begun if self._asked_in_vain is None else self._asked_in_vain
            has_ended = self._bird.has_ended()
            if not has_ended and self._clock() - since > HUNG:
                log.error("BIRD does not answer any more, and is ended", extra={"pid": self._bird.pid})
                self._bird.kill()
                has_ended, self._asked_in_vain = True, None
            if has_ended and self._table.start_bird:
                self._restart()
            if not self._table.start_bird:
                why = "it is started elsewhere (bgp.start_bird = false): see there"
                raise Limited(failure.message, why) from failure
            raise
        self._asked_in_vain = None
        return found

    def _restart(self) -> None:
        """Start BIRD, unless it just ended by itself again and again."""
        now = self._clock()
        is_again = now - self._started < STEADY
        if is_again and now - self._started < self._wait:
            raise Limited(f"BIRD ends as soon as it is started: {self._bird.last_words()}", "see bird.log")
        self._wait = min(AGAIN_MAX, 2 * self._wait) if is_again and self._wait else 1.0
        has_routes = bool(self._kernel.networks())
        self._bird.start(is_restart=has_routes)
        self._started, self._asked_in_vain = now, None
        self.seen = self.seen._replace(starts=self.seen.starts + 1)
        log.info("BIRD was started", extra={"keeps": has_routes})

    def _look(self, says: Speech, around: Around, mood: conf.Mood) -> Seen:
        asked = ["show protocols all", f"show route where source = RTS_BGP{_STILL if mood.is_leaving else ''}"]
        own = [cidr for cidr in says.own if cidr.version in says.families]
        asked += [f"show route filtered table master{cidr.version} where {_inside(says, cidr)}" for cidr in own]
        asked += _looped(self._table, says)
        shown, routes, *refused = self._bird.ask(*asked)
        inside, looped = refused[: len(own)], refused[len(own) :]
        return self.seen._replace(
            pid=self._bird.pid,
            speech=says,
            peers=around.peers,
            sessions=replies.sessions(shown),
            routes=tuple(replies.routes(routes)),
            inside=tuple(one for answer in inside for one in replies.routes(answer)),
            looped=tuple(one for answer in looped for one in replies.routes(answer)),
            is_drained=mood.is_draining,
            is_leaving=mood.is_leaving,
            is_changing=mood.is_changing,
            md5=self._md5(),
            at=self._clock(),
        )

    def _try_again(self) -> None:
        """Have sessions tried that BIRD gave up."""
        given_up = sorted(name for name, one in self.seen.sessions.items() if one.is_given_up)
        if given_up and self._clock() >= self._next_try:
            self._bird.ask(*(f"enable '{name}'" for name in given_up))
            self._next_try = self._clock() + GIVEN_UP

    # --- the end ------------------------------------------------------------------------------------------------------

    def _leave(self, around: Around) -> None:
        """Another backend wires the node. Nodes that are reached by BGP still need what BIRD announces, so it goes on
        with that, saying so, until none of them is, or somebody drains the node; then it ends."""
        try:
            self._bird.mark()
        except ConfigInvalid:  # another's
            self._is_left = True
            return
        except TryAgain:
            if self._bird.has_ended() and not self._kernel.networks():
                self._is_left = True
                return
        if not self.seen.is_leaving:
            self._left_at = self._clock() + LINGER
        self._keep(around, is_leaving=True)
        seen = self.seen
        is_needed = bool(told.reached(seen.routes, around))
        if seen.is_leaving and (seen.is_drained or (self._clock() > self._left_at and not is_needed)):
            self._bird.stop()
            gone = self._kernel.forget()
            log.info("BIRD was ended, and its routes were removed", extra={"routes": gone})
            self._is_left, self.seen = True, Seen()


def _inside(says: Speech, own: IPNetwork) -> str:
    """What BIRD is to show of others' routes within a range of ours. Not what we said ourselves: routers that tell many
    neighbours the same may tell it to whom they have it from, and `allow local as` lets that in."""
    ours = ", ".join(map(str, says.asns)) or "0"
    return f"net ~ [ {own}+ ] && !(net = {own} && bgp_path.last ~ [ {ours} ])"


def _looped(table: BgpTable, says: Speech) -> Iterator[str]:
    """How BIRD is asked for what would be accepted, but that this node's own number is in its path: as it is in those
    of a cluster that has the same one."""
    own = " || ".join(f"bgp_path ~ {conf.through(asn)}" for asn in says.asns)
    for family in () if table.accept_own_asn else sorted(says.families):
        if ranges(table.accept, family):
            yield f"show route filtered table master{family} where ({own}) && net ~ {conf.ACCEPTED}{family}"
