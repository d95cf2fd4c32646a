"""Making the kernel what it should be, again and again: what is missing or changed is mended, what nobody wants goes.

Level, not edge: a pass compares all that is with all that should be, whatever caused the difference; an event only
makes it come sooner. A start is not special.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from agent.limiter import Limiter
from agent.node import Node
from agent.survey import Surroundings, Survey
from backends.podlink import link_name, parse_alias
from backends.wiring import Wiring
from cni.errors import Failure
from cni.spec import Attachment
from dataplane.diff import Change, diff, render
from dataplane.items import HOST, POD_LINK_PREFIX, Addr, Item, Key, NftTable, Plan, Port, Sysctl, Veth
from dataplane.kernel import Dataplane
from dataplane.observe import Device, Host, Scope, Settings
from ipam.store import Record

log = logging.getLogger(__name__)

BURST: Final = 10
"""Repairs of one object that are made at once; then it has to wait for the rest of a `PERIOD`."""
PERIOD: Final = 60.0
"""Seconds."""
ROUNDS: Final = 3
"""How often a pass looks again after it changed something: a link that is made anew loses what hung on it."""
COURTESY: Final = 0.5
"""Seconds for which a pass over the pods gives way to requests, all in all: a pod is looked at every other second."""
MOMENT: Final = 0.005
"""Seconds."""
OF_POD: Final = "pod "
"""What the names of pods begin with among what could not be put right."""
REMEMBERED: Final = 20
"""How many mendings and failures are shown."""


class Event(NamedTuple):
    """Something worth showing: when (seconds since the epoch) and what, in a person's words."""

    time: float
    text: str


