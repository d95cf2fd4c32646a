"""Making the kernel what it should be, again and again: what is missing or changed is mended, what nobody wants goes.

Level, not edge: a pass compares all that is with all that should be, whatever caused the difference; an event only
makes it come sooner. A start is not special.
"""

from __future__ import annotations

import errno
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple, TypeAlias

from agent.keep.limiter import Limiter
from agent.keep.strays import Stray, strays
from agent.keep.survey import Survey
from agent.node.node import Node
from backends.nodeplan import NFT_TABLES
from backends.podlink import link_name, parse_alias
from backends.wiring import Wiring
from cni.errors import Failure, KernelRefused, bug
from cni.spec import Attachment
from dataplane.diff import Change, diff, render, standing
from dataplane.forward import Accept
from dataplane.items import HOST, POD_GROUP, Addr, Item, Key, Nexthop, NftTable, Plan, Port, Sysctl, Veth, plan
from dataplane.kernel import Dataplane
from dataplane.observe import Device, Filter, Host, Scope, Settings, Strangers
from dataplane.ours import has_pod_link_name, is_group
from ipam.store import Record

log = logging.getLogger(__name__)

BURST: Final = 10
"""Repairs of one object that are made at once; then it has to wait for the rest of a `PERIOD`."""
PERIOD: Final = 60.0
"""Seconds."""
AGAIN: Final = 5.0
"""Seconds after which what the kernel refused is tried once more, however often it was."""
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


