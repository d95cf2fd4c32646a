"""How many interfaces and addresses an instance type can have, and so how many pods. Pure.

EC2's answer (DescribeInstanceTypes) counts; until it has come the table beside this module does, which has what EC2
said of all types when it was made, so that a start needs no call. What neither knows is assumed to be small.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any, Final

from backends.aws.model import Limits
from backends.cloud import maxpods
from ipam.warmpool import PREFIX_SIZE

COLUMNS: Final = ("type", "interfaces", "addresses", "addresses6", "prefixes", "processors")
"""Of the table: see `model.Limits`. `typetable` makes it."""
_TABLE: Final = "types.tsv"
ASSUMED: Final = Limits(4, 15, addresses6=15, has_prefixes=True, processors=0, is_assumed=True)
"""What a type is taken to have of which nobody tells: most have it or more, and each refusal teaches."""


def described(answer: Mapping[str, Any]) -> Limits:
    """What DescribeInstanceTypes answers, of the default network card: the sum over all cards is more."""
    found = answer["InstanceTypes"][0]
    network = found["NetworkInfo"]
    default = network.get("DefaultNetworkCardIndex", 0)
    cards = {one["NetworkCardIndex"]: one["MaximumNetworkInterfaces"] for one in network.get("NetworkCards", ())}
    return Limits(
        interfaces=cards.get(default, network["MaximumNetworkInterfaces"]),
        addresses=network["Ipv4AddressesPerInterface"],
        addresses6=network.get("Ipv6AddressesPerInterface", 0),
        has_prefixes=found.get("Hypervisor") == "nitro" or bool(found.get("BareMetal")),
        processors=found.get("VCpuInfo", {}).get("DefaultVCpus", 0),
    )


def known(instance_type: str) -> Limits | None:
    """What the table has of a type such as "m5.large"; None for one that it does not have."""
    lines = resources.files(__package__).joinpath(_TABLE).read_text().splitlines()[1:]
    row = next((one for one in (line.split("\t") for line in lines) if one[0] == instance_type), None)
    if row is None:
        return None
    interfaces, addresses, addresses6, processors = (int(row[column]) for column in (1, 2, 3, 5))
    return Limits(interfaces, addresses, addresses6, has_prefixes=row[4] == "yes", processors=processors)


def pod_addresses(limits: Limits, *, is_prefix_mode: bool, reserved: int = 0, most: int = 15) -> int:
    """How many pods can have an address at once, by at most *most* interfaces, of which *reserved* are not for pods."""
    size = PREFIX_SIZE if is_prefix_mode and limits.has_prefixes else 1
    return max(0, min(most, limits.interfaces) - reserved) * limits.slots * size


def max_pods(limits: Limits, addresses: int, *, headroom: int = 0, is_capped: bool = True) -> int:
    """See `backends.cloud.maxpods.max_pods`."""
    return maxpods.max_pods(addresses, limits.processors, headroom=headroom, is_capped=is_capped)
