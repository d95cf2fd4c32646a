"""Which limit of the cloud's was reached, and until when that is believed: never for good. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from backends.aws.calls import Refused
from cni.errors import Exhausted, FabricRefused, Failure

FOR_NOW: Final = 60.0
"""Seconds until a subnet, the VPC or a permission is tried again."""
FRAGMENTED: Final = 600.0
"""Seconds until prefixes are asked for again where there was none."""

NO_PREFIX: Final = "InsufficientCidrBlocks"
NO_ADDRESS: Final = "InsufficientFreeAddressesInSubnet"
FULL: Final = frozenset((NO_PREFIX, NO_ADDRESS))
"""What EC2 says of a subnet that has not as many as were asked for."""
NO_SLOT: Final = "PrivateIpAddressLimitExceeded"
NO_INTERFACE: Final = "AttachmentLimitExceeded"
NO_UNITS: Final = "NetworkAddressUsageLimitExceeded"
DENIED: Final = "UnauthorizedOperation"
NOT_FOUND: Final = "InvalidNetworkInterfaceID.NotFound"


class Obstacle(NamedTuple):
    """What stands in the way *until* a time, and whose business that is."""

    until: float
    failure: Failure


class Obstacles:
    """*clock* answers seconds. Keys say what is affected: the id of a subnet or an interface, or one of these words."""

    PREFIXES: Final = "prefixes"
    INTERFACES: Final = "interfaces"
    ALL: Final = "all"

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: dict[str, Obstacle] = {}

    def refused(self, error: Refused, subnet: str, name: str = "") -> None:
        """EC2 refused the least that can be asked for, in *subnet*, for the interface *name*."""
        code, action = error.code, error.action
        said = f"EC2 says {code}: {error.message}"
        if code == NO_PREFIX:
            self._put(self.PREFIXES, FRAGMENTED, Exhausted(f"no prefix is free in subnet {subnet}", said))
        elif code == NO_ADDRESS:
            remedy = "; give the cluster another subnet (aws.subnets)"
            self._put(subnet, FOR_NOW, Exhausted(f"subnet {subnet} has no free address", said + remedy))
        elif code == NO_UNITS:
            remedy = "; ask for a higher quota of network address usage, or use prefixes"
            self._put(self.ALL, FOR_NOW, Exhausted("the VPC has no more network address units", said + remedy))
        elif code == NO_INTERFACE:
            self._put(self.INTERFACES, FRAGMENTED, Exhausted("the instance can have no more interfaces", said))
        elif code in (NO_SLOT, NOT_FOUND):
            self._put(name, FOR_NOW, Exhausted(f"interface {name} takes no more addresses", said))
        else:
            remedy = "; see deploy/aws-eni-policy.json" if code == DENIED else ""
            self._put(self.ALL, FOR_NOW, FabricRefused(f"EC2 refused {action}", said + remedy))

    def nowhere(self, subnets: Iterable[str]) -> None:
        """No interface can be made in any of *subnets*."""
        known = [failure for name in subnets if (failure := self.of(name)) is not None]
        none = Exhausted("no subnet is there to make an interface in", "aws.subnets or aws.subnet_tags name none here")
        self._put(self.INTERFACES, FOR_NOW, known[0] if known else none)

    def unguarded(self) -> None:
        """No interface can be made, since it would have other security groups than those wanted."""
        none = Exhausted("no security group of the VPC has the wanted tags", "see aws.security_group_tags")
        self._put(self.INTERFACES, FOR_NOW, none)

    def of(self, key: str) -> Failure | None:
        """What stands in the way of *key* now."""
        known = self._known.get(key)
        return known.failure if known is not None and known.until > self._clock() else None

    def all(self) -> list[Failure]:
        """Everything that stands in the way of something now; what has a way around it comes last."""
        keys = sorted(self._known, key=lambda key: key == self.PREFIXES)
        return [failure for key in keys if (failure := self.of(key)) is not None]

    def _put(self, key: str, seconds: float, failure: Failure) -> None:
        self._known[key] = Obstacle(self._clock() + seconds, failure)