Part: TypeAlias = tuple[Scope, Plan]
"""A place that is looked at by itself, and what should be there."""


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
        self._limiter = Limiter(BURST, PERIOD, AGAIN)
        self._settled: Plan = {}
        self._is_settled = False
        self._followed: Wiring | None = None
        self._refused: dict[Key, Failure] = {}
        self._strays: Sequence[Stray] = ()
        self._told: dict[Attachment, Wiring] = {}
        self.counts: Counter[str] = Counter()
        """Objects mended since the start, by kind."""
        self.events: deque[Event] = deque(maxlen=REMEMBERED)
        """The last mendings and failures."""
        self.failing: Mapping[str, Failure] = {}
        """What could not be put right in the last pass, and why."""
        self.routes = 0
        """Routes of ours that were in the kernel after the last whole pass."""
        self.is_refused = False
        """Whether the kernel refused some of what is wanted for the node when that was last tried."""

    def whole(self) -> bool:
        """Everything of ours on the host, and the links of all pods. False: not all of it could be looked at."""
        around = self._survey.now
        if around is None:
            return True
        failing: dict[str, Failure] = {}
        if self._is_settled and around.wired.plan is not self._settled:
            # What we want has changed, by one peer of thousands perhaps: that needs no look at the kernel first, if all
            # that was wanted before is there. Whatever of it fails is seen, and told, below.
            self._apply(diff(self._settled, around.wired.plan), {}, _parts(around.wired.plan))
        records = self._node.ledger.records()
        parts = _parts(around.wired.plan)
        have, want = self._look(parts, failing)
        self._cover(have, failing)
        lost: set[Key] = set()
        for _ in range(ROUNDS):
            changes = self._allowed(diff(_of_node(have), want), lost)
            if not changes:
                break
            lost |= self._apply(changes, failing, parts)
            have, want = self._look(parts, failing)
        is_seen = str(Host()) not in failing
        self._settled, self._is_settled = around.wired.plan, is_seen and not lost
        if is_seen:
            self.routes = sum(key.kind == "route" for key in have)
            self._links(have, records, failing)
        self.is_refused = not self._refused.keys().isdisjoint(around.wired.plan)
        self._tell_strays(strays(records.values(), around.site, around.peers))
        self._report_fights(failing)
        self.failing = failing
        return is_seen

    def quick(self) -> None:
        """What changes without an event: settings, and the pods' links."""
        around = self._survey.now
        if around is None:
            return
        parts = [(scope, part) for scope, part in _parts(around.wired.plan) if isinstance(scope, Settings | Filter)]
        failing = {what: failure for what, failure in self.failing.items() if not what.startswith(OF_POD)}
        for scope, _ in parts:
            failing.pop(str(scope), None)
        have, want = self._look(parts, failing)
        changes = self._allowed(change for change in diff(have, want) if not _lacks_its_link(change))
        if changes:
            self._apply(changes, failing, parts)
        wiring = self._node.wiring
        records = self._node.ledger.records()
        self._told = {who: told for who, told in self._told.items() if who in records}
        spare = COURTESY
        for who in records:
            while spare > 0 and self._node.is_busy:  # who waits for an answer comes first
                self._pause(MOMENT)
                spare -= MOMENT
            self._mend(who, failing)
        self._followed = wiring
        self.failing = failing

    # --- the node's own part ----------------------------------------------------------------------------------

    def _look(
        self, parts: Iterable[Part], failing: dict[str, Failure]
    ) -> tuple[dict[Key, Item], dict[Key, Item]]:
        """What there is, and what there should be: less what cannot be looked at, which is told, and keeps nothing else
        from being put right."""
        have: dict[Key, Item] = {}
        want: dict[Key, Item] = {}
        for scope, part in parts:
            try:
                have |= self._dataplane.observe([scope])
            except Failure as failure:
                self._fail(str(scope), failure, failing)
            else:
                want |= part
        return have, want

    def _apply(self, changes: Sequence[Change], failing: dict[str, Failure], where: Sequence[Part]) -> set[Key]:
        """Make the changes of what is *where*, as far as the kernel lets us; the answer is of what it did not."""
        refused: set[Key] = set()

        def is_made(change: Change) -> bool:
            try:
                self._dataplane.apply([change])
            except Failure as failure:
                refused.add(change.item.key)
                self._refused[change.item.key] = failure
                if self._is_drift(change):
                    self._limiter.refuse(change.item.key, self._clock())
                self._fail(str(change.item), failure, failing)
                self._give_way(change, failure)
                return False
            return True

        made, before = changes, list[Change]()
        try:
            self._dataplane.apply(changes)
        except Failure:
            # One that is refused must not keep the others from being made, of which some are by now.
            have, want = self._look(where, failing)
            before = [change for change in changes if not _is_open(change, have, want)]
            made = standing([change for change in changes if _is_open(change, have, want)], is_made)
        for change in made:
            self._refused.pop(change.item.key, None)
        for change in (change for change in [*made, *before] if self._is_drift(change)):
            self._limiter.made(change.item.key, self._clock())
        self._tell("mended", [change for change in made if self._is_drift(change)])
        return refused

    def _give_way(self, change: Change, failure: Failure) -> None:
        """An id that another program has is its own: the next look at what is around chooses another."""
        is_taken = isinstance(failure, KernelRefused) and failure.errno == errno.EEXIST
        if is_taken and isinstance(change.new, Nexthop):
            self._survey.avoid(change.new.id)

    def _is_drift(self, change: Change) -> bool:
        """Whether somebody else brought the difference about, and not a change of what we want."""
        return bool(self._settled) and self._settled.get(change.item.key) == change.new

    def _allowed(self, changes: Iterable[Change], lost: Collection[Key] = ()) -> list[Change]:
        """Those that may be made now, and are not *lost* anyway."""
        return standing(changes, lambda change: change.item.key not in lost and self._is_allowed(change))

    def _is_allowed(self, change: Change) -> bool:
        return not self._is_drift(change) or self._limiter.allow(change.item.key, self._clock())

    def _report_fights(self, failing: dict[str, Failure]) -> None:
        for key in self._limiter.fought_over(self._clock()):
            if isinstance(key, Key):  # those of pods are told by the pass over them
                what = f"{key.kind} {key.name}"
                self._fail(what, self._refused.get(key) or _fought(what), failing)

    # --- pods -------------------------------------------------------------------------------------------------

    def _cover(self, have: Plan, failing: dict[str, Failure]) -> None:
        """Put pods' links that are in no link group of ours, as older agents made them, into it: before anything else,
        since the node's nft table goes by it."""
        links = [item for item in have.values() if isinstance(item, Veth) and not is_group(item.group)]
        if links:
            covered = [replace(link, group=POD_GROUP) for link in links]
            changes = [Change(old, new) for old, new in zip(links, covered, strict=True)]
            self._apply(changes, failing, [(Host(), plan(*covered))])

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
        strangers, _ = self._look([(Strangers(), {})], failing)
        for key in strangers:
            self._fail(f"link {key.name}", _nobodys(key.name), failing)

    def _mend(self, who: Attachment, failing: dict[str, Failure]) -> None:
        wiring = self._node.wiring
        # What differs because pods are wired in another way now is nobody's doing.
        is_drift = wiring is self._followed
        allowed: list[Key] = []
        withheld: list[Key] = []

        def is_allowed(change: Change) -> bool:
            key = change.item.key
            may_be = not is_drift or self._limiter.allow((who, key), self._clock())
            (allowed if may_be else withheld).append(key)
            return may_be

        try:
            changes = self._node.mend(who, is_allowed, is_wired_anew=self._told.get(who) is not wiring)
        except Failure as failure:
            for key in allowed if is_drift else ():
                self._limiter.refuse((who, key), self._clock())
            self._fail(f"{OF_POD}{who}", failure, failing)
            return
        except Exception as error:
            # A bug, too, stays with the pod that brings it out: each start would meet it again and end.
            if f"{OF_POD}{who}" not in self.failing:
                log.exception("a bug")
            self._fail(f"{OF_POD}{who}", bug(error), failing)
            return
        for change in changes if is_drift and changes else ():
            self._limiter.made((who, change.item.key), self._clock())
        if withheld:
            what = f"{OF_POD}{who}"
            self._fail(what, self.failing.get(what) or _fought(f"{withheld[0].kind} {withheld[0].name}"), failing)
        if changes is not None and wiring is not None:
            self._told[who] = wiring
        if is_drift:
            self._tell(f"mended {who}", changes or ())
        elif changes:
            log.info("wired a pod anew", extra={"attachment": str(who), "difference": render(changes)})

    def _drop(self, name: str, part: Plan, failing: dict[str, Failure]) -> None:
        """A link of ours that belongs to no lease."""
        veth = part.get(Key(HOST, "link", name))
        if not isinstance(veth, Veth):
            return
        named = parse_alias(veth.alias)
        if named is None or link_name(named.who) != name:
            if name not in map(link_name, self._node.ledger.records()):  # not one that is just being made
                self._fail(f"link {name}", _unnamed(name), failing)
            return
        try:
            if not self._node.drop_link(named.who):
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

    def _tell_strays(self, found: Sequence[Stray]) -> None:
        for one in found:
            if one not in self._strays:
                text = f"a pod has an address that is not of this node any more: {one}"
                self.events.append(Event(self._wall(), text))
                log.warning(text)
        self._strays = found

    def _fail(self, what: str, failure: Failure, failing: dict[str, Failure]) -> None:
        failing[what] = failure
        known = self.failing.get(what)
        if known is None or str(known) != str(failure):
            self.events.append(Event(self._wall(), str(failure)))
            log.error("could not be put right", extra={"what": what, "error": str(failure)})


