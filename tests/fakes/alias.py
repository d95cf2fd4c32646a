"""A small VPC with one subnet, behind the seam of ``gcp-alias``: what the API does to one interface's alias ranges.

It is strict where the fabric relies on it: fingerprints, request ids, overlaps, limits, operations that take a while.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from netaddr import IPAddress, IPNetwork

from backends.cloud.failures import CloudError, Lost, Refused
from backends.cloud.steps import Call, Look, Steps
from backends.gcp.calls import GET, OPERATION, SUBNET, UPDATE, failed
from backends.gcp.fabric import AliasFabric
from backends.gcp.model import NIC, Seen
from backends.gcp.options import AliasOptions
from cluster.peers import Source
from tests.fakes.living import Clock, Living

SUBNET_URL = "https://compute.googleapis.com/compute/v1/projects/host/regions/europe-west1/subnetworks/nodes"


@dataclass(slots=True)
class Nic:
    """An interface as it truly is: its ranges, in the order of the list."""

    ranges: list[tuple[IPNetwork, str]] = field(default_factory=list)
    generation: int = 0
    stale_until: float = 0.0
    before: tuple[str, list[tuple[IPNetwork, str]]] = ("", [])

    @property
    def fingerprint(self) -> str:
        """Of the content alone, as the API's."""
        return "/".join(sorted(f"{cidr}@{name}" for cidr, name in self.ranges)) or "none"


@dataclass(slots=True)
class Operation:
    name: str
    due: float
    act: Callable[[], tuple[str, str]]
    error: tuple[str, str] = ("", "")
    is_done: bool = False


