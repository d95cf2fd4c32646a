"""A model of EC2, as far as interfaces and their addresses go: strict, in memory, on a clock of the caller's.

``Region.call`` takes and answers what boto3 does. Behaviour and error codes are those of the EC2 API reference and of
the quotas that AWS publishes; where these are silent, the stricter reading was taken. How unfriendly it is beyond
that is said by `Unkind`.
"""

from __future__ import annotations

import copy
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from netaddr import IPNetwork

from tests.cloud import assigning, interfaces
from tests.cloud.addresses import Addresses
from tests.cloud.describing import Describing
from tests.cloud.refusals import NoAnswer, Refusal
from tests.cloud.shapes import TYPES
from tests.cloud.shown import Row, Shown
from tests.cloud.unkind import KIND, Unkind
from tests.cloud.world import Instance, Nic, Subnet, World

Parameters = dict[str, Any]

BUCKETS: Mapping[str, tuple[float, float]] = {
    "Describe": (100, 20),
    "AttachNetworkInterface": (50, 5),
    "DetachNetworkInterface": (50, 5),
    "CreateTags": (100, 10),
    "": (100, 5),
}
"""Capacity and refill per second, by the longest beginning of an action's name."""


@dataclass(slots=True)
class Fault:
    """The *nth* call of *action* from now ('*': of any) fails: *kind* throttle, error500, error503, lost_before or
    lost_after."""

    action: str
    nth: int
    kind: str
    is_consumed: bool = False


