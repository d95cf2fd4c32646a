"""A model of EC2, as far as interfaces and their addresses go: strict, in memory, on a clock of the caller's.

``Region.call`` takes and answers what boto3 does. Behaviour and error codes are those of the EC2 API reference and of
the quotas that AWS publishes; where these are silent, the stricter reading was taken.
"""

from __future__ import annotations

import copy
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from netaddr import IPAddress, IPNetwork

from tests.cloud.addresses import Addresses, Fragmented, SubnetFull

Parameters = dict[str, Any]


class Refusal(Exception):
    """An error of the API."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(code, message)
        self.code, self.message, self.status = code, message, status


class NoAnswer(Exception):
    """The connection broke before an answer came."""


class Shape(NamedTuple):
    """An instance type: *cards* are the interfaces of each network card, *addresses* per interface with its own."""

    cards: tuple[int, ...]
    addresses: int
    processors: int
    is_nitro: bool = True


TYPES: Mapping[str, Shape] = {
    "t2.medium": Shape((3,), 6, 2, is_nitro=False),
    "t3.medium": Shape((3,), 6, 2),
    "m5.large": Shape((3,), 10, 2),
    "m5.xlarge": Shape((4,), 15, 4),
    "m5.4xlarge": Shape((8,), 30, 16),
    "m5.24xlarge": Shape((15,), 50, 96),
    "p4d.24xlarge": Shape((15, 15, 15, 15), 50, 96),
}
BUCKETS: Mapping[str, tuple[float, float]] = {
    "Describe": (100, 20),
    "AttachNetworkInterface": (50, 5),
    "DetachNetworkInterface": (50, 5),
    "CreateTags": (100, 10),
    "": (100, 5),
}
"""Capacity and refill per second, by the longest beginning of an action's name."""


@dataclass(slots=True)
class Subnet:
    id: str
    vpc: str
    zone: str
    addresses: Addresses
    cidr6: IPNetwork | None
    tags: dict[str, str]
    prefixes6: set[int] = field(default_factory=set)


@dataclass(slots=True)
class Attachment:
    id: str
    instance: str
    index: int
    since: float
    goes: bool
    until: float | None = None


@dataclass(slots=True)
class Nic:
    """A network interface as it truly is; *blocks* without its own *address*."""

    id: str
    mac: str
    subnet: Subnet
    address: IPAddress
    groups: list[str]
    description: str
    tags: dict[str, str]
    blocks: list[IPNetwork] = field(default_factory=list)
    attachment: Attachment | None = None


@dataclass(slots=True)
class Instance:
    id: str
    type: str
    subnet: Subnet
    state: str = "running"
    nics: dict[int, Nic] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Fault:
    """The *nth* call of *action* from now ('*': of any) fails: *kind* throttle, error500, error503, lost_before or
    lost_after."""

    action: str
    nth: int
    kind: str
    is_consumed: bool = False