class Vpc:
    """*clock* answers seconds. What a test may set: *most* ranges per interface, *delay* (seconds of an operation),
    *lag* (seconds for which the metadata, and *stale*, for which answers, show what was), *refusals* (action to the
    errors that its next calls get)."""

    def __init__(self, clock: Clock, cidr: str = "10.4.0.0/20", name: str = "pods") -> None:
        self.clock = clock
        self.cidr, self.name = IPNetwork(cidr), name
        self.most, self.delay, self.lag, self.stale = 150, 3.0, 2.0, 0.0
        self.nics: dict[str, Nic] = {}
        self.calls: Counter[str] = Counter()
        self.refusals: dict[str, list[CloudError]] = {}
        self.lose_answers: set[str] = set()
        """Actions whose next answer is lost after they were done."""
        self.requests: dict[str, Operation] = {}
        self.operations: dict[str, Operation] = {}
        self.lost: list[tuple[float, str, IPNetwork]] = []
        """Every range that left an interface, and when."""
        self.shown: dict[str, list[tuple[float, frozenset[IPNetwork]]]] = {}
        self._numbers = itertools.count(1)

    # --- what a test does ---------------------------------------------------------------------------------------

    def run_instance(self, ranges: tuple[tuple[str, str], ...] = ()) -> str:
        """A new machine."""
        name = f"node-{next(self._numbers)}"
        self.nics[name] = Nic([(IPNetwork(cidr), of) for cidr, of in ranges])
        self._note(name)
        return name

    def replace(self, instance: str, ranges: list[tuple[IPNetwork, str]]) -> None:
        """The list is that from now on, whoever wants it."""
        nic = self.nics[instance]
        nic.before = nic.fingerprint, list(nic.ranges)
        nic.stale_until = self.clock() + self.stale
        gone = {cidr for cidr, _ in nic.ranges} - {cidr for cidr, _ in ranges}
        self.lost += [(self.clock(), instance, cidr) for cidr in gone]
        nic.ranges = list(ranges)
        self._note(instance)

    def take(self, instance: str, block: IPNetwork) -> None:
        """Somebody takes a range away by hand."""
        self.replace(instance, [one for one in self.nics[instance].ranges if one[0] != block])

    def blocks(self, instance: str) -> set[IPNetwork]:
        """Its ranges."""
        return {cidr for cidr, _ in self.truth(instance)}

    def truth(self, instance: str) -> list[tuple[IPNetwork, str]]:
        """Its ranges, and what they are of, after what is due."""
        self._settle()
        return self.nics[instance].ranges

    # --- the API ------------------------------------------------------------------------------------------------

    def call(self, action: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """What the API answers. CloudError: it does not."""
        self.calls[action] += 1
        self._settle()
        if self.refusals.get(action):
            raise self.refusals[action].pop(0)
        answer = {GET: self._get, UPDATE: self._update, OPERATION: self._operation, SUBNET: self._subnet}[action](
            parameters
        )
        if action in self.lose_answers:
            self.lose_answers.discard(action)
            raise Lost(action, "ReadTimeout", "no answer")
        return answer

    def seen(self, instance: str) -> Seen:
        """The metadata."""
        self._settle()
        old = [blocks for when, blocks in self.shown[instance] if when + self.lag <= self.clock()]
        blocks = old[-1] if old else self.shown[instance][0][1]
        number = int(instance.removeprefix("node-"))
        where = (str(1_000 + number), instance, "project", "europe-west1-b")
        address = IPAddress(f"10.0.{number >> 8}.{number & 255}")
        return Seen(*where, address, f"42:01:{number:08x}"[:17], 1460, IPNetwork("10.0.0.0/16"), blocks)

    def _get(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        nic = self.nics[asked["instance"]]
        is_old = self.clock() < nic.stale_until
        fingerprint, ranges = nic.before if is_old else (nic.fingerprint, nic.ranges)
        shown = [{"ipCidrRange": str(cidr), "subnetworkRangeName": name} for cidr, name in ranges]
        found = {"name": NIC, "fingerprint": fingerprint, "subnetwork": SUBNET_URL, "aliasIpRanges": shown}
        return {"name": asked["instance"], "networkInterfaces": [found]}

    def _update(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        instance, wanted = asked["instance"], asked["network_interface_resource"]
        if asked["request_id"] not in self.requests:
            if wanted["fingerprint"] != self.nics[instance].fingerprint:
                raise Refused(UPDATE, "conditionNotMet", "the fingerprint does not match")
            assert wanted["aliasIpRanges"], "an empty list is never sent"

            def act() -> tuple[str, str]:
                if wanted["fingerprint"] != self.nics[instance].fingerprint:
                    return "CONDITION_NOT_MET", "the fingerprint does not match"
                return self._replaced(instance, wanted["aliasIpRanges"])

            one = Operation(f"operation-{next(self._numbers)}", self.clock() + self.delay, act)
            self.requests[asked["request_id"]] = self.operations[one.name] = one
        return {"name": self.requests[asked["request_id"]].name, "status": "PENDING"}

    def _operation(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        one = self.operations[asked["operation"]]
        status = {"name": one.name, "status": "DONE" if one.is_done else "RUNNING"}
        code, message = one.error
        return status | ({"error": {"errors": [{"code": code, "message": message}]}} if code else {})

    def _subnet(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        used = sum(cidr.size for nic in self.nics.values() for cidr, name in nic.ranges if name == self.name)
        free = [{"rangeName": self.name, "totalFreeIp": str(self.cidr.size - used)}]
        ranges = [{"rangeName": self.name, "ipCidrRange": str(self.cidr)}]
        utilization = {"ipv4Utilizations": free}
        return {"ipCidrRange": "10.0.0.0/16", "secondaryIpRanges": ranges, "utilizationDetails": utilization}

    def _replaced(self, instance: str, wanted: list[dict[str, str]]) -> tuple[str, str]:
        have = self.nics[instance].ranges
        taken = [cidr for nic in self.nics.values() for cidr, _ in nic.ranges]
        ranges = []
        for one in wanted:
            cidr, name = one["ipCidrRange"], one.get("subnetworkRangeName", "")
            if cidr.startswith("/"):
                found = self._free(int(cidr[1:]), taken)
                if found is None:
                    return "IP_SPACE_EXHAUSTED", f"IP space of {self.name} is exhausted"
                taken.append(found)
                ranges.append((found, name))
            else:
                assert (IPNetwork(cidr), name) in have, f"{cidr} was not there"
                ranges.append((IPNetwork(cidr), name))
        if len(ranges) > self.most:
            return "LIMIT_EXCEEDED", f"more than {self.most} ranges"
        self.replace(instance, ranges)
        return "", ""

    def _free(self, length: int, taken: list[IPNetwork]) -> IPNetwork | None:
        number, size = int(self.cidr.first), 1 << 32 - length
        spans = sorted((int(one.first), int(one.last)) for one in taken)
        for first, last in spans:
            if number + size <= first:
                break
            number = max(number, -(-(last + 1) // size) * size)
        return IPNetwork(f"{IPAddress(number)}/{length}") if number + size - 1 <= int(self.cidr.last) else None

    def _settle(self) -> None:
        for one in self.operations.values():
            if not one.is_done and self.clock() >= one.due:
                one.is_done = True
                one.error = one.act()

    def _note(self, instance: str) -> None:
        blocks = frozenset(cidr for cidr, _ in self.nics[instance].ranges)
        self.shown.setdefault(instance, []).append((self.clock(), blocks))


class AliasNode(Living):
    """A machine of *vpc* with an agent's fabric on it."""

    def __init__(
        self, vpc: Vpc, clock: Clock, instance: str, options: AliasOptions | None = None, seed: int = 0
    ) -> None:
        self.vpc = vpc
        self.options = options or AliasOptions(range=vpc.name)
        super().__init__(clock, instance, seed)

    def made(self) -> tuple[Source, Steps[None]]:
        self.fabric = AliasFabric(
            node=self.instance,
            options=self.options,
            journal=self.journal,
            usage=self,
            devices=lambda: {self.vpc.seen(self.instance).mac: "eth0"},
            clock=self.clock,
            random=self._random.random,
            token=lambda: f"{self._random.getrandbits(128):032x}",
        )
        return self.fabric, self.fabric.life()

    def offered(self) -> None:
        self.allocator.offer(self.fabric.supplied(self.here).blocks)

    def perform(self, step: Call | Look) -> Any:
        if isinstance(step, Look):
            return self.vpc.seen(self.instance)
        self.blows.strike(is_after=False)
        try:
            return self.vpc.call(step.action, step.parameters)
        finally:
            self.blows.strike(is_after=True)

    # --- what must hold ---------------------------------------------------------------------------------------

    def unserved(self) -> set[Any]:
        """Pods' addresses that the VPC does not deliver to this machine."""
        blocks = self.vpc.blocks(self.instance)
        return {one for one in self.addresses() if not any(one in block for block in blocks)}

    def differences(self) -> list[str]:
        """Between what the VPC has and what the agent knows; nothing, once all is at rest."""
        found = [f"undelivered: {one}" for one in self.fabric.report().undelivered]
        truth, known = self.vpc.blocks(self.instance), set(self.fabric.holding.ranges)
        found += [f"{one} is not known" for one in sorted(truth - known)]
        return [*found, *(f"{one} is not there" for one in sorted(known - truth))]


__all__ = ["AliasNode", "Clock", "Vpc", "failed"]
