"""What EC2 tells when it is asked: one function for each action."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from tests.cloud.refusals import Refusal, no_nic
from tests.cloud.shapes import TYPES
from tests.cloud.shown import Row, Shown
from tests.cloud.world import Subnet, World

Parameters = dict[str, Any]
Answer = dict[str, Any]


class Describing:
    """*staleness* answers for how many seconds the answers about interfaces lag, each record's anew."""

    def __init__(self, world: World, shown: Shown, staleness: Callable[[], float]) -> None:
        self._world = world
        self._shown = shown
        self._staleness = staleness
        self.groups: list[Row] = []
        """Security groups, as they are described."""
        self.actions: Mapping[str, Callable[[World, Parameters], Answer]] = {
            "DescribeNetworkInterfaces": self._interfaces,
            "DescribeSubnets": self._subnets,
            "DescribeSecurityGroups": self._security_groups,
            "DescribeInstanceTypes": self._types,
        }

    def _interfaces(self, _: World, p: Parameters) -> Answer:
        names, filters = p.pop("NetworkInterfaceIds", None), _filters(p)
        if names is not None:
            found = [self._row(name) for name in names]
            for name, one in zip(names, found, strict=True):
                if one is None and not self._is_silent_about_it():  # of several the first is named
                    raise no_nic(name)
            return {"NetworkInterfaces": [one for one in found if one is not None]}
        known = {"attachment.instance-id", "status", "vpc-id", "subnet-id", "network-interface-id", "tag-key"}
        _check_filters(filters, known)
        shown = (self._row(name) for name in self._candidates(filters))
        rows = [one for one in shown if one is not None and _matches(one, filters)]
        return _page("NetworkInterfaces", rows, p)

    def _is_silent_about_it(self) -> bool:
        chance = self._world.unkind.unseen_empty
        return bool(chance) and self._world.chance() < chance

    def _row(self, name: str) -> Row | None:
        nic = self._world.nics.get(name)
        if nic is not None and not self._world.is_seen(nic):
            return None
        return self._shown.as_of(name, self._staleness())

    def _candidates(self, filters: Mapping[str, list[str]]) -> Iterator[str]:
        """At least the interfaces that can match: not all of a large region's where there is an index."""
        world = self._world
        if self._staleness():
            yield from self._shown.names()
        elif "attachment.instance-id" in filters:
            for name in filters["attachment.instance-id"]:
                if name in world.instances:
                    yield from [nic.id for nic in world.instances[name].nics]
        else:
            tag = next((key for key in filters if key.startswith("tag:")), None)
            yield from list(world.nics) if tag is None else self._tagged(tag, filters[tag])

    def _tagged(self, tag: str, values: Iterable[str]) -> list[str]:
        return [name for value in values for name in self._world.by_tag.get((tag.removeprefix("tag:"), value), ())]

    def _subnets(self, world: World, p: Parameters) -> Answer:
        names, filters = p.pop("SubnetIds", None), _filters(p)
        _check_filters(filters, {"subnet-id", "vpc-id", "availability-zone"})
        for name in names or ():
            if name not in world.subnets:
                raise Refusal("InvalidSubnetID.NotFound", f"The subnet ID '{name}' does not exist")
        chosen = [world.subnets[name] for name in names] if names is not None else list(world.subnets.values())
        return _page("Subnets", [row for one in chosen if _matches(row := _subnet(one), filters)], p)

    def _security_groups(self, _: World, p: Parameters) -> Answer:
        filters = _filters(p)
        _check_filters(filters, {"vpc-id"})
        return _page("SecurityGroups", [one for one in self.groups if _matches(one, filters)], p)

    def _types(self, _: World, p: Parameters) -> Answer:
        found = []
        for name in p.pop("InstanceTypes"):
            if name not in TYPES:
                raise Refusal("InvalidInstanceType", f"The following supplied instance types do not exist: [{name}]")
            found.append(_type(name))
        return {"InstanceTypes": found}


def _type(name: str) -> Row:
    shape = TYPES[name]
    cards = [{"NetworkCardIndex": index, "MaximumNetworkInterfaces": most} for index, most in enumerate(shape.cards)]
    info = {
        "MaximumNetworkInterfaces": sum(shape.cards),
        "DefaultNetworkCardIndex": 0,
        "NetworkCards": cards,
        "Ipv4AddressesPerInterface": shape.addresses,
        "Ipv6AddressesPerInterface": shape.addresses,
    }
    hypervisor = "nitro" if shape.is_nitro else "xen"
    processors = {"DefaultVCpus": shape.processors}
    return {"InstanceType": name, "Hypervisor": hypervisor, "VCpuInfo": processors, "NetworkInfo": info}


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


def _page(key: str, rows: list[Row], p: Parameters) -> Answer:
    start, most = int(p.pop("NextToken", 0) or 0), p.pop("MaxResults", 1000)
    page: Answer = {key: rows[start : start + most]}
    if start + most < len(rows):
        page["NextToken"] = str(start + most)
    return page


def _subnet(one: Subnet) -> Row:
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