class Region:
    """*clock* answers seconds. What a test may set: *attach_delay*, *detach_delay*, *staleness* (seconds), *authorize*,
    *has_buckets*, *units* (of network address usage, per VPC). *lag* is the metadata's (seconds)."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._lock = threading.RLock()
        self.attach_delay = self.detach_delay = self.staleness = self.lag = 0.0
        self.authorize: Callable[[str, Mapping[str, Any]], bool] = lambda action, parameters: True
        """Whether a call is allowed."""
        self.has_buckets = True
        self.units = 64_000
        self.faults: list[Fault] = []
        self.on_call: Callable[[bool], None] = lambda is_after: None
        """Called before each call is done, and after; it may raise NoAnswer."""
        self.calls: Counter[tuple[str, str]] = Counter()
        """By action and error code, '' for success."""
        self.vpcs: dict[str, list[IPNetwork]] = {}
        self.used_units: Counter[str] = Counter()
        self.subnets: dict[str, Subnet] = {}
        self.groups: list[dict[str, Any]] = []
        """Security groups, as they are described."""
        self.nics: dict[str, Nic] = {}
        self.instances: dict[str, Instance] = {}
        self._by_tag: dict[tuple[str, str], dict[str, None]] = {}
        self._tokens: dict[str, tuple[str, str]] = {}
        self._buckets: dict[str, tuple[float, float]] = {}
        self._versions: dict[str, deque[tuple[float, dict[str, Any] | None]]] = {}
        self._count = 0

    # --- the test's side --------------------------------------------------------------------------------------

    def add_vpc(self, *cidrs: str) -> str:
        vpc = self._name("vpc")
        self.vpcs[vpc] = [IPNetwork(one) for one in cidrs]
        return vpc

    def add_subnet(
        self, vpc: str, cidr: str, cidr6: str = "", tags: Mapping[str, str] | None = None, zone: str = "eu-west-1a"
    ) -> str:
        name = self._name("subnet")
        six = IPNetwork(cidr6) if cidr6 else None
        self.subnets[name] = Subnet(name, vpc, zone, Addresses(IPNetwork(cidr)), six, dict(tags or {}))
        return name

    def add_nic(self, subnet: str, tags: Mapping[str, str]) -> str:
        """An interface that is attached nowhere."""
        nic = self._new_nic(self.subnets[subnet], ["sg-1"], "", dict(tags))
        self._changed(nic)
        return nic.id

    def run_instance(
        self, type_: str, subnet: str, groups: Iterable[str] = ("sg-1",), tags: Mapping[str, str] | None = None
    ) -> str:
        """A new instance with its primary interface, both with *tags*."""
        instance = Instance(self._name("i"), type_, self.subnets[subnet], tags=dict(tags or {}))
        self.instances[instance.id] = instance
        nic = self._new_nic(instance.subnet, list(groups), "", dict(instance.tags))
        nic.attachment = Attachment(self._name("eni-attach"), instance.id, 0, self.clock() - 3600, goes=True)
        instance.nics[0] = nic
        self._version(nic.id, self._rendered(nic), nic.attachment.since)
        return instance.id

    def terminate(self, instance: str) -> None:
        """It ends; interfaces that do not go with it are left behind."""
        one = self.instances[instance]
        one.state = "terminated"
        for nic in list(one.nics.values()):
            assert nic.attachment is not None
            goes, nic.attachment = nic.attachment.goes, None
            if goes:
                self._remove(nic)
            else:
                self._changed(nic)
        one.nics.clear()

    def fail(self, action: str, nth: int, kind: str) -> Fault:
        """Have a call fail; see `Fault`."""
        fault = Fault(action, nth, kind)
        self.faults.append(fault)
        return fault

    def attached(self, instance: str) -> list[Nic]:
        """The interfaces whose devices the instance has now."""
        now = self.clock()
        with self._lock:
            return [
                nic
                for nic in list(self.instances[instance].nics.values())
                if self._settled(nic) and nic.attachment is not None and now >= nic.attachment.since + self.attach_delay
            ]

    def seen(self, instance: str) -> list[dict[str, Any]]:
        """What the instance's metadata knows of its interfaces."""
        with self._lock:
            return self._seen(instance)

    def _seen(self, instance: str) -> list[dict[str, Any]]:
        names = list(self._versions) if self.lag else [nic.id for nic in self.instances[instance].nics.values()]
        shown = (self._as_of(name, self.lag) for name in names)
        return [one for one in shown if one is not None and one.get("Attachment", {}).get("InstanceId") == instance]

    def add_group(self, vpc: str, tags: Mapping[str, str]) -> str:
        """A security group."""
        name = self._name("sg")
        rows = [{"Key": key, "Value": value} for key, value in tags.items()]
        self.groups.append({"GroupId": name, "VpcId": vpc, "Tags": rows})
        return name

    # --- the API ----------------------------------------------------------------------------------------------

    def call(self, action: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """One call. Refusal: an error of the API; NoAnswer: by a fault, and it may have been done. Any thread may."""
        with self._lock:
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
        handler: Callable[[Parameters], dict[str, Any]] | None = getattr(self, f"_{action}", None)
        if handler is None:
            raise Refusal("InvalidAction", f"The action {action} is not valid for this web service.")
        answer = handler(parameters)
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

    # --- describing -------------------------------------------------------------------------------------------

    def _DescribeNetworkInterfaces(self, p: Parameters) -> dict[str, Any]:  # noqa: N802 - the API's name
        names, filters = p.pop("NetworkInterfaceIds", None), _filters(p)
        if names is not None:
            found = [self._as_of(name, self.staleness) for name in names]
            for name, one in zip(names, found, strict=True):
                if one is None:
                    raise _no_nic(name)
            return {"NetworkInterfaces": found}
        known = {"attachment.instance-id", "status", "vpc-id", "subnet-id", "network-interface-id", "tag-key"}
        _check_filters(filters, known)
        shown = (self._as_of(name, self.staleness) for name in self._candidates(filters))
        rows = [one for one in shown if one is not None and _matches(one, filters)]
        return _page("NetworkInterfaces", rows, p)

    def _candidates(self, filters: Mapping[str, list[str]]) -> Iterator[str]:
        """At least the interfaces that can match: not all of a large region's where there is an index."""
        if self.staleness:
            yield from list(self._versions)
        elif "attachment.instance-id" in filters:
            for name in filters["attachment.instance-id"]:
                if name in self.instances:
                    yield from [nic.id for nic in self.instances[name].nics.values()]
        else:
            tag = next((key for key in filters if key.startswith("tag:")), None)
            for name in list(self.nics) if tag is None else self._tagged(tag, filters[tag]):
                yield name

    def _tagged(self, tag: str, values: Iterable[str]) -> list[str]:
        return [name for value in values for name in self._by_tag.get((tag.removeprefix("tag:"), value), ())]

    def _DescribeSubnets(self, p: Parameters) -> dict[str, Any]:  # noqa: N802 - the API's name
        names, filters = p.pop("SubnetIds", None), _filters(p)
        _check_filters(filters, {"subnet-id", "vpc-id", "availability-zone"})
        for name in names or ():
            if name not in self.subnets:
                raise Refusal("InvalidSubnetID.NotFound", f"The subnet ID '{name}' does not exist")
        chosen = [self.subnets[name] for name in names] if names is not None else list(self.subnets.values())
        return _page("Subnets", [row for one in chosen if _matches(row := _subnet(one), filters)], p)

    def _DescribeSecurityGroups(self, p: Parameters) -> dict[str, Any]:  # noqa: N802 - the API's name
        filters = _filters(p)
        _check_filters(filters, {"vpc-id"})
        return _page("SecurityGroups", [one for one in self.groups if _matches(one, filters)], p)

    def _DescribeInstanceTypes(self, p: Parameters) -> dict[str, Any]:  # noqa: N802 - the API's name
        found = []
        for name in p.pop("InstanceTypes"):
            if name not in TYPES:
                raise Refusal("InvalidInstanceType", f"The following supplied instance types do not exist: [{name}]")
            shape = TYPES[name]
            cards = [
                {"NetworkCardIndex": index, "MaximumNetworkInterfaces": most} for index, most in enumerate(shape.cards)
            ]
            info = {
                "MaximumNetworkInterfaces": sum(shape.cards),
                "DefaultNetworkCardIndex": 0,
                "NetworkCards": cards,
                "Ipv4AddressesPerInterface": shape.addresses,
                "Ipv6AddressesPerInterface": shape.addresses,
            }
            hypervisor = "nitro" if shape.is_nitro else "xen"
            processors = {"DefaultVCpus": shape.processors}
            one = {"InstanceType": name, "Hypervisor": hypervisor, "VCpuInfo": processors, "NetworkInfo": info}
            found.append(one)
        return {"InstanceTypes": found}

    # --- interfaces -------------------------------------------------------------------------------------------

    def _CreateNetworkInterface(self, p: Parameters) -> dict[str, Any]:  # noqa: N802 - the API's name
        token, print_ = p.pop("ClientToken", ""), repr(sorted(p.items()))
        name, groups, description = p.pop("SubnetId"), p.pop("Groups", []), p.pop("Description", "")
        tags = {tag["Key"]: tag["Value"] for one in p.pop("TagSpecifications", []) for tag in one["Tags"]}
        wanted = _take_wanted(p)
        if token in self._tokens:
            known, known_print = self._tokens[token]
            if known_print != print_:
                raise Refusal("IdempotentParameterMismatch", "The token was used with other parameters")
            if known not in self.nics:
                raise _no_nic(known)
            return {"NetworkInterface": self._rendered(self.nics[known])}
        if name not in self.subnets:
            raise Refusal("InvalidSubnetID.NotFound", f"The subnet ID '{name}' does not exist")
        nic = self._new_nic(self.subnets[name], groups, description, tags)
        try:
            self._assign(nic, wanted, limit=50)
        except Refusal:
            self._remove(nic)
            del self._versions[nic.id]
            raise
        if token:
            self._tokens[token] = nic.id, print_
        self._changed(nic)
        return {"NetworkInterface": self._rendered(nic)}

    def _AttachNetworkInterface(self, p: Parameters) -> dict[str, Any]:  # noqa: N802 - the API's name
        nic, index = self._nic(p.pop("NetworkInterfaceId")), p.pop("DeviceIndex")
        instance = self._running(p.pop("InstanceId"))
        if nic.attachment is not None:
            raise Refusal("InvalidNetworkInterface.InUse", f"The network interface '{nic.id}' is already attached.")
        shape = TYPES[instance.type]
        held = {at: one for at, one in instance.nics.items() if self._settled(one)}
        if len(held) >= shape.cards[0]:
            raise Refusal("AttachmentLimitExceeded", f"Interface count {len(held) + 1} exceeds the limit")
        if index in held:
            raise Refusal("InvalidParameterValue", f"The instance has an interface at device index {index} already")
        if nic.subnet.zone != instance.subnet.zone:
            raise Refusal("InvalidParameterCombination", "The interface and the instance are in different zones")
        if len([one for one in nic.blocks if one.version == 4]) >= shape.addresses:
            raise Refusal("PrivateIpAddressLimitExceeded", "The instance's type does not support that many addresses")
        nic.attachment = Attachment(self._name("eni-attach"), instance.id, index, self.clock(), goes=False)
        instance.nics[index] = nic
        self._changed(nic)
        return {"AttachmentId": nic.attachment.id, "NetworkCardIndex": 0}

    def _DetachNetworkInterface(self, p: Parameters) -> dict[str, Any]:  # noqa: N802 - the API's name
        name = p.pop("AttachmentId")
        nic = next((one for one in self._all_attached() if one.attachment and one.attachment.id == name), None)
        if nic is None or nic.attachment is None:
            raise Refusal("InvalidAttachmentID.NotFound", f"The attachment '{name}' does not exist")
        if nic.attachment.index == 0:
            raise Refusal("OperationNotPermitted", "The primary network interface cannot be detached.")
        nic.attachment.until = nic.attachment.until or self.clock() + self.detach_delay
        self._settled(nic)
        self._changed(nic)
        return {}

    def _DeleteNetworkInterface(self, p: Parameters) -> dict[str, Any]:  # noqa: N802 - the API's name
        nic = self._nic(p.pop("NetworkInterfaceId"))
        if nic.attachment is not None:
            raise Refusal("InvalidNetworkInterface.InUse", f"The network interface '{nic.id}' is in use.")
        self._remove(nic)
        return {}

    def _ModifyNetworkInterfaceAttribute(self, p: Parameters) -> dict[str, Any]:  # noqa: N802 - the API's name
        nic, change = self._nic(p.pop("NetworkInterfaceId")), p.pop("Attachment")
        if nic.attachment is None or nic.attachment.id != change["AttachmentId"]:
            raise Refusal("InvalidAttachmentID.NotFound", f"The attachment '{change['AttachmentId']}' does not exist")
        nic.attachment.goes = change["DeleteOnTermination"]
        self._changed(nic)
        return {}

    # --- addresses --------------------------------------------------------------------------------------------

    def _AssignPrivateIpAddresses(self, p: Parameters) -> dict[str, Any]:  # noqa: N802 - the API's name
        nic = self._nic(p.pop("NetworkInterfaceId"))
        new = self._assign(nic, _take_wanted(p), self._limit(nic))
        self._changed(nic)
        return {
            "NetworkInterfaceId": nic.id,
            "AssignedPrivateIpAddresses": [{"PrivateIpAddress": str(one.ip)} for one in new if one.prefixlen == 32],
            "AssignedIpv4Prefixes": [{"Ipv4Prefix": str(one)} for one in new if one.prefixlen == 28],
        }

    def _UnassignPrivateIpAddresses(self, p: Parameters) -> dict[str, Any]:  # noqa: N802 - the API's name
        nic = self._nic(p.pop("NetworkInterfaceId"))
        self._unassign(nic, [*p.pop("PrivateIpAddresses", []), *p.pop("Ipv4Prefixes", [])])
        return {}

    def _AssignIpv6Addresses(self, p: Parameters) -> dict[str, Any]:  # noqa: N802 - the API's name
        nic, count = self._nic(p.pop("NetworkInterfaceId")), p.pop("Ipv6PrefixCount")
        subnet = nic.subnet
        if subnet.cidr6 is None:
            raise Refusal("InvalidParameterValue", f"The subnet {subnet.id} has no IPv6 CIDR block")
        self._check_slots(nic, count, self._limit(nic), 6)
        free = (number for number in range(1, 1 << 16) if number not in subnet.prefixes6)
        new = []
        for _ in range(count):
            number = next(free)
            subnet.prefixes6.add(number)
            new.append(IPNetwork((int(subnet.cidr6.first) + (number << 48), 80)))
        self._use(subnet, count)
        nic.blocks += new
        self._changed(nic)
        return {"NetworkInterfaceId": nic.id, "AssignedIpv6Prefixes": [str(one) for one in new]}

    def _UnassignIpv6Addresses(self, p: Parameters) -> dict[str, Any]:  # noqa: N802 - the API's name
        nic = self._nic(p.pop("NetworkInterfaceId"))
        self._unassign(nic, p.pop("Ipv6Prefixes", []))
        return {}

    def _assign(self, nic: Nic, wanted: tuple[int, int], limit: int) -> list[IPNetwork]:
        """All or nothing: *wanted* single addresses and prefixes."""
        singles, prefixes = wanted
        self._check_slots(nic, singles + prefixes, limit, 4)
        if prefixes and nic.attachment and not TYPES[self.instances[nic.attachment.instance].type].is_nitro:
            raise Refusal("UnsupportedOperation", "Prefixes are supported on Nitro instances alone")
        new: list[IPNetwork] = []
        try:
            for _ in range(singles):
                new.append(IPNetwork(nic.subnet.addresses.take()))  # noqa: PERF401 - what was taken counts
            for _ in range(prefixes):
                new.append(nic.subnet.addresses.take_prefix())  # noqa: PERF401
            self._use(nic.subnet, len(new))
        except (SubnetFull, Fragmented, Refusal) as error:
            for one in new:
                nic.subnet.addresses.give_back(one)
            if isinstance(error, Refusal):
                raise
            code = "InsufficientFreeAddressesInSubnet" if isinstance(error, SubnetFull) else "InsufficientCidrBlocks"
            raise Refusal(code, f"The subnet {nic.subnet.id} has not enough: {code}") from error
        nic.blocks += new
        return new

    def _check_slots(self, nic: Nic, more: int, limit: int, family: int) -> None:
        held = sum(one.version == family for one in nic.blocks) + (family == 4)
        if held + more > limit:
            raise Refusal("PrivateIpAddressLimitExceeded", f"{nic.id} may have {limit}, and has {held}")

    def _limit(self, nic: Nic) -> int:
        return TYPES[self.instances[nic.attachment.instance].type].addresses if nic.attachment is not None else 50

    def _unassign(self, nic: Nic, texts: list[str]) -> None:
        gone = [IPNetwork(text) for text in texts]
        for one in gone:
            if one not in nic.blocks:
                raise Refusal("InvalidParameterValue", f"{one} is not assigned to interface {nic.id}")
        for one in gone:
            self._free(nic, one)
            nic.blocks.remove(one)
        self._changed(nic)

    # --- the state --------------------------------------------------------------------------------------------

    def _new_nic(self, subnet: Subnet, groups: list[str], description: str, tags: dict[str, str]) -> Nic:
        self._use(subnet, 1)
        try:
            address = subnet.addresses.take()
        except SubnetFull as error:
            self._use(subnet, -1)
            raise Refusal("InsufficientFreeAddressesInSubnet", f"The subnet {subnet.id} is full") from error
        name = self._name("eni")
        mac = "02:" + int(name[-10:], 16).to_bytes(5, "big").hex(":")
        nic = self.nics[name] = Nic(name, mac, subnet, address, groups, description, tags)
        for tag in tags.items():
            self._by_tag.setdefault(tag, {})[name] = None
        return nic

    def _remove(self, nic: Nic) -> None:
        for one in nic.blocks:
            self._free(nic, one)
        nic.blocks.clear()
        nic.subnet.addresses.give_back(IPNetwork(nic.address))
        self._use(nic.subnet, -1)
        del self.nics[nic.id]
        for tag in nic.tags.items():
            self._by_tag[tag].pop(nic.id, None)
        self._version(nic.id, None)

    def _free(self, nic: Nic, one: IPNetwork) -> None:
        self._use(nic.subnet, -1)
        if one.version == 4:
            nic.subnet.addresses.give_back(one)
        elif nic.subnet.cidr6 is not None:
            nic.subnet.prefixes6.discard((int(one.first) - int(nic.subnet.cidr6.first)) >> 48)

    def _use(self, subnet: Subnet, units: int) -> None:
        if units > 0 and self.used_units[subnet.vpc] + units > self.units:
            raise Refusal("NetworkAddressUsageLimitExceeded", f"{subnet.vpc} has {self.units} units, all in use")
        self.used_units[subnet.vpc] += units

    def _nic(self, name: str) -> Nic:
        if name not in self.nics:
            raise _no_nic(name)
        nic = self.nics[name]
        self._settled(nic)
        return nic

    def _settled(self, nic: Nic) -> bool:
        """Whether it is attached still, after a detachment that may have ended meanwhile."""
        held = nic.attachment
        if held is not None and held.until is not None and self.clock() >= held.until:
            del self.instances[held.instance].nics[held.index]
            nic.attachment = None
            self._version(nic.id, self._rendered(nic), held.until)
        return nic.attachment is not None

    def _all_attached(self) -> Iterator[Nic]:
        return (nic for one in self.instances.values() for nic in list(one.nics.values()) if self._settled(nic))

    def _running(self, name: str) -> Instance:
        if name not in self.instances or self.instances[name].state != "running":
            raise Refusal("InvalidInstanceID.NotFound", f"The instance ID '{name}' does not exist")
        return self.instances[name]

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{kind}-{self._count:017x}"

    # --- what is shown ----------------------------------------------------------------------------------------

    def _changed(self, nic: Nic) -> None:
        self._version(nic.id, self._rendered(nic))

    def _version(self, name: str, shown: dict[str, Any] | None, when: float | None = None) -> None:
        now = self.clock()
        versions = self._versions.setdefault(name, deque())
        versions.append((now if when is None else when, shown))
        while len(versions) > 1 and versions[1][0] <= now - max(self.staleness, self.lag):
            versions.popleft()

    def _as_of(self, name: str, ago: float) -> dict[str, Any] | None:
        """As it was so many seconds ago; None: there was none."""
        nic = self.nics.get(name)
        if nic is not None:
            self._settled(nic)
        if not ago:
            return self._rendered(nic) if nic is not None else None
        found = [shown for when, shown in self._versions.get(name, ()) if when <= self.clock() - ago]
        return found[-1] if found else None

    def _rendered(self, nic: Nic) -> dict[str, Any]:
        own = {"PrivateIpAddress": str(nic.address), "Primary": True}
        four = [one for one in nic.blocks if one.version == 4]
        singles = [{"PrivateIpAddress": str(one.ip), "Primary": False} for one in four if one.prefixlen == 32]
        shown: dict[str, Any] = {
            "NetworkInterfaceId": nic.id,
            "MacAddress": nic.mac,
            "SubnetId": nic.subnet.id,
            "VpcId": nic.subnet.vpc,
            "AvailabilityZone": nic.subnet.zone,
            "Description": nic.description,
            "PrivateIpAddress": str(nic.address),
            "PrivateIpAddresses": [own, *singles],
            "Ipv4Prefixes": [{"Ipv4Prefix": str(one)} for one in four if one.prefixlen == 28],
            "Ipv6Prefixes": [{"Ipv6Prefix": str(one)} for one in nic.blocks if one.version == 6],
            "Groups": [{"GroupId": one, "GroupName": one} for one in nic.groups],
            "TagSet": [{"Key": key, "Value": value} for key, value in nic.tags.items()],
            "Status": "available",
        }
        held = nic.attachment
        if held is not None:
            status = "attached" if self.clock() >= held.since + self.attach_delay else "attaching"
            shown["Status"] = "in-use"
            shown["Attachment"] = {
                "AttachmentId": held.id,
                "InstanceId": held.instance,
                "DeviceIndex": held.index,
                "NetworkCardIndex": 0,
                "DeleteOnTermination": held.goes,
                "Status": "detaching" if held.until is not None else status,
            }
        return shown


_INJECTED = {
    "throttle": Refusal("RequestLimitExceeded", "Request limit exceeded.", 503),
    "error500": Refusal("InternalError", "An internal error has occurred", 500),
    "error503": Refusal("Unavailable", "The service is unavailable. Please try again shortly.", 503),
}


def _no_nic(name: str) -> Refusal:
    return Refusal("InvalidNetworkInterfaceID.NotFound", f"The networkInterface ID '{name}' does not exist")


def _take_wanted(p: Parameters) -> tuple[int, int]:
    """How many single addresses, how many prefixes."""
    singles, prefixes = p.pop("SecondaryPrivateIpAddressCount", 0), p.pop("Ipv4PrefixCount", 0)
    if singles and prefixes:
        raise Refusal("InvalidParameterCombination", "either addresses or prefixes")
    return singles, prefixes


def _filters(p: Parameters) -> dict[str, list[str]]:
    return {one["Name"]: list(one["Values"]) for one in p.pop("Filters", [])}


def _check_filters(filters: Mapping[str, Any], known: Iterable[str]) -> None:
    for name in filters:
        if name not in known and not name.startswith("tag:"):
            raise Refusal("InvalidParameterValue", f"The filter '{name}' is invalid")


def _matches(row: Mapping[str, Any], filters: Mapping[str, list[str]]) -> bool:
    return all(_value(row, name) & set(values) for name, values in filters.items())


_FIELDS = {
    "status": "Status",
    "vpc-id": "VpcId",
    "subnet-id": "SubnetId",
    "network-interface-id": "NetworkInterfaceId",
    "availability-zone": "AvailabilityZone",
}


def _value(row: Mapping[str, Any], name: str) -> set[str]:
    tags = {one["Key"]: one["Value"] for one in row.get("TagSet", row.get("Tags", ()))}
    if name == "tag-key":
        return set(tags)
    if name.startswith("tag:"):
        return {tags[name[4:]]} if name[4:] in tags else set()
    if name == "attachment.instance-id":
        return {row["Attachment"]["InstanceId"]} if "Attachment" in row else set()
    return {row[_FIELDS[name]]}


def _page(key: str, rows: list[dict[str, Any]], p: Parameters) -> dict[str, Any]:
    start, most = int(p.pop("NextToken", 0) or 0), p.pop("MaxResults", 1000)
    page: dict[str, Any] = {key: rows[start : start + most]}
    if start + most < len(rows):
        page["NextToken"] = str(start + most)
    return page


def _subnet(one: Subnet) -> dict[str, Any]:
    six = [{"Ipv6CidrBlock": str(one.cidr6)}] if one.cidr6 is not None else []
    return {
        "SubnetId": one.id,
        "VpcId": one.vpc,
        "AvailabilityZone": one.zone,
        "CidrBlock": str(one.addresses.cidr),
        "AvailableIpAddressCount": one.addresses.free,
        "Ipv6CidrBlockAssociationSet": six,
        "Tags": [{"Key": key, "Value": value} for key, value in one.tags.items()],
    }
