"""A model of EC2, as far as interfaces and their addresses go: strict, in memory, on a clock of the caller's.

``Region.call`` takes and answers what boto3 does. Behaviour and error codes are those of the EC2 API reference and of
the quotas that AWS publishes; where these are silent, the stricter reading was taken. How unfriendly it is beyond
that is said by `Unkind`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from netaddr import IPNetwork

from tests.cloud import assigning, interfaces
from tests.cloud.addresses import Addresses
from tests.cloud.answering import Answering, Parameters
from tests.cloud.describing import Describing
from tests.cloud.fate import Within
from tests.cloud.faults import ERRORS, SERVER, Fault, Kinds, kinds
from tests.cloud.refusals import NoAnswer, Refusal
from tests.cloud.shapes import TYPES
from tests.cloud.shown import Row, Shown
from tests.cloud.throttling import BUCKETS, Buckets
from tests.cloud.unkind import KIND, Unkind
from tests.cloud.world import Instance, Nic, Subnet, World


class Region(World, Answering[Unkind]):
    """*clock* answers seconds. What a test may set beside the world's: *staleness* (seconds that answers lag),
    *authorize*, *has_buckets*. *lag* is the metadata's (seconds)."""

    def __init__(self, clock: Callable[[], float], unkind: Unkind = KIND) -> None:
        super().__init__(clock, unkind)
        self.staleness = self.lag = 0.0
        self.authorize: Callable[[str, Mapping[str, Any]], bool] = lambda action, parameters: True
        """Whether a call is allowed."""
        self.has_buckets = True
        self.denied: list[tuple[str, str]] = []
        """Actions and patterns of the resources that they are not allowed for: any value of a call's parameters, or
        its action alone with '*'."""
        self.most_interfaces = 1_000_000
        """The quota "Network interfaces per Region"."""
        self._buckets = Buckets(self)
        self.frozen: dict[str, list[Row]] = {}
        """Metadata that does not change any more, by instance."""
        self._shown = Shown(self, self._kept)
        self._describing = Describing(self, self._shown, lambda: self.staleness + self.drawn(self.unkind.describe_lag))
        self._actions = {**self._describing.actions, **interfaces.ACTIONS, **assigning.ACTIONS}

    def _kept(self) -> float:
        return max(self.staleness + self.unkind.describe_lag[1], self.lag + self.unkind.metadata_lag[1])

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

    def add_cidr(self, vpc: str, cidr: str) -> None:
        """The VPC has one more from now on."""
        self.vpcs[vpc].append(IPNetwork(cidr))

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
        self,
        type_: str,
        subnet: str,
        groups: Iterable[str] = ("sg-1",),
        tags: Mapping[str, str] | None = None,
        wanted: tuple[int, int] = (0, 0),
    ) -> str:
        """A new instance with its primary interface, both with *tags*; *wanted* are the addresses and prefixes that it
        has from the start (API Reference, RunInstances: InstanceNetworkInterfaceSpecification, Ipv4PrefixCount)."""
        instance = Instance(self.name("i"), type_, self.subnets[subnet], tags=dict(tags or {}))
        self.instances[instance.id] = instance
        nic = self.make(instance.subnet, list(groups), "", dict(instance.tags))
        held = self.attach(nic, instance, (0, 0), goes=True)
        held.since = held.ready = self.clock() - 3600
        assigning.assign(self, nic, wanted, instance.shape.addresses)
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

    def attached(self, instance: str) -> list[Nic]:
        """The interfaces whose devices the instance has now."""
        with self._lock:
            return super().attached(instance)

    def seen(self, instance: str) -> list[Row]:
        """What the instance's metadata knows of its interfaces."""
        with self._lock:
            if instance in self.frozen:
                return self.frozen[instance]
            lag = self.lag or self.unkind.metadata_lag[1]
            names = self._shown.names() if lag else [nic.id for nic in self.instances[instance].nics]
            shown = (self._shown.as_of(name, self.lag + self.drawn(self.unkind.metadata_lag)) for name in names)
            return [one for one in shown if one is not None and one.get("Attachment", {}).get("InstanceId") == instance]

    def freeze(self, instance: str) -> None:
        """Its metadata stays as it is, until it is taken out of *frozen*."""
        self.frozen[instance] = self.seen(instance)

    # --- the API ----------------------------------------------------------------------------------------------

    def errors(self) -> Mapping[str, Refusal]:
        return ERRORS

    def kinds(self) -> Kinds:
        return kinds(self.unkind, SERVER, ("throttle",))

    def taking(self) -> Within:
        return self.unkind.taking

    def answered(self, action: str, parameters: Parameters) -> dict[str, Any]:
        """What EC2 does and says."""
        if self.has_buckets:
            self._buckets.spend(action)
        if self._is_denied(action, parameters) or not self.authorize(action, parameters):
            raise ERRORS["denied"]
        handler = self._actions.get(action)
        if handler is None:
            raise Refusal("InvalidAction", f"The action {action} is not valid for this web service.")
        if action == "CreateNetworkInterface" and len(self.nics) >= self.most_interfaces:
            raise Refusal("NetworkInterfaceLimitExceeded", "The maximum number of network interfaces has been reached.")
        answer = handler(self, parameters)
        if parameters:  # each handler takes out what it knows
            raise Refusal("UnknownParameter", f"unknown parameters: {', '.join(sorted(parameters))}")
        return answer

    def _is_denied(self, action: str, parameters: Parameters) -> bool:
        touched = ["", *map(str, parameters.values())]
        return any(
            fnmatchcase(action, what) and any(fnmatchcase(one, pattern) for one in touched)
            for what, pattern in self.denied
        )


__all__ = ["BUCKETS", "TYPES", "Fault", "Nic", "NoAnswer", "Refusal", "Region", "Unkind"]
