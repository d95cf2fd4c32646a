"""What EC2 refuses, as `backends.cloud.obstacles`: by its codes, in words for whoever has to act. Pure.

Who knows a way around a refusal (fewer addresses, another moment) is not held up by it: see `LEFT`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from backends.aws.calls import ASSIGN, ASSIGN6, ATTACH, CREATE, DELETE, DETACH, UNASSIGN, is_about_credentials
from backends.cloud.failures import Refused
from backends.cloud.obstacles import AT_ONCE, CREDENTIALS, FOR_NOW, SOON, SOONEST, Obstacles
from cni.errors import Exhausted, FabricRefused, Failure

FRAGMENTED: Final = 600.0
"""Seconds until prefixes are tried again, where there was none, and interfaces, where the instance has all."""
NO_PREFIX: Final = "InsufficientCidrBlocks"
NO_ADDRESS: Final = "InsufficientFreeAddressesInSubnet"
FULL: Final = frozenset((NO_PREFIX, NO_ADDRESS))
"""What EC2 says of a subnet that has not as many as were asked for."""
NO_SLOT: Final = "PrivateIpAddressLimitExceeded"
NO_INTERFACE: Final = "AttachmentLimitExceeded"
NO_UNITS: Final = "NetworkAddressUsageLimitExceeded"
DENIED: Final = "UnauthorizedOperation"
NOT_FOUND: Final = "InvalidNetworkInterfaceID.NotFound"
LEFT: Final = FULL | {NO_SLOT, NOT_FOUND}
"""What is left to whoever asked: fewer may do, or what was just made is not seen yet; see `Refusals.refused`."""
_OF_ARGUMENTS: Final = ("Invalid", "Incorrect", "Dependency", "IdempotentParameter")
"""How codes begin that say that this call was wrong, or came at the wrong moment."""
ADDRESSES: Final = "addresses"
"""Stands for every action that takes addresses of a subnet."""
PREFIXES: Final = "prefixes"
"""Stands for prefixes: where a subnet has none, single addresses do everywhere."""
_GROWTH: Final = (CREDENTIALS, ADDRESSES, ASSIGN, CREATE, ATTACH, ASSIGN6)
"""What more addresses take: first what keeps pods waiting."""


_ROLE: Final = "see the role of the instance, and its clock"
_TAKES: Final[Mapping[str, tuple[str, ...]]] = {
    "create": (ATTACH,),
    "assign": (ASSIGN,),
    "unassign": (UNASSIGN,),
    "delete": (DETACH, DELETE),
}
"""Which actions a change takes, by its kind: all of what it may not be is left for later."""


class Refusals(Obstacles):
    """*clock* answers seconds, *random* numbers from 0 to 1."""

    def __init__(self, clock: Callable[[], float], random: Callable[[], float] = lambda: 1.0) -> None:
        every = dict.fromkeys((ASSIGN, ASSIGN6, CREATE), ADDRESSES)
        super().__init__(clock, random, wider=every, growth=_GROWTH, last=PREFIXES)

    def noticed(self, error: Refused, about: str) -> None:
        """EC2 refused a call on the object *about*: for whoever makes calls, with every refusal."""
        code, action, said = error.code, error.action, f"EC2 says {error.code}: {error.message}"
        why: Failure
        if is_about_credentials(error):
            why = FabricRefused("EC2 does not accept this node's credentials", f"{said}; {_ROLE}")
            self.put(CREDENTIALS, "", SOON, why, code, SOONEST)
        elif code == NO_UNITS:
            remedy = "; ask for a higher quota of network address usage, or use prefixes"
            why = Exhausted("the VPC has no more network address units", said + remedy)
            self.put(ADDRESSES, "", FOR_NOW, why, code)
        elif code == NO_INTERFACE:
            self.put(ATTACH, "", FRAGMENTED, Exhausted("the instance can have no more interfaces", said), code)
        elif code not in LEFT:
            pause = AT_ONCE if code.startswith(_OF_ARGUMENTS) else FOR_NOW
            self.put(action, about, pause, self._denied(error), code)

    def refused(self, error: Refused, subnet: str, name: str = "") -> None:
        """EC2 refused the least that can be asked for, in *subnet*, for the interface *name*: for whoever knows that it
        was the least. What is not about that was noticed."""
        code, said = error.code, f"EC2 says {error.code}: {error.message}"
        if code == NO_PREFIX:
            self.put(PREFIXES, "", FRAGMENTED, Exhausted(f"no prefix is free in subnet {subnet}", said), code)
        elif code == NO_ADDRESS:
            remedy = "; give the cluster another subnet (aws.subnets)"
            why = Exhausted(f"subnet {subnet} has no free address", said + remedy)
            self.put(ADDRESSES, subnet, FOR_NOW, why, code)
        elif code in (NO_SLOT, NOT_FOUND):
            why = Exhausted(f"interface {name} takes no more addresses", said)
            self.put(error.action, name, FOR_NOW, why, code)

    def nowhere(self, subnets: Iterable[str]) -> None:
        """No interface can be made in any of *subnets*."""
        known = [failure for name in subnets if (failure := self.of(CREATE, name)) is not None]
        none = Exhausted("no subnet is there to make an interface in", "aws.subnets or aws.subnet_tags name none here")
        self.put(CREATE, "", FOR_NOW, known[0] if known else none)

    def unplaced(self, error: Refused) -> None:
        """It cannot be found out where an interface could be made."""
        self.put(CREATE, "", FOR_NOW, self._denied(error), error.code)

    def unguarded(self) -> None:
        """No interface can be made, since it would have other security groups than those wanted."""
        none = Exhausted("no security group of the VPC has the wanted tags", "see aws.security_group_tags")
        self.put(CREATE, "", FOR_NOW, none)

    def unattached(self, error: Refused) -> None:
        """An interface that was made could not be attached: no other one is made for nothing."""
        if self.of(ATTACH) is None:
            self.put(ATTACH, "", FOR_NOW, self._denied(error), error.code)

    def is_refused(self, kind: str, name: str) -> bool:
        """Whether EC2 refused lately what a change of that *kind* takes, on the interface *name*, so that it need not
        even be asked what there is."""
        return any(self.of(action, name) is not None for action in _TAKES[kind])

    @staticmethod
    def _denied(error: Refused) -> FabricRefused:
        remedy = "; see deploy/aws-eni-policy.json" if error.code == DENIED else ""
        return FabricRefused(f"EC2 refused {error.action}", f"EC2 says {error.code}: {error.message}{remedy}")