class Region(World):
    """*clock* answers seconds. What a test may set beside the world's: *staleness* (seconds that answers lag),
    *authorize*, *has_buckets*. *lag* is the metadata's (seconds)."""

    def __init__(self, clock: Callable[[], float], unkind: Unkind = KIND) -> None:
        super().__init__(clock, unkind)
        self._lock = threading.RLock()
        self.staleness = self.lag = 0.0
        self.authorize: Callable[[str, Mapping[str, Any]], bool] = lambda action, parameters: True
        """Whether a call is allowed."""
        self.has_buckets = True
        self.faults: list[Fault] = []
        self.on_call: Callable[[bool], None] = lambda is_after: None
        """Called before each call is done, and after; it may raise NoAnswer."""
        self.calls: Counter[tuple[str, str]] = Counter()
        """By action and error code, '' for success."""
        self._buckets: dict[str, tuple[float, float]] = {}
        self._shown = Shown(self, lambda: max(self.staleness + self.unkind.describe_lag[1], self.lag))
        self._describing = Describing(self, self._shown, lambda: self.staleness + self.drawn(self.unkind.describe_lag))
        self._actions = {**self._describing.actions, **interfaces.ACTIONS, **assigning.ACTIONS}

    # --- the test's side --------------------------------------------------------------------------------------

    def add_vpc(self, *cidrs: str) -> str:
        vpc = self.name("vpc")
        self.vpcs[vpc] = [IPNetwork(one) for one in cidrs]
        return vpc

    def add_subnet(
        self, vpc: str, cidr: str, cidr6: str = "", tags: Mapping[str, str] | None = None, zone: str = "eu-west-1a"
    ) -> str:
        name, addresses = self.name("subnet"), Addresses(IPNetwork(cidr))
        addresses.is_last_first = self.unkind.last_first
        six = IPNetwork(cidr6) if cidr6 else None
        self.subnets[name] = Subnet(name, vpc, zone, addresses, six, dict(tags or {}))
        return name

    def add_group(self, vpc: str, tags: Mapping[str, str]) -> str:
        """A security group."""
        name = self.name("sg")
        rows = [{"Key": key, "Value": value} for key, value in tags.items()]
        self._describing.groups.append({"GroupId": name, "VpcId": vpc, "Tags": rows})
        return name

    def add_nic(self, subnet: str, tags: Mapping[str, str]) -> str:
        """An interface that is attached nowhere."""
        nic = self.make(self.subnets[subnet], ["sg-1"], "", dict(tags))
        self.on_change(nic, None)
        return nic.id

    def run_instance(
        self, type_: str, subnet: str, groups: Iterable[str] = ("sg-1",), tags: Mapping[str, str] | None = None
    ) -> str:
        """A new instance with its primary interface, both with *tags*."""
        instance = Instance(self.name("i"), type_, self.subnets[subnet], tags=dict(tags or {}))
        self.instances[instance.id] = instance
        nic = self.make(instance.subnet, list(groups), "", dict(instance.tags))
        held = self.attach(nic, instance, (0, 0), goes=True)
        held.since = held.ready = self.clock() - 3600
        self.on_change(nic, held.since)
        return instance.id

    def terminate(self, instance: str) -> None:
        """It ends; interfaces that do not go with it are left behind."""
        one = self.instances[instance]
        one.state = "terminated"
        for nic in self.held(instance):
            assert nic.attachment is not None
            goes, nic.attachment = nic.attachment.goes, None
            if goes:
                self.remove(nic)
            else:
                self.on_change(nic, None)
        one.nics.clear()

    def fail(self, action: str, nth: int, kind: str) -> Fault:
        """Have a call fail; see `Fault`."""
        fault = Fault(action, nth, kind)
        self.faults.append(fault)
        return fault

    def attached(self, instance: str) -> list[Nic]:
        """The interfaces whose devices the instance has now."""
        with self._lock:
            return super().attached(instance)

    def seen(self, instance: str) -> list[Row]:
        """What the instance's metadata knows of its interfaces."""
        with self._lock:
            names = self._shown.names() if self.lag else [nic.id for nic in self.instances[instance].nics]
            shown = (self._shown.as_of(name, self.lag) for name in names)
            return [one for one in shown if one is not None and one.get("Attachment", {}).get("InstanceId") == instance]

    # --- the API ----------------------------------------------------------------------------------------------

    def call(self, action: str, parameters: Mapping[str, Any], who: str = "an agent") -> dict[str, Any]:
        """One call of *who*'s. Refusal: an error of the API; NoAnswer: by a fault, and it may have been done.

        Any thread may.
        """
        with self._lock, self.by(who, action):
            return self._called(action, parameters)

    def _called(self, action: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        fault = self._fault(action)
        try:
            self.on_call(False)
            if fault == "lost_before":
                raise NoAnswer
            if fault in ("throttle", "error500", "error503"):
                raise _INJECTED[fault]
            answer = self._answered(action, copy.deepcopy(dict(parameters)))
        except Refusal as error:
            self.calls[action, error.code] += 1
            raise
        except NoAnswer:
            self.calls[action, "lost"] += 1
            raise
        self.calls[action, ""] += 1
        self.on_call(True)
        if fault == "lost_after":
            raise NoAnswer
        return answer

    def _answered(self, action: str, parameters: Parameters) -> dict[str, Any]:
        if self.has_buckets:
            self._spend(action)
        if not self.authorize(action, parameters):
            raise Refusal("UnauthorizedOperation", "You are not authorized to perform this operation.", 403)
        handler = self._actions.get(action)
        if handler is None:
            raise Refusal("InvalidAction", f"The action {action} is not valid for this web service.")
        answer = handler(self, parameters)
        if parameters:  # each handler takes out what it knows
            raise Refusal("UnknownParameter", f"unknown parameters: {', '.join(sorted(parameters))}")
        return answer

    def _fault(self, action: str) -> str:
        found = ""
        for fault in self.faults:
            if not fault.is_consumed and fault.action in ("*", action):
                fault.nth -= 1
                if fault.nth <= 0:
                    fault.is_consumed = True
                    found = fault.kind
        return found

    def _spend(self, action: str) -> None:
        capacity, refill = max(
            ((len(prefix), one) for prefix, one in BUCKETS.items() if action.startswith(prefix)), key=lambda two: two[0]
        )[1]
        tokens, since = self._buckets.get(action, (capacity, self.clock()))
        tokens = min(capacity, tokens + (self.clock() - since) * refill)
        if tokens < 1:
            self._buckets[action] = tokens, self.clock()
            raise _INJECTED["throttle"]
        self._buckets[action] = tokens - 1, self.clock()


_INJECTED = {
    "throttle": Refusal("RequestLimitExceeded", "Request limit exceeded.", 503),
    "error500": Refusal("InternalError", "An internal error has occurred", 500),
    "error503": Refusal("Unavailable", "The service is unavailable. Please try again shortly.", 503),
}

__all__ = ["BUCKETS", "TYPES", "Nic", "NoAnswer", "Refusal", "Region", "Unkind"]
