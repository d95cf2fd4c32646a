"""What EC2 and the instance metadata say, as values. Pure.

The shapes read here are those of boto3's DescribeNetworkInterfaces, DescribeSubnets and DescribeInstanceTypes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from netaddr import IPAddress, IPNetwork

PRIMARY: Final = 0
"""The network card, and the device index on it, of the interface that an instance was started with."""
CLUSTER_TAG: Final = "routable:cluster"
"""The tag of every interface that an agent made: its value is the cluster's name."""
NODE_TAG: Final = "routable:instance"
"""The instance that it was made for."""
UNMANAGED_TAG: Final = "routable:unmanaged"
"""What has it, whatever its value, is left alone: an interface that somebody wants for himself."""
MADE_TAG: Final = "routable:made"
"""When it was made, in seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Eni:
    """An elastic network interface: *blocks* are its secondary addresses, as /32, and its delegated prefixes.

    *address* is its own IPv4 address, None where it has none (EFA alone, an IPv6-only subnet); *index* is its device
    index, None while it is attached to no instance, on that network *card*; *attachment* is the attachment's id;
    *is_kept*: it outlives its instance; *is_detaching*: it is about to be let go of.
    """

    id: str
    mac: str
    subnet: str
    address: IPAddress | None
    index: int | None = None
    blocks: frozenset[IPNetwork] = frozenset()
    attachment: str = ""
    status: str = "in-use"
    is_kept: bool = False
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    card: int = PRIMARY
    is_detaching: bool = False
    groups: tuple[str, ...] = ()

    @property
    def is_unmanaged(self) -> bool:
        """Whether somebody wants it for himself. Only EC2 tells, not the metadata."""
        return UNMANAGED_TAG in self.tags

    @property
    def is_primary(self) -> bool:
        """Whether the instance was started with it: other cards have their own first index."""
        return self.card == PRIMARY and self.index == PRIMARY

    def holds(self, family: int) -> int:
        """How many slots of the interface its blocks of *family* take."""
        return sum(block.version == family for block in self.blocks)


class Subnet(NamedTuple):
    """A subnet: *free* addresses are left, as far as EC2 says."""

    id: str
    cidr: IPNetwork
    free: int


class Limits(NamedTuple):
    """What an instance type can have: *interfaces* on its default network card, *addresses* per interface with its own
    among them (IPv4), *addresses6* (IPv6); *has_prefixes*: prefixes can be delegated (Nitro); *is_assumed*: nobody has
    said so."""

    interfaces: int
    addresses: int
    addresses6: int
    has_prefixes: bool
    processors: int
    is_assumed: bool = False

    @property
    def slots(self) -> int:
        """For blocks, per interface."""
        return self.addresses - 1


class Seen(NamedTuple):
    """What the instance metadata says: it lags behind EC2 by seconds."""

    instance: str
    type: str
    region: str
    zone: str
    vpc: str
    networks: tuple[IPNetwork, ...]
    """The CIDRs of the VPC."""
    enis: tuple[Eni, ...]
    subnets: Mapping[str, IPNetwork]
    """The IPv4 CIDRs of the interfaces' subnets by id."""
    groups: tuple[str, ...]
    """The security groups of the primary interface."""

    @property
    def primary(self) -> Eni:
        """The interface that the instance was started with. LookupError: it is not shown."""
        for one in self.enis:
            if one.is_primary:
                return one
        raise LookupError("the primary interface is not shown")

    @property
    def address(self) -> IPAddress:
        """The node's own. LookupError: there is none."""
        address = self.primary.address
        if address is None:
            raise LookupError("the primary interface has no IPv4 address")
        return address


def eni(found: Mapping[str, Any]) -> Eni:
    """One of the NetworkInterfaces that DescribeNetworkInterfaces and CreateNetworkInterface answer."""
    attachment = found.get("Attachment") or {}
    addresses = found.get("PrivateIpAddresses", ())
    blocks = [one["PrivateIpAddress"] for one in addresses if not one.get("Primary")]
    blocks += [one["Ipv4Prefix"] for one in found.get("Ipv4Prefixes", ())]
    blocks += [one["Ipv6Prefix"] for one in found.get("Ipv6Prefixes", ())]
    own = found.get("PrivateIpAddress")
    return Eni(
        id=found["NetworkInterfaceId"],
        mac=found.get("MacAddress", ""),
        subnet=found.get("SubnetId", ""),
        address=IPAddress(own) if own else None,
        card=attachment.get("NetworkCardIndex", PRIMARY),
        index=attachment.get("DeviceIndex"),
        blocks=frozenset(map(IPNetwork, blocks)),
        attachment=attachment.get("AttachmentId", ""),
        status=found.get("Status", ""),
        is_kept=bool(attachment) and not attachment.get("DeleteOnTermination", False),
        tags={one["Key"]: one["Value"] for one in found.get("TagSet", ())},
        is_detaching=attachment.get("Status") == "detaching",
        groups=tuple(one["GroupId"] for one in found.get("Groups", ())),
    )


def subnets(answer: Mapping[str, Any]) -> list[Subnet]:
    """What DescribeSubnets answers of subnets that have IPv4, those with most free addresses first."""
    found = [
        Subnet(one["SubnetId"], IPNetwork(one["CidrBlock"]), one["AvailableIpAddressCount"])
        for one in answer["Subnets"]
        if one.get("CidrBlock")
    ]
    return sorted(found, key=lambda one: (-one.free, one.id))


def assigned(answer: Mapping[str, Any]) -> frozenset[IPNetwork]:
    """The blocks that AssignPrivateIpAddresses or AssignIpv6Addresses answers."""
    texts: Iterable[str] = (
        *(one["PrivateIpAddress"] for one in answer.get("AssignedPrivateIpAddresses", ())),
        *(one["Ipv4Prefix"] for one in answer.get("AssignedIpv4Prefixes", ())),
        *answer.get("AssignedIpv6Prefixes", ()),
    )
    return frozenset(map(IPNetwork, texts))


def filters(wanted: Mapping[str, str]) -> list[dict[str, Any]]:
    """*wanted* values by the name of the filter, as every Describe takes them: all must hold."""
    return [{"Name": name, "Values": [value]} for name, value in sorted(wanted.items())]


def tag_specifications(tags: Mapping[str, str]) -> list[dict[str, Any]]:
    """*tags* for an interface, as CreateNetworkInterface takes them."""
    pairs = [{"Key": key, "Value": value} for key, value in sorted(tags.items())]
    return [{"ResourceType": "network-interface", "Tags": pairs}]


def overlaps(held: Iterable[tuple[str, IPNetwork]]) -> frozenset[tuple[str, IPNetwork]]:
    """Those blocks, by their interface, that have an address of another one."""
    found: set[tuple[str, IPNetwork]] = set()
    widest: tuple[str, IPNetwork] | None = None
    for pair in sorted(held, key=lambda pair: (pair[1].version, pair[1].first, -pair[1].last, pair[0])):
        block = pair[1]
        if widest is not None and widest[1].version == block.version and block.first <= widest[1].last:
            found |= {widest, pair}
        if widest is None or widest[1].version != block.version or block.last > widest[1].last:
            widest = pair
    return frozenset(found)
