"""Changing the backend of a node whose pods are running: peer by peer, each probed, journaled, never without a way.

What always holds: a peer is reached by a way that was seen to work, the old one or the new one; what is in the journal
is what the next process goes on with. The order: both ways are programmed, and the pods' routes get the smaller MTU;
each peer is tried by the new way, moved, and probed again, and put back if it falls silent and answers by the old way;
when all are reached by the new way and answer by it, and what they had sent by the old one has arrived, that is taken
away. A peer that is not ready stays where it was and is tried again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from agent.commands import AT_REST, FINISHING, MOVING, PREPARING, WAITING
from agent.keep.survey import Surroundings
from agent.switch.way import JOURNAL, State, Way
from backends import are_alike
from backends.site import Site
from backends.threads import OnDeath, thread
from backends.transition import Probe, Transition
from backends.wiring import Unserved, Wiring
from cni.errors import ConfigInvalid, Failure, NotReady, TryAgain
from dataplane.diff import diff
from dataplane.items import Plan
from dataplane.memory import Memory

log = logging.getLogger(__name__)

RETRY: Final = 2.0
"""Seconds between tries of peers that were not ready."""
PATIENCE: Final = 1.0
"""Seconds for a peer's answer to a probe."""
DRAIN: Final = 1.0
"""Seconds for what a peer sent by the old way, before it answered by the new one, to arrive."""
PASSING: Final = 5.0
"""Seconds for requests under way to end; then all is tried again."""
AT_ONCE: Final = 32
"""Peers that are tried at a time."""
_SHOWN: Final = 200
"""Changes that a dry run shows."""

Ways = Mapping[str, Sequence[Probe]]
"""The probes of each peer, by its name."""
Silence = Callable[[str, str, Collection[str], float, str], str]
"""See `dataplane.probe.silence`."""


