"""Which backend wires this node now: one, or two while it changes. Memory alone: ``agent.switch.switch`` decides."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final, NamedTuple

from backends import BACKENDS, are_alike, load, nodeplan
from backends.site import Site
from backends.transition import Transition
from backends.wiring import Wiring
from cni.errors import ConfigInvalid, StateCorrupt
from dataplane.items import Plan

JOURNAL: Final = "backend"
"""The name of the state in the journal."""
_SHOWN: Final = 80


class State(NamedTuple):
    """Where the node is: at rest with *active*, or, where *wanted* is another, on the way there.

    *named* are the peers that have moved or, with *is_inverse* (the node turned round on its way), those that have not.
    *configured* is what the configuration said then: a change of that outweighs what was asked of the agent.
    """

    active: str
    wanted: str
    configured: str
    named: frozenset[str] = frozenset()
    is_inverse: bool = False

    @property
    def is_resting(self) -> bool:
        return self.active == self.wanted

    def has_moved(self, peer: str) -> bool:
        """Whether the peer of that name is reached by *wanted*."""
        return (peer in self.named) != self.is_inverse

    def moving(self, peers: Collection[str], *, back: bool = False) -> State:
        """The same with these peers moved, or put *back*."""
        gains = back == self.is_inverse
        return self._replace(named=self.named | set(peers) if gains else self.named - set(peers))

    def towards(self, wanted: str) -> State:
        """The state from which *wanted* is reached. ConfigInvalid: not before the change under way has ended."""
        if wanted == self.wanted:
            return self
        if self.is_resting:
            return State(self.active, wanted, self.configured)
        if wanted == self.active:
            return State(self.wanted, self.active, self.configured, self.named, not self.is_inverse)
        raise ConfigInvalid(
            f"this node is on its way from {self.active} to {self.wanted}",
            f"choose one of these two; when that has ended, {wanted} can be had",
        )

    def text(self, boot: str) -> str:
        """For the journal, during the *boot*."""
        return json.dumps({**self._asdict(), "named": sorted(self.named), "boot": boot})


def kept(text: str) -> dict[str, Any]:
    """What the journal has of a state, and its boot; what a newer agent keeps besides is left out. StateCorrupt: that
    is no state."""
    try:
        found = json.loads(text)
        return {name: found[name] for name in (*State._fields, "boot")}
    except (ValueError, LookupError, TypeError) as error:
        raise StateCorrupt(
            f"the journal's word for the backend in use cannot be read: {text[:_SHOWN]!r}",
            "move paths.state away: a start without it asks the kernel",
        ) from error


def restored(text: str | None, configured: str, boot: str) -> State:
    """Where to go on, after what the journal says and what the configuration wants now.

    Backends whose addresses come from different sources have no way between them but to begin anew: the caller has
    seen to it that no pods are left.

    ConfigInvalid: the configuration wants a third backend in the middle of a change. StateCorrupt: see `kept`.
    """
    if text is None:
        return State(configured, configured, configured)
    found = kept(text)
    is_rebooted = found.pop("boot") != boot
    if not are_alike(found["active"], configured):
        return State(configured, configured, configured)
    state = State(**{**found, "named": frozenset(found["named"])})
    wanted = state.wanted if state.configured == configured else configured
    if is_rebooted:
        return State(wanted, wanted, configured)  # nothing is programmed yet
    return state.towards(wanted)._replace(configured=configured)


def seen(have: Plan, names: Iterable[str], configured: str) -> State:
    """Where to go on where there is no journal: what the kernel *have* says of the nodes with these *names*. What else
    than *configured* is in use there is left peer by peer, since other nodes may send to this one by it."""
    alike = [name for name in BACKENDS if name != configured and are_alike(name, configured)]
    for other in map(load, alike):
        if any(map(other.shows, have.values())):
            break
    else:
        return State(configured, configured, configured)

    def is_left(name: str) -> bool:
        found = [have[key] for key in nodeplan.nexthop_keys(name) if key in have]
        return any(map(other.shows, found)) if other.has_nexthops else not found

    return State(other.name, configured, configured, frozenset(name for name in names if not is_left(name)))


class Way:
    """The state, and the wiring that follows from it; any thread may ask. *load* answers a backend's factory."""

    def __init__(self, state: State, load: Callable[[str], Callable[[Site], Wiring]]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._state = state
        self._tried: frozenset[str] = frozenset()
        self._site: Site | None = None
        self._wirings: dict[str, Wiring] = {}
        self._wiring: Wiring | None = None

    @property
    def state(self) -> State:
        """Where the node is."""
        return self._state

    def go(self, state: State, tried: Iterable[str] = ()) -> None:
        """From now on the node is there, and the peers *tried* are to be probed by the way that their pods are not
        reached by."""
        with self._lock:
            self._state, self._tried, self._wiring = state, frozenset(tried), None

    def wiring(self, site: Site) -> Wiring:
        """How to wire at *site* now; while nothing changes, the same object. ConfigInvalid: that is not possible."""
        with self._lock:
            if self._site != site:
                self._site, self._wirings, self._wiring = site, {}, None
            if self._wiring is None:
                self._wiring = self._made(site)
            return self._wiring

    def _made(self, site: Site) -> Wiring:
        old = self._one(self._state.active, site)
        if self._state.is_resting:
            return old
        new = self._one(self._state.wanted, site)
        return Transition(site, old, new, self._state.has_moved, self._tried)

    def _one(self, name: str, site: Site) -> Wiring:
        if name not in self._wirings:
            self._wirings[name] = self._load(name)(site)
        return self._wirings[name]
