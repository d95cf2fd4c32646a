"""The pods' links: each as it should be, one by one, and those of no pod gone.

What always holds: a pod that cannot be put right, be it by a bug, keeps no other from it, and who waits for an answer
comes before all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final

from agent.keep.diary import Diary
from agent.keep.limiter import Limiter, fought
from agent.keep.scopes import by_pod_link
from agent.node.node import Node
from backends.podlink import link_name, parse_alias
from backends.wiring import Wiring
from cni.errors import Failure, bug
from cni.spec import Attachment
from dataplane.diff import Change, diff, render
from dataplane.items import HOST, POD_GROUP, Key, Plan
from dataplane.links import Veth
from dataplane.observe import Strangers
from dataplane.seam import Dataplane
from ipam.store import Record

log = logging.getLogger(__name__)

COURTESY: Final = 0.5
"""Seconds for which a pass over the pods gives way to requests, all in all: a pod is looked at every other second."""
MOMENT: Final = 0.005
"""Seconds."""
OF_POD: Final = "pod "
"""What the names of pods begin with among what could not be put right."""


class PodLinks:
    """One thread calls. *limiter* is the whole repair's: it counts here by pod and object."""

    def __init__(
        self,
        node: Node,
        dataplane: Dataplane,
        diary: Diary,
        limiter: Limiter,
        clock: Callable[[], float],
        pause: Callable[[float], object],
    ) -> None:
        self._node = node
        self._dataplane = dataplane
        self._diary = diary
        self._limiter = limiter
        self._clock = clock
        self._pause = pause
        self._followed: Wiring | None = None
        """How the node wired when all pods were last looked at."""
        self._told: dict[Attachment, Wiring] = {}
        """How it wired when a pod's own routes were last told."""

    def each(self) -> None:
        """Look at every pod, and mend it."""
        wiring = self._node.wiring
        records = self._node.ledger.records()
        self._told = {who: told for who, told in self._told.items() if who in records}
        spare = COURTESY
        for who, record in records.items():
            while spare > 0 and self._node.is_busy:  # who waits for an answer comes first
                self._pause(MOMENT)
                spare -= MOMENT
            self._mend(who, record.called)
        self._followed = wiring

    def among(self, have: Plan, records: Mapping[Attachment, Record]) -> None:
        """Mend those that differ in *have*, what there is on the host, and remove those that belong to no lease."""
        parts = by_pod_link(have)
        wiring = self._node.wiring
        if wiring is None:
            return
        for who, record in records.items():
            want = {key: item for key, item in wiring.pod(record).items() if key.place == HOST}
            if parts.pop(link_name(who), {}) != want:
                self._mend(who, record.called)
        for name, part in parts.items():
            self._drop(name, part)
        self._tell_strangers()

    def _tell_strangers(self) -> None:
        try:
            strangers = self._dataplane.observe([Strangers()])
        except Failure as failure:
            self._diary.fail(str(Strangers()), failure)
            return
        for key in strangers:
            self._diary.fail(f"link {key.name}", _nobodys(key.name))

    def _mend(self, who: Attachment, called: str) -> None:
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
            self._diary.fail(f"{OF_POD}{called}", failure)
            return
        except Exception as error:
            # A bug, too, stays with the pod that brings it out: each start would meet it again and end.
            if f"{OF_POD}{called}" not in self._diary.failing:
                log.exception("a bug")
            self._diary.fail(f"{OF_POD}{called}", bug(error))
            return
        for change in changes if is_drift and changes else ():
            self._limiter.made((who, change.item.key), self._clock())
        if withheld:
            what = f"{OF_POD}{called}"
            self._diary.fail(what, self._diary.failing.get(what) or fought(f"{withheld[0].kind} {withheld[0].name}"))
        if changes is not None and wiring is not None:
            self._told[who] = wiring
        if is_drift:
            self._diary.mended(f"mended {called}", changes or ())
        elif changes:
            log.info("wired a pod anew", extra={"attachment": str(who), "pod": called, "difference": render(changes)})

    def _drop(self, name: str, part: Plan) -> None:
        """A link of ours that belongs to no lease."""
        veth = part.get(Key(HOST, "link", name))
        if not isinstance(veth, Veth):
            return
        named = parse_alias(veth.alias)
        if named is None or link_name(named.who) != name:
            if name not in map(link_name, self._node.ledger.records()):  # not one that is just being made
                self._diary.fail(f"link {name}", _unnamed(name))
            return
        try:
            if not self._node.drop_link(named.who):
                return
        except Failure as failure:
            self._diary.fail(f"link {name}", failure)
            return
        self._diary.mended("removed what belongs to no lease", diff(part, {}))


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