class Switch:
    """One thread moves peers; any thread asks. *load* answers a backend's factory, *settle* answers
    what surrounds the node when the kernel has what is wanted, or raises TryAgain, *let_pass* whether every request
    under way now is over within so many seconds; *use* has the parts that live of the backends in use live;
    *missing* names what this machine lacks for a plan; *drain* is usually `DRAIN`."""

    name: Final = "switch"

    def __init__(
        self,
        *,
        way: Way,
        boot: str,
        journal: Memory,
        let_pass: Callable[[float], bool],
        load: Callable[[str], Callable[[Site], Wiring]],
        settle: Callable[[], Surroundings | None],
        use: Callable[[Collection[str]], None],
        missing: Callable[[Plan], Sequence[str]],
        silence: Silence,
        on_death: OnDeath,
        drain: float = DRAIN,
    ) -> None:
        self._boot = boot
        self._journal = journal
        self._let_pass = let_pass
        self._load = load
        self._settle = settle
        self._use = use
        self._missing = missing
        self._silence = silence
        self._drain = drain
        self._lock = threading.Lock()
        self._way = way
        self._is_forced = False
        self._rounds = 0
        self._peers: frozenset[str] = frozenset()
        self._waiting: Mapping[str, str] = {}
        self._phase = AT_REST if way.state.is_resting else PREPARING
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread = thread(self.name, self._live, on_death)
        journal.remember(JOURNAL, way.state.text(boot))

    @property
    def backend(self) -> str:
        """The backend in use; of two, the one that is being left."""
        return self._way.state.active

    # --- what is asked ----------------------------------------------------------------------------------------

    def ask(self, wanted: str, around: Surroundings | None, *, is_dry: bool, is_forced: bool) -> dict[str, Any]:
        """Go to the backend *wanted*, or with *is_dry* say what that would change; see `progress` for how far it is.

        With *is_forced* peers are moved whether or not they answer.

        Raises:
            ConfigInvalid: it cannot wire this node, or cannot reach peers that are reached now.
            NotReady: this machine lacks what it needs. TryAgain: the list of nodes is not known yet.
        """
        if around is None:
            raise TryAgain("the list of nodes is not known yet", "see routablectl status")
        state = self._way.state.towards(wanted)
        if not are_alike(state.active, wanted):
            raise ConfigInvalid(
                f"{wanted} has its addresses from elsewhere than {state.active}, so running pods cannot keep theirs",
                "drain this node, set backend in the agent's configuration, and start the agent anew",
            )
        new = self._load(wanted)(around.site)
        if not is_forced and not state.is_resting:
            _refuse_who_cannot_move(Transition(around.site, self._load(state.active)(around.site), new), around, wanted)
        plan = new.node(around.peers).plan
        lacking = self._missing(plan)
        if lacking:
            raise NotReady(f"this machine lacks what {wanted} needs", "; ".join(lacking))
        if is_dry:
            return {**self.progress(), "to": wanted, **_changes(around, new, plan)}
        with self._lock:
            state = self._way.state.towards(wanted)
            if state != self._way.state:
                self._keep(state)
                self._phase = PREPARING
            self._is_forced = is_forced
            self._rounds = 0
            self._waiting = {}
        self._wake.set()
        return self.progress()

    def progress(self) -> dict[str, Any]:
        """How far a change is: plain values."""
        state = self._way.state
        return {
            "from": state.active,
            "to": state.wanted,
            "configured": state.configured,
            "phase": self._phase,
            "peers": len(self._peers),
            "moved": sum(map(state.has_moved, self._peers)),
            "waiting": dict(self._waiting),
            "rounds": self._rounds,
        }

    # --- the thread -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin, and go on with what a process before this one had begun."""
        self._use({self._way.state.active, self._way.state.wanted})
        self._thread.start()

    def stop(self) -> None:
        """End; a change under way waits for the next process."""
        self._stop.set()
        self._wake.set()
        self._thread.join()

    def _live(self) -> None:
        while not self._stop.is_set():
            if self._phase == AT_REST:
                self._wake.wait()
            self._wake.clear()
            self.advance()
            self._wake.wait(0 if self._phase == AT_REST else RETRY)

    def advance(self) -> None:
        """One round over all peers that have not moved, in the calling thread; nothing when resting."""
        try:
            if not self._way.state.is_resting:
                self._advance(self._way.state.wanted)
            elif self._phase != AT_REST:
                self._finish(self._way.state.wanted)
                self._waiting = {}
        except Failure as failure:
            log.error("the change of backend pauses", extra={"error": str(failure)})
            self._waiting = {"this node": str(failure)}
        self._rounds += 1

    def _advance(self, wanted: str) -> None:
        if self._phase == PREPARING:
            self._use({self._way.state.active, wanted})
            self._settle()
            if not self._let_pass(PASSING):  # an ADD that began with the old MTU
                raise TryAgain("a request that began before the change is not over yet", "see the agent's log")
        around, between = self._settled()
        if around is None or between is None:
            return
        self._enter(MOVING, wanted)
        self._peers = frozenset(peer.name for peer in around.peers if peer.name != around.site.here.name)
        ways = between.movable(around.peers)
        silent = {} if self._is_forced else {one.peer: one.why for one in between.unasked(around.peers)}
        ways = {name: probes for name, probes in ways.items() if name not in silent}
        left = [name for name in _round(ways, around.site.here.name) if not self._way.state.has_moved(name)]
        for start in range(0, len(left), AT_ONCE):
            if self._stop.is_set() or self._way.state.wanted != wanted:
                return
            silent |= self._move(wanted, left[start : start + AT_ONCE], ways)
            self._waiting = silent
        silent |= {one.peer: one.why for one in between.immovable(around.peers)}
        self._waiting = silent or self._behind(wanted, ways)
        if self._stop.is_set():
            return
        if self._waiting and not self._is_forced:
            self._enter(WAITING, wanted)
            return
        with self._lock:
            if self._way.state.wanted != wanted:
                return
            self._phase = FINISHING
            self._keep(State(wanted, wanted, self._way.state.configured))
        self._finish(wanted)

    def _finish(self, wanted: str) -> None:
        """The old way is wanted no more: the change is over when it is gone."""
        self._settle()
        self._use({wanted})
        self._enter(AT_REST, wanted)
        log.info("the backend was changed", extra={"backend": wanted})

    def _enter(self, phase: str, wanted: str) -> None:
        """The change to *wanted* is in that phase, unless another was asked for meanwhile, which has begun anew."""
        with self._lock:
            if self._way.state.wanted == wanted:
                self._phase = phase

    def _move(self, wanted: str, names: Collection[str], ways: Ways) -> dict[str, str]:
        """Move those of *names* that answer by the new way, before and after; the others, and why."""
        silent = self._untried(wanted, names, ways)
        good = [name for name in names if name not in silent]
        self._put(wanted, moved=good)
        return silent | self._silent(wanted, good, ways)

    def _behind(self, wanted: str, ways: Ways) -> dict[str, str]:
        """Which of the peers, all of which have moved, do not send to us by the new way yet, and why."""
        behind = self._unheard(ways, ways, is_bound=True)
        if ways and not behind:
            self._enter(FINISHING, wanted)
            if self._stop.wait(self._drain):
                return {}
            behind = self._unheard(ways, ways, is_bound=True)  # nobody has turned round
        return behind | self._silent(wanted, behind, ways)

    def _silent(self, wanted: str, names: Collection[str], ways: Ways) -> dict[str, str]:
        """Which of *names*, all of which have moved, do not answer, and why: they are put back, if they do by the old
        way, which they leave when they have heard us by the new one."""
        silent = self._unheard(names, ways)
        if silent:
            untried = self._untried(wanted, silent, ways)
            back = [name for name in silent if name not in untried]
            if back:
                log.warning("peers fell silent by the new way: put back", extra={"peers": ", ".join(back)})
            self._put(wanted, back=back)
        return silent

    def _untried(self, wanted: str, names: Collection[str], ways: Ways) -> dict[str, str]:
        """Which of *names* do not answer by the way that they are not reached by now, and why."""
        self._put(wanted, tried=names)
        return self._unheard(names, ways, is_spare=True)

    def _put(
        self, wanted: str, *, moved: Iterable[str] = (), back: Iterable[str] = (), tried: Iterable[str] = ()
    ) -> None:
        """These are moved as well, or not any more, and those tried: in the journal, then in the kernel."""
        with self._lock:
            if self._way.state.wanted != wanted:
                return
            now = self._way.state.moving(list(moved)).moving(list(back), back=True)
            self._keep(now, tried)
        self._settle()

    def _keep(self, state: State, tried: Iterable[str] = ()) -> None:
        if state != self._way.state:
            self._journal.remember(JOURNAL, state.text(self._boot))
        self._way.go(state, tried)

    def _settled(self) -> tuple[Surroundings | None, Transition | None]:
        around = self._settle()
        wiring = around.wiring if around is not None else None
        return around, wiring if isinstance(wiring, Transition) else None

    def _unheard(
        self, names: Collection[str], ways: Ways, *, is_spare: bool = False, is_bound: bool = False
    ) -> dict[str, str]:
        """Which of *names* do not answer, and why: by the way of their pods, or with *is_spare* of their spare
        addresses. With *is_bound* an answer counts that comes by the new way."""
        if self._is_forced:
            return {}

        def why(name: str) -> str:
            for probe in ways[name]:
                target = probe.spare if is_spare else probe.target
                answerers = [str(one) for one in probe.answerers]
                device = probe.device if is_bound else ""
                found = self._silence(str(probe.source), str(target), answerers, PATIENCE, device)
                if found:
                    return f"{found} by the new way: it has not moved this node yet" if is_bound else found
            return ""

        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="probe") as pool:
            return {name: reason for name, reason in zip(names, pool.map(why, names), strict=True) if reason}