def _parts(want: Plan) -> list[Part]:
    """Where the node's plan is, and everything else of ours on the host: the places that are looked at one by one, and
    what should be in each."""
    settings = {key: item for key, item in want.items() if isinstance(item, Sysctl)}
    parts: list[Part] = [(Settings(tuple(key.name for key in settings)), settings)] if settings else []
    rest = {key: item for key, item in want.items() if not isinstance(item, Sysctl)}
    for device in [item.name for item in rest.values() if isinstance(item, Port)]:
        port = {key: item for key, item in rest.items() if isinstance(item, Port | Addr) and item.link == device}
        addresses = tuple(item.address for item in port.values() if isinstance(item, Addr))
        parts.append((Device(device, addresses), port))
        rest = {key: item for key, item in rest.items() if key not in port}
    tables = [item for item in rest.values() if isinstance(item, NftTable)]
    accepts = {key: item for key, item in rest.items() if isinstance(item, Accept)}
    parts.append((Host(), {key: item for key, item in rest.items() if not isinstance(item, NftTable | Accept)}))
    # The last, since programs that may be slow have to be asked.
    parts += [(Settings((), (name,)), plan(*(one for one in tables if one[:2] == name))) for name in NFT_TABLES]
    return [*parts, (Filter(), accepts)]


def _is_open(change: Change, have: Plan, want: Plan) -> bool:
    """Whether a change is still to be made; one of what cannot be looked at is not."""
    key = change.item.key
    return have.get(key) != change.new and (change.new is None or key in want)


def _lacks_its_link(change: Change) -> bool:
    """Whether it is a setting of a link that is not there, or has none such: the whole pass makes it with the link. A
    try each second would use up what an object may be mended, and keep the setting from the link when that comes."""
    return change.old is None and isinstance(change.new, Sysctl) and bool(change.new.link)


def _fought(what: str) -> Failure:
    why = f"it was mended {BURST} times within {PERIOD:.0f} s: another program keeps changing it; stop that one"
    return Failure(f"{what} is fought over", why)


def _is_of_pod(item: Item) -> bool:
    name = item.key.name if isinstance(item, Veth) else item.link
    return has_pod_link_name(name)


def _of_node(have: Plan) -> dict[Key, Item]:
    return {key: item for key, item in have.items() if not _is_of_pod(item)}


def _by_pod_link(have: Plan) -> dict[str, dict[Key, Item]]:
    parts: dict[str, dict[Key, Item]] = {}
    for key, item in have.items():
        if _is_of_pod(item):
            parts.setdefault(key.name if isinstance(item, Veth) else item.link, {})[key] = item
    return parts


def _unnamed(name: str) -> Failure:
    return Failure(
        f"link {name} belongs to no lease and does not say whose it is: it was left alone",
        f"delete the pod that it leads to, or if there is none, the link: ip link delete {name}",
    )


def _nobodys(name: str) -> Failure:
    return Failure(
        f"link {name} is called as a pod's link is, but has neither our alias nor our link group: it was left alone",
        f"rename it if it is another program's; if it is a pod's, give it back: ip link set {name} group {POD_GROUP}",
    )
