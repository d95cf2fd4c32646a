"""What EC2 does with the addresses and prefixes of an interface: one function for each action."""

from __future__ import annotations

from typing import Any

from netaddr import IPNetwork

from tests.cloud.addresses import Fragmented, SubnetFull
from tests.cloud.refusals import Refusal
from tests.cloud.world import Nic, World

Parameters = dict[str, Any]
Answer = dict[str, Any]


def assign_private(world: World, p: Parameters) -> Answer:
    """All or nothing."""
    nic = world.nic(p.pop("NetworkInterfaceId"))
    new = assign(world, nic, take_wanted(p), world.limit(nic))
    world.on_change(nic, None)
    return {
        "NetworkInterfaceId": nic.id,
        "AssignedPrivateIpAddresses": [{"PrivateIpAddress": str(one.ip)} for one in new if one.prefixlen == 32],
        "AssignedIpv4Prefixes": [{"Ipv4Prefix": str(one)} for one in new if one.prefixlen == 28],
    }


def unassign_private(world: World, p: Parameters) -> Answer:
    """All or nothing."""
    nic = world.nic(p.pop("NetworkInterfaceId"))
    _unassign(world, nic, [*p.pop("PrivateIpAddresses", []), *p.pop("Ipv4Prefixes", [])])
    return {}


def assign_six(world: World, p: Parameters) -> Answer:
    """A /80 of the subnet's /64, for each."""
    nic, count = world.nic(p.pop("NetworkInterfaceId")), p.pop("Ipv6PrefixCount")
    subnet = nic.subnet
    if subnet.cidr6 is None:
        raise Refusal("InvalidParameterValue", f"The subnet {subnet.id} has no IPv6 CIDR block")
    _check_slots(nic, count, world.limit(nic), 6)
    world.use(subnet, count)
    free = (number for number in range(1, 1 << 16) if number not in subnet.prefixes6)
    numbers = [next(free) for _ in range(count)]
    subnet.prefixes6.update(numbers)
    new = [IPNetwork((int(subnet.cidr6.first) + (number << 48), 80)) for number in numbers]
    world.gain(nic, new)
    world.on_change(nic, None)
    return {"NetworkInterfaceId": nic.id, "AssignedIpv6Prefixes": [str(one) for one in new]}


def unassign_six(world: World, p: Parameters) -> Answer:
    """All or nothing."""
    nic = world.nic(p.pop("NetworkInterfaceId"))
    _unassign(world, nic, p.pop("Ipv6Prefixes", []))
    return {}


def take_wanted(p: Parameters) -> tuple[int, int]:
    """How many single addresses, how many prefixes."""
    singles, prefixes = p.pop("SecondaryPrivateIpAddressCount", 0), p.pop("Ipv4PrefixCount", 0)
    if singles and prefixes:
        raise Refusal("InvalidParameterCombination", "either addresses or prefixes")
    return singles, prefixes


def assign(world: World, nic: Nic, wanted: tuple[int, int], limit: int) -> list[IPNetwork]:
    """All or nothing: *wanted* single addresses and prefixes."""
    singles, prefixes = wanted
    _check_slots(nic, singles + prefixes, limit, 4)
    if prefixes and nic.attachment and not world.instances[nic.attachment.instance].shape.is_nitro:
        raise Refusal("UnsupportedOperation", "Prefixes are supported on Nitro instances alone")
    subnet, new = nic.subnet, []
    try:
        for _ in range(singles):
            new.append(IPNetwork(subnet.addresses.take()))  # noqa: PERF401 - what was taken counts
        for _ in range(prefixes):
            new.append(subnet.addresses.take_prefix())  # noqa: PERF401
        world.use(subnet, len(new))
    except (SubnetFull, Fragmented, Refusal) as error:
        for one in reversed(new):
            subnet.addresses.give_back(one)
        if isinstance(error, Refusal):
            raise
        if isinstance(error, Fragmented):
            text = f"There are not sufficient free Ipv4 CIDRs in subnet '{subnet.id}'"
            raise Refusal("InsufficientCidrBlocks", text) from error
        text = f"insufficient free addresses in subnet '{subnet.id}'"
        raise Refusal("InsufficientFreeAddressesInSubnet", text) from error
    if new:
        world.gain(nic, new)
    return new


def _check_slots(nic: Nic, more: int, limit: int, family: int) -> None:
    held = sum(one.version == family for one in nic.blocks) + (family == 4)
    if held + more > limit:
        raise Refusal("PrivateIpAddressLimitExceeded", f"{nic.id} may have {limit}, and has {held}")


def _unassign(world: World, nic: Nic, texts: list[str]) -> None:
    gone = [IPNetwork(text) for text in texts]
    for one in gone:
        if one not in nic.blocks:
            raise Refusal("InvalidParameterValue", f"{one} is not assigned to interface {nic.id}")
    world.lose(nic, gone)
    world.on_change(nic, None)


ACTIONS = {
    "AssignPrivateIpAddresses": assign_private,
    "UnassignPrivateIpAddresses": unassign_private,
    "AssignIpv6Addresses": assign_six,
    "UnassignIpv6Addresses": unassign_six,
}
