"""How many interfaces and addresses an instance type can have, and so how many pods. Pure.

EC2's answer (DescribeInstanceTypes) counts; the table here stands in where an agent may not ask. Its numbers are those
of the EC2 user guide, "IP addresses per network interface per instance type"; most families have the same ones for
the same size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from backends.aws.model import Limits
from ipam.warmpool import PREFIX_SIZE

_COMMON: Final[Mapping[str, tuple[int, int, int]]] = {
    "medium": (2, 4, 1),
    "large": (3, 10, 2),
    "xlarge": (4, 15, 4),
    "2xlarge": (4, 15, 8),
    "4xlarge": (8, 30, 16),
    "8xlarge": (8, 30, 32),
    "9xlarge": (8, 30, 36),
    "12xlarge": (8, 30, 48),
    "16xlarge": (15, 50, 64),
    "18xlarge": (15, 50, 72),
    "24xlarge": (15, 50, 96),
    "32xlarge": (15, 50, 128),
    "48xlarge": (15, 50, 192),
    "metal": (15, 50, 64),
}
"""By size: interfaces, IPv4 addresses of each, processors (of "metal": at least)."""
_BURSTABLE: Final[Mapping[str, tuple[int, int, int]]] = {
    "nano": (2, 2, 2),
    "micro": (2, 2, 2),
    "small": (3, 4, 2),
    "medium": (3, 6, 2),
    "large": (3, 12, 2),
    "xlarge": (4, 15, 4),
    "2xlarge": (4, 15, 8),
}
_FAMILIES: Final = frozenset(
    f"{letter}{generation}"
    for letter in "cmr"
    for generation in ("5", "5a", "5d", "6a", "6g", "6gd", "6i", "6id", "7a", "7g", "7gd", "7i", "8g")
)
_HOST_PODS: Final = 2
"""Pods that need no address of their own, by the custom of the cloud's own calculator: those on the host network."""
_SENSIBLE: Final = ((30, 250), (0, 110))
"""From how many processors how many pods a kubelet should have at most, by the same calculator."""


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
    family, _, size = instance_type.partition(".")
    table = _COMMON if family in _FAMILIES else _BURSTABLE if family in ("t3", "t3a", "t4g") else {}
    if (found := table.get(size.partition("-")[0])) is None:
        return None
    interfaces, addresses, processors = found
    return Limits(interfaces, addresses, addresses6=addresses, has_prefixes=True, processors=processors)


def pod_addresses(limits: Limits, *, is_prefix_mode: bool, reserved: int = 0, most: int = 15) -> int:
    """How many pods can have an address at once, by at most *most* interfaces, of which *reserved* are not for pods."""
    size = PREFIX_SIZE if is_prefix_mode and limits.has_prefixes else 1
    return max(0, min(most, limits.interfaces) - reserved) * limits.slots * size


def max_pods(limits: Limits, addresses: int, *, headroom: int = 0, is_capped: bool = True) -> int:
    """What kubelet's --max-pods should say where there are so many *addresses*, of which *headroom* are for pods that
    come while the addresses of those before them cool down; if *is_capped*, no more than such a machine should run."""
    pods = max(0, addresses - headroom) + _HOST_PODS
    cap = next(most for least, most in _SENSIBLE if limits.processors >= least)
    return min(pods, cap) if is_capped else pods


def spare(addresses: int, pods: int) -> int:
    """How many of *addresses* are left where kubelet's --max-pods is *pods*."""
    return addresses - max(0, pods - _HOST_PODS)
