"""Operations: what a change is from the moment it was accepted."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

from netaddr import IPNetwork

from tests.gcp import unverified
from tests.gcp.estate import Alias, Estate, Instance, InUse
from tests.gcp.ranges import Exhausted

PATIENCE = 120.0
"""Seconds that zoneOperations.wait waits at most (API reference)."""
Wanted = Sequence[tuple[int | IPNetwork, str]]
"""Ranges of an interface: which, or of which length; and of which range of the subnet."""


@dataclass(frozen=True, slots=True)
class Failed:
    """What is in an operation's `error`."""

    code: str
    message: str
    status: int = 400


@dataclass(slots=True)
class Operation:
    """It is RUNNING when it *starts*, and over when it is *done*; *wanted* is None if nothing was to change."""

    name: str
    id: int
    instance: str
    instance_id: int
    who: str
    request: str
    inserted: float
    starts: float
    done: float
    fingerprint: str
    wanted: Wanted | None
    error: Failed | None = field(default=None)

    def status(self, now: float) -> str:
        """Then."""
        if now >= self.done:
            return "DONE"
        return "RUNNING" if now >= self.starts else "PENDING"


class Operations:
    """Those of *estate*. What a test may set: *pending* and *running*, seconds beside what is drawn; *retention*, how
    long one that is over is known."""

    def __init__(self, estate: Estate) -> None:
        self._estate = estate
        self.pending = self.running = 0.0
        self.retention = 14 * 86_400.0
        self.by_name: dict[str, Operation] = {}
        self.by_request: dict[tuple[str, str], Operation] = {}
        self._ends: list[float] = []
        self._last: dict[str, Operation] = {}
        self._seen_at: dict[str, float] = {}

    def under_way(self) -> int:
        """How many are."""
        while self._ends and self._ends[0] <= self._estate.clock():
            heapq.heappop(self._ends)
        return len(self._ends)

    def is_busy(self, instance: str) -> bool:
        """Whether one is under way on that instance."""
        last = self._last.get(instance)
        return last is not None and last.done > self._estate.clock()

    def begin(
        self, instance: Instance, fingerprint: str, wanted: Wanted | None, changes: int, request: str
    ) -> Operation:
        """One that makes the interface's ranges these: so many come or go."""
        estate, unkind = self._estate, self._estate.unkind
        now = estate.clock()
        starts = now + self.pending + estate.drawn(unkind.pending)
        lasts = self.running + estate.drawn(unkind.running) + unkind.each_range * changes
        number = estate.id()
        one = Operation(
            name=f"operation-{number:x}",
            id=number,
            instance=instance.name,
            instance_id=instance.id,
            who=estate.doing[0],
            request=request,
            inserted=now,
            starts=starts,
            done=starts + lasts,
            fingerprint=fingerprint,
            wanted=wanted,
        )
        self.by_name[one.name] = one
        heapq.heappush(self._ends, one.done)
        if not self.is_busy(instance.name):
            self._last[instance.name] = one
        self._seen_at[one.name] = now + estate.drawn(unkind.operation_unseen)
        if request:
            self.by_request[instance.name, request] = one
        takes_effect = starts + lasts * (estate.chance() if unkind.running[1] else 1.0)
        estate.at(takes_effect, lambda when: self._run(one, when))
        return one

    def get(self, name: str) -> Operation | None:
        """By name, or by number; None: there is none, or it is not seen yet, or was forgotten."""
        now = self._estate.clock()
        found = self.by_name.get(name) or next((one for one in self.by_name.values() if str(one.id) == name), None)
        if found is None or self._seen_at[found.name] > now or found.done + self.retention < now:
            return None
        return found

    def blocks(self, one: Operation) -> float:
        """How many seconds zoneOperations.wait waits for it."""
        left = max(0.0, min(PATIENCE, one.done - self._estate.clock()))
        early = self._estate.unkind.wait_early
        return left * self._estate.chance() if early and self._estate.chance() < early else left

    def _run(self, one: Operation, when: float) -> None:
        estate, unkind = self._estate, self._estate.unkind
        instance = estate.instances.get(one.instance)
        if instance is None or instance.id != one.instance_id:
            one.error = Failed("RESOURCE_NOT_FOUND", f"The resource '{one.instance}' was not found", 404)
        elif estate.view(instance).fingerprint != one.fingerprint:
            code, status = unverified.STALE_INSIDE
            one.error = Failed(code, "Supplied fingerprint does not match current fingerprint.", status)
        elif unkind.failing_inside and estate.chance() < unkind.failing_inside:
            one.error = _internal()
        elif one.wanted is not None:
            with estate.by(one.who, "instances.updateNetworkInterface"):
                one.error = self._change(instance, one.wanted, when)
        if one.error is None and unkind.failing_done and estate.chance() < unkind.failing_done:
            one.error = _internal()

    def _change(self, instance: Instance, wanted: Wanted, when: float) -> Failed | None:
        estate, nic = self._estate, instance.nic
        held = {(one.network, one.name): one for one in nic.aliases}
        kept = [held[each] for each in wanted if each in held]
        others = sum(len(one.nic.aliases) for one in estate.instances.values()) - len(nic.aliases)
        if estate.most_aliases is not None and len(wanted) > len(kept) and others + len(wanted) > estate.most_aliases:
            return over_quota(estate.most_aliases)
        try:
            new = iter(estate.taken(nic.subnetwork, [each for each in wanted if each not in held]))
        except InUse as error:
            return Failed(
                "IP_IN_USE_BY_ANOTHER_RESOURCE", f"IP '{error.args[0]}' is already being used by another resource."
            )
        except Exhausted as error:
            return self._exhausted(instance, error.args[0])
        keeping = iter(kept)
        aliases: list[Alias] = [next(keeping) if each in held else next(new) for each in wanted]
        estate.change(instance, aliases, when)
        return None

    def _exhausted(self, instance: Instance, name: str) -> Failed:
        subnetwork = instance.nic.subnetwork
        space = f"projects/{self._estate.project}/regions/europe-west1/subnetworks/{subnetwork.name}"
        text = f"IP space of '{space}{f'-{name}-24fa1b6b' if name else ''}' is exhausted."
        if not self._estate.unkind.with_details:
            return Failed("IP_SPACE_EXHAUSTED", text)
        more = f" Insufficient free IP addresses in the IP range '{subnetwork.range(name).cidr}'."
        return Failed("IP_SPACE_EXHAUSTED_WITH_DETAILS", text + more)


def over_quota(most: int) -> Failed:
    """More ranges than the network may have ("Quotas and limits", VPC: "When per-network limits are exceeded, you see
    QUOTA_EXCEEDED errors with the internal quota names"; the words are those of other quotas)."""
    return Failed("QUOTA_EXCEEDED", f"Quota 'ALIASES_PER_NETWORK_GLOBAL' exceeded.  Limit: {most}.0 globally.", 403)


def _internal() -> Failed:
    return Failed("INTERNAL_ERROR", "Internal error. Please try again or contact Google Support.", 500)
