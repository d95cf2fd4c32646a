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

_COMMON: Final[Mapping[str, tuple[int, int]]] = {
    "medium": (2, 4),
    "large": (3, 10),
    "xlarge": (4, 15),
    "2xlarge": (4, 15),
    "4xlarge": (8, 30),
    "8xlarge": (8, 30),
    "9xlarge": (8, 30),
    "12xlarge": (8, 30),
    "16xlarge": (15, 50),
    "18xlarge": (15, 50),
    "24xlarge": (15, 50),
    "32xlarge": (15, 50),
    "48xlarge": (15, 50),
    "metal": (15, 50),
}
_BURSTABLE: Final[Mapping[str, tuple[int, int]]] = {
    "nano": (2, 2),
    "micro": (2, 2),
    "small": (3, 4),
    "medium": (3, 6),
    "large": (3, 12),
    "xlarge": (4, 15),
    "2xlarge": (4, 15),
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
    )


def known(instance_type: str) -> Limits | None:
    """What the table has of a type such as "m5.large"; None for one that it does not have."""
    family, _, size = instance_type.partition(".")
    table = _COMMON if family in _FAMILIES else _BURSTABLE if family in ("t3", "t3a", "t4g") else {}
    found = table.get(size.partition("-")[0])
    return Limits(*found, found[1], has_prefixes=True) if found else None


def max_pods(limits: Limits, *, is_prefix_mode: bool, reserved: int = 0, processors: int | None = None) -> int:
    """What kubelet's --max-pods should say: all that addresses can be had for, with *reserved* interfaces not for pods;
    where *processors* are given, no more than such a machine should run."""
    size = PREFIX_SIZE if is_prefix_mode and limits.has_prefixes else 1
    pods = (limits.interfaces - reserved) * limits.slots * size + _HOST_PODS
    if processors is None:
        return pods
    return min(pods, next(most for least, most in _SENSIBLE if processors >= least))