def _refuse_who_cannot_move(between: Transition, around: Surroundings, wanted: str) -> None:
    """ConfigInvalid: peers would be lost, or moved without anybody knowing whether they are reached."""
    lost, unasked = between.immovable(around.peers), between.unasked(around.peers)
    if lost:
        raise ConfigInvalid(f"{wanted} cannot reach {_names(lost)}", lost[0].why)
    if unasked:
        what = f"{_names(unasked)} cannot be asked whether {wanted} reaches them"
        raise ConfigInvalid(what, f"{unasked[0].why}; --force moves them all the same")


def _names(peers: Sequence[Unserved]) -> str:
    return ", ".join(dict.fromkeys(one.peer for one in peers))


def _changes(around: Surroundings, new: Wiring, plan: Plan) -> dict[str, Any]:
    """What *plan*, which is *new*'s, would change: plain values."""
    changes = diff(around.wired.plan, plan)
    return {
        "pod_mtu": {"now": around.wiring.mtu, "then": new.mtu},
        "changes": [str(change) for change in changes[:_SHOWN]],
        "more": max(0, len(changes) - _SHOWN),
    }


def _round(names: Iterable[str], here: str) -> list[str]:
    """All *names* in order, from the one after *here* on: nodes that do this at once do not all ask the same peers,
    each of which answers with so many ICMP errors a second only."""
    return sorted(names, key=lambda name: (name < here, name))