class Repair:
    """Passes over what is ours. One thread calls; any may read what was done.

    *clock* answers seconds, monotonic; *wall* seconds since the epoch.
    """

    def __init__(
        self,
        *,
        node: Node,
        survey: Survey,
        dataplane: Dataplane,
        clock: Callable[[], float],
        wall: Callable[[], float],
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self._node = node
        self._survey = survey
        self._dataplane = dataplane
        self._clock = clock
        self._wall = wall
        self._pause = pause
        self._limiter = Limiter(BURST, PERIOD)
        self._settled: Plan = {}
        self._followed: Wiring | None = None
        self.counts: Counter[str] = Counter()
        """Objects mended since the start, by kind."""
        self.events: deque[Event] = deque(maxlen=REMEMBERED)
        """The last mendings and failures."""
        self.failing: Mapping[str, Failure] = {}
        """What could not be put right in the last pass, and why."""
        self.routes = 0
        """Routes of ours that were in the kernel after the last whole pass."""

    def whole(self) -> None:
        """Everything of ours on the host, and the links of all pods."""
        around = self._survey.now
        if around is None:
            return
        failing: dict[str, Failure] = {}
        if self._settled and around.wired.plan is not self._settled:
            # What we want has changed, by one peer of thousands perhaps: that needs no look at the kernel first.
            # Whatever of it fails is seen, and told, below.
            self._apply(diff(self._settled, around.wired.plan), {})
        records = self._node.ledger.records()
        have = self._dataplane.observe(scopes(around))
        for _ in range(ROUNDS):
            changes = self._allowed(diff(_of_node(have), around.wired.plan))
            if not changes:
                break
            self._apply(changes, failing)
            have = self._dataplane.observe(scopes(around))
        self._settled = around.wired.plan
        self.routes = sum(key.kind == "route" for key in have)
        self._links(have, records, failing)
        self._report_fights(failing)
        self.failing = failing

    def quick(self) -> None:
        """What changes without an event: settings, and what is in the pods' namespaces."""
        around = self._survey.now
        if around is None:
            return
        failing = {what: failure for what, failure in self.failing.items() if not what.startswith(OF_POD)}
        scope = settings(around)
        want = {key: item for key, item in around.wired.plan.items() if isinstance(item, Sysctl | NftTable)}
        changes = self._allowed(diff(self._dataplane.observe([scope]), want))
        if changes:
            self._apply(changes, failing)
        wiring, well = self._node.wiring, True
        spare = COURTESY
        for who in self._node.ledger.records():
            while spare > 0 and self._node.is_busy:  # who waits for an answer comes first
                self._pause(MOMENT)
                spare -= MOMENT
            well &= self._mend(who, failing)
        if well:
            self._followed = wiring
        self.failing = failing

    # --- the node's own part ----------------------------------------------------------------------------------

    def _apply(self, changes: Sequence[Change], failing: dict[str, Failure]) -> None:
        try:
            self._dataplane.apply(changes)
            made: Sequence[Change] = changes
        except Failure:
            made = self._apply_singly(changes, failing)  # one that is refused must not keep the others from being made
        self._tell("mended", [change for change in made if self._is_drift(change)])

    def _apply_singly(self, changes: Sequence[Change], failing: dict[str, Failure]) -> list[Change]:
        made = []
        for change in changes:
            try:
                self._dataplane.apply([change])
                made.append(change)
            except Failure as failure:
                self._fail(str(change.item), failure, failing)
        return made

    def _is_drift(self, change: Change) -> bool:
        """Whether somebody else brought the difference about, and not a change of what we want."""
        return bool(self._settled) and self._settled.get(change.item.key) == change.new

    def _allowed(self, changes: Iterable[Change]) -> list[Change]:
        return [change for change in changes if self._is_allowed(change)]

    def _is_allowed(self, change: Change) -> bool:
        return not self._is_drift(change) or self._limiter.allow(change.item.key, self._clock())

    def _report_fights(self, failing: dict[str, Failure]) -> None:
        for key in self._limiter.fought_over(self._clock()):
            assert isinstance(key, Key)
            what = f"{key.kind} {key.name}"
            why = f"it was mended {BURST} times within {PERIOD:.0f} s: another program keeps changing it; stop that one"
            self._fail(what, Failure(f"{what} is fought over", why), failing)

    # --- pods -------------------------------------------------------------------------------------------------

    def _links(self, have: Plan, records: Mapping[Attachment, Record], failing: dict[str, Failure]) -> None:
        parts = _by_pod_link(have)
        wiring = self._node.wiring
        if wiring is None:
            return
        for who, record in records.items():
            want = {key: item for key, item in wiring.pod(record).items() if key.place == HOST}
            if parts.pop(link_name(who), {}) != want:
                self._mend(who, failing)
        for name, part in parts.items():
            self._drop(name, part, failing)

    def _mend(self, who: Attachment, failing: dict[str, Failure]) -> bool:
        # What differs because pods are wired in another way now is nobody's doing.
        is_drift = self._node.wiring is self._followed
        try:
            changes = self._node.mend(
                who, lambda change: not is_drift or self._limiter.allow(change.item.key, self._clock())
            )
        except Failure as failure:
            self._fail(f"{OF_POD}{who}", failure, failing)
            return False
        if is_drift:
            self._tell(f"mended {who}", changes)
        elif changes:
            log.info("wired a pod anew", extra={"attachment": str(who), "difference": render(changes)})
        return True

    def _drop(self, name: str, part: Plan, failing: dict[str, Failure]) -> None:
        """A link of ours that belongs to no lease."""
        veth = part.get(Key(HOST, "link", name))
        named = parse_alias(veth.alias) if isinstance(veth, Veth) else None
        try:
            if named is None:
                self._dataplane.apply(diff(part, {}))
            elif link_name(named.who) != name or not self._node.drop_link(named.who):
                return
        except Failure as failure:
            self._fail(f"link {name}", failure, failing)
            return
        self._tell("removed what belongs to no lease", diff(part, {}))

    # --- telling ----------------------------------------------------------------------------------------------

    def _tell(self, what: str, changes: Sequence[Change]) -> None:
        if not changes:
            return
        self.counts.update(change.item.key.kind for change in changes)
        self.events.append(Event(self._wall(), f"{what}: {render(changes)}"))
        log.warning(what, extra={"difference": render(changes)})

    def _fail(self, what: str, failure: Failure, failing: dict[str, Failure]) -> None:
        failing[what] = failure
        known = self.failing.get(what)
        if known is None or str(known) != str(failure):
            self.events.append(Event(self._wall(), str(failure)))
            log.error("could not be put right", extra={"what": what, "error": str(failure)})


def scopes(around: Surroundings) -> list[Scope]:
    """Where the node's plan is, and everything else of ours on the host."""
    items = around.wired.plan.values()
    addresses: dict[str, list[str]] = {item.name: [] for item in items if isinstance(item, Port)}
    for item in items:
        if isinstance(item, Addr) and item.dev in addresses:
            addresses[item.dev].append(item.address)
    return [Host(), settings(around), *(Device(name, tuple(of)) for name, of in addresses.items())]


def settings(around: Surroundings) -> Settings:
    """Where the sysctls and tables of the node's plan are."""
    items = around.wired.plan.values()
    sysctls = tuple(item.path for item in items if isinstance(item, Sysctl))
    return Settings(sysctls, tuple((item.family, item.name) for item in items if isinstance(item, NftTable)))


def _is_of_pod(item: Item) -> bool:
    name = item.key.name if isinstance(item, Veth) else item.link
    return name.startswith(POD_LINK_PREFIX)


def _of_node(have: Plan) -> dict[Key, Item]:
    return {key: item for key, item in have.items() if not _is_of_pod(item)}


def _by_pod_link(have: Plan) -> dict[str, dict[Key, Item]]:
    parts: dict[str, dict[Key, Item]] = {}
    for key, item in have.items():
        if _is_of_pod(item):
            parts.setdefault(key.name if isinstance(item, Veth) else item.link, {})[key] = item
    return parts
