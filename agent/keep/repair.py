"""Making the kernel what it should be, again and again: what is missing or changed is mended, what nobody wants goes.

Level, not edge: a pass compares all that is with all that should be, whatever caused the difference; an event only
makes it come sooner. A start is not special.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Final

from agent.keep.diary import Diary
from agent.keep.limiter import AGAIN, BURST, PERIOD, Limiter, fought
from agent.keep.podlinks import OF_POD, PodLinks
from agent.keep.scopes import Scoped, of_node, scoped
from agent.keep.strays import strays
from agent.keep.survey import Survey
from agent.node.node import Node
from cni.errors import Failure, KernelRefused
from dataplane.diff import Change, diff, standing
from dataplane.items import POD_GROUP, Item, Key, Nexthop, Plan, Sysctl, plan
from dataplane.links import Veth
from dataplane.observe import Filter, OnHost, Settings
from dataplane.ours import is_group
from dataplane.seam import Dataplane

ROUNDS: Final = 3
"""How often a pass looks again after it changed something: a link that is made anew loses what hung on it."""


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
        self._limiter = Limiter(BURST, PERIOD, AGAIN)
        self.diary = Diary(wall)
        """What was done, and what could not be."""
        self._pods = PodLinks(node, dataplane, self.diary, self._limiter, clock, pause)
        self._before: Plan = {}
        """What the last whole pass wanted of the node, nothing before the first: what is wanted unchanged since, and
        differs all the same, somebody else changed."""
        self._is_before_there = False
        """Whether all of that was there after that pass: then a change of what is wanted can be made without a look."""
        self._refused: dict[Key, Failure] = {}
        self.routes = 0
        """Routes of ours that were in the kernel after the last whole pass."""
        self.is_refused = False
        """Whether the kernel refused some of what is wanted for the node when that was last tried."""

    def whole(self) -> bool:
        """Everything of ours on the host, and the links of all pods. False: not all of it could be looked at."""
        around = self._survey.now
        if around is None:
            return True
        parts = scoped(around.wired.plan)
        if self._is_before_there and around.wired.plan is not self._before:
            # What we want has changed, by one peer of thousands perhaps: that needs no look at the kernel first, if all
            # that was wanted before is there. Whatever of it fails is seen, and told, below.
            self._apply(diff(self._before, around.wired.plan), parts)
        self.diary.begin()
        records = self._node.ledger.records()
        have, want = self._look(parts)
        self._cover(have)
        lost: set[Key] = set()
        for _ in range(ROUNDS):
            differences = diff(of_node(have), want)
            changes = self._allowed(differences, lost)
            if not changes:
                break
            lost |= self._apply(changes, parts)
            have, want = self._look(parts)
        is_seen = not self.diary.has_failed(str(OnHost()))
        self._before, self._is_before_there = around.wired.plan, is_seen and not differences
        if is_seen:
            self.routes = sum(key.kind == "route" for key in have)
            self._pods.among(have, records)
        # What is neither wanted nor there any more is of nodes that are gone.
        self._refused = {key: why for key, why in self._refused.items() if key in have or key in self._before}
        self.is_refused = not self._refused.keys().isdisjoint(around.wired.plan)
        self.diary.stray(strays(records.values(), around.site, around.peers))
        self._tell_fights()
        self.diary.end()
        return is_seen

    def quick(self) -> None:
        """What changes without an event: settings, and the pods' links."""
        around = self._survey.now
        if around is None:
            return
        parts = [(scope, part) for scope, part in scoped(around.wired.plan) if isinstance(scope, Settings | Filter)]
        looked = {str(scope) for scope, _ in parts}
        failing = self.diary.failing.items()
        self.diary.begin({what: why for what, why in failing if not what.startswith(OF_POD) and what not in looked})
        have, want = self._look(parts)
        changes = self._allowed(change for change in diff(have, want) if not _lacks_its_link(change))
        if changes:
            self._apply(changes, parts)
        self._pods.each()
        self.diary.end()

    # --- the node's own part ----------------------------------------------------------------------------------

    def _look(self, parts: Iterable[Scoped]) -> tuple[dict[Key, Item], dict[Key, Item]]:
        """What there is, and what there should be: less what cannot be looked at, which is told, and keeps nothing else
        from being put right."""
        have: dict[Key, Item] = {}
        want: dict[Key, Item] = {}
        for scope, part in parts:
            try:
                have |= self._dataplane.observe([scope])
            except Failure as failure:
                self.diary.fail(str(scope), failure)
            else:
                want |= part
        return have, want

    def _apply(self, changes: Sequence[Change], where: Sequence[Scoped]) -> set[Key]:
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
                self.diary.fail(str(change.item), failure)
                self._give_way(change, failure)
                return False
            return True

        made, before = changes, list[Change]()
        try:
            self._dataplane.apply(changes)
        except Failure:
            # One that is refused must not keep the others from being made, of which some are by now.
            have, want = self._look(where)
            before = [change for change in changes if not _is_open(change, have, want)]
            made = standing([change for change in changes if _is_open(change, have, want)], is_made)
        for change in made:
            self._refused.pop(change.item.key, None)
        for change in (change for change in [*made, *before] if self._is_drift(change)):
            self._limiter.made(change.item.key, self._clock())
        self.diary.mended("mended", [change for change in made if self._is_drift(change)])
        return refused

    def _give_way(self, change: Change, failure: Failure) -> None:
        """An id that another program has is its own: the next look at what is around chooses another."""
        is_taken = isinstance(failure, KernelRefused) and failure.errno == errno.EEXIST
        if is_taken and isinstance(change.new, Nexthop):
            self._survey.avoid(change.new.id)

    def _is_drift(self, change: Change) -> bool:
        """Whether somebody else brought the difference about, and not a change of what we want."""
        return bool(self._before) and self._before.get(change.item.key) == change.new

    def _allowed(self, changes: Iterable[Change], lost: Collection[Key] = ()) -> list[Change]:
        """Those that may be made now, and are not *lost* anyway."""
        return standing(changes, lambda change: change.item.key not in lost and self._is_allowed(change))

    def _is_allowed(self, change: Change) -> bool:
        return not self._is_drift(change) or self._limiter.allow(change.item.key, self._clock())

    def _tell_fights(self) -> None:
        for key in self._limiter.fought_over(self._clock()):
            if isinstance(key, Key):  # those of pods are told by the pass over them
                what = f"{key.kind} {key.name}"
                self.diary.fail(what, self._refused.get(key) or fought(what))

    def _cover(self, have: Plan) -> None:
        """Put pods' links that are in no link group of ours, as older agents made them, into it: before anything else,
        since the node's nft table goes by it."""
        links = [item for item in have.values() if isinstance(item, Veth) and not is_group(item.group)]
        if links:
            covered = [replace(link, group=POD_GROUP) for link in links]
            changes = [Change(old, new) for old, new in zip(links, covered, strict=True)]
            self._apply(changes, [(OnHost(), plan(*covered))])


def _is_open(change: Change, have: Plan, want: Plan) -> bool:
    """Whether a change is still to be made; one of what cannot be looked at is not."""
    key = change.item.key
    return have.get(key) != change.new and (change.new is None or key in want)


def _lacks_its_link(change: Change) -> bool:
    """Whether it is a setting of a link that is not there, or has none such: the whole pass makes it with the link. A
    try each second would use up what an object may be mended, and keep the setting from the link when that comes."""
    return change.old is None and isinstance(change.new, Sysctl) and bool(change.new.link)
