"""What EC2 refuses: which action, on what, why, and until when that is believed; never for good. Pure.

What always holds: an obstacle stands in the way of the action that was refused, on the object that it was refused for,
and of nothing else; each time in a row that the same is refused, it is believed for longer. Who knows a way around it
(fewer addresses, another moment) is not held up: see `LEFT`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, TypeAlias

from backends.aws.calls import ASSIGN, ASSIGN6, ATTACH, CREATE, CREDENTIALS, Refused
from cni.errors import Exhausted, FabricRefused, Failure

AT_ONCE: Final = 0.0
"""Seconds until it is tried again what was refused for its arguments or the object's state: others may do."""
SOON: Final = 2.0
"""… until credentials are tried again: a machine that boots has them in a moment."""
FOR_NOW: Final = 60.0
"""… a subnet, the VPC or a permission."""
FRAGMENTED: Final = 600.0
"""… prefixes, where there was none, and interfaces, where the instance has all that it can have."""
FIRST: Final = 1.0
"""Seconds: half the second pause, where the first is none."""
SOONEST: Final = 15.0
"""Seconds: the longest of all pauses for credentials."""
LONGEST: Final = 600.0
"""Seconds: the longest of all."""

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
"""What is left to whoever asked: fewer may do, or what was just made is not seen yet; see `Obstacles.refused`."""
_OF_ARGUMENTS: Final = ("Invalid", "Incorrect", "Dependency", "IdempotentParameter")
"""How codes begin that say that this call was wrong, or came at the wrong moment."""
ADDRESSES: Final = "addresses"
"""Stands for every action that takes addresses of a subnet."""
PREFIXES: Final = "prefixes"
"""Stands for prefixes: where a subnet has none, single addresses do everywhere."""
_TAKES: Final = frozenset((ASSIGN, ASSIGN6, CREATE))
_GROWTH: Final = (CREDENTIALS, ADDRESSES, ASSIGN, CREATE, ATTACH, ASSIGN6)

Key: TypeAlias = tuple[str, str]
"""An action, and what it is about: the id of an object, or '' for whatever it is."""


class Obstacle(NamedTuple):
    """What stands in the way *until* a time, and whose business that is; *code* is EC2's word for it. It was refused
    *times* in a row."""

    until: float
    failure: Failure
    code: str = ""
    times: int = 1


class Obstacles:
    """*clock* answers seconds, *random* numbers from 0 to 1."""

    def __init__(self, clock: Callable[[], float], random: Callable[[], float] = lambda: 1.0) -> None:
        self._clock = clock
        self._random = random
        self._known: dict[Key, Obstacle] = {}

    # --- what is learned ----------------------------------------------------------------------------------------

    def noticed(self, error: Refused, about: str) -> None:
        """EC2 refused a call on the object *about*: for whoever makes calls, with every refusal."""
        code, action, said = error.code, error.action, f"EC2 says {error.code}: {error.message}"
        why: Failure
        if error.is_credentials:
            why = FabricRefused("EC2 does not accept this node's credentials", f"{said}; see the role of the instance")
            self._put((CREDENTIALS, ""), SOON, why, code, SOONEST)
        elif code == NO_UNITS:
            remedy = "; ask for a higher quota of network address usage, or use prefixes"
            why = Exhausted("the VPC has no more network address units", said + remedy)
            self._put((ADDRESSES, ""), FOR_NOW, why, code)
        elif code == NO_INTERFACE:
            self._put((ATTACH, ""), FRAGMENTED, Exhausted("the instance can have no more interfaces", said), code)
        elif code not in LEFT:
            pause = AT_ONCE if code.startswith(_OF_ARGUMENTS) else FOR_NOW
            self._put((action, about), pause, self._denied(error), code)

    def refused(self, error: Refused, subnet: str, name: str = "") -> None:
        """EC2 refused the least that can be asked for, in *subnet*, for the interface *name*: for whoever knows that it
        was the least. What is not about that was noticed."""
        code, said = error.code, f"EC2 says {error.code}: {error.message}"
        if code == NO_PREFIX:
            self._put((PREFIXES, ""), FRAGMENTED, Exhausted(f"no prefix is free in subnet {subnet}", said), code)
        elif code == NO_ADDRESS:
            remedy = "; give the cluster another subnet (aws.subnets)"
            why = Exhausted(f"subnet {subnet} has no free address", said + remedy)
            self._put((ADDRESSES, subnet), FOR_NOW, why, code)
        elif code in (NO_SLOT, NOT_FOUND):
            why = Exhausted(f"interface {name} takes no more addresses", said)
            self._put((error.action, name), FOR_NOW, why, code)

    def nowhere(self, subnets: Iterable[str]) -> None:
        """No interface can be made in any of *subnets*."""
        known = [failure for name in subnets if (failure := self.of(CREATE, name)) is not None]
        none = Exhausted("no subnet is there to make an interface in", "aws.subnets or aws.subnet_tags name none here")
        self._put((CREATE, ""), FOR_NOW, known[0] if known else none)

    def unplaced(self, error: Refused) -> None:
        """It cannot be found out where an interface could be made."""
        self._put((CREATE, ""), FOR_NOW, self._denied(error), error.code)

    def unguarded(self) -> None:
        """No interface can be made, since it would have other security groups than those wanted."""
        none = Exhausted("no security group of the VPC has the wanted tags", "see aws.security_group_tags")
        self._put((CREATE, ""), FOR_NOW, none)

    def unattached(self, error: Refused) -> None:
        """An interface that was made could not be attached: no other one is made for nothing."""
        if self.of(ATTACH) is None:
            self._put((ATTACH, ""), FOR_NOW, self._denied(error), error.code)

    def passed(self, action: str, about: str) -> None:
        """EC2 did it: nothing of what was refused before stands in its way."""
        for key in ((CREDENTIALS, ""), (action, about), (action, "")):
            self._known.pop(key, None)

    # --- what it means ------------------------------------------------------------------------------------------

    def of(self, action: str, *about: str) -> Failure | None:
        """What stands in the way of *action*, on any of these objects, now."""
        found = self._found(action, about)
        return found.failure if found is not None else None

    def code(self, action: str, *about: str) -> str:
        """What EC2 says of it; '' where nothing stands in its way."""
        found = self._found(action, about)
        return found.code if found is not None else ""

    def pause(self, action: str, *about: str) -> float:
        """Seconds until it may be tried again."""
        found = self._found(action, about)
        return found.until - self._clock() if found is not None else 0.0

    def all(self) -> list[Failure]:
        """Everything that stands in the way of something now: first what keeps pods waiting, last what has a way
        around it."""
        order = {action: place for place, action in enumerate((*_GROWTH, "", PREFIXES))}
        keys = sorted(self._known, key=lambda key: order.get(key[0], order[""]))
        found = [one.failure for key in keys if (one := self._of(key)) is not None]
        return [one for place, one in enumerate(found) if one not in found[:place]]

    def growing(self) -> list[Failure]:
        """What stands in the way of more addresses."""
        of_growth = [key for key in self._known if key[0] in (*_GROWTH, PREFIXES)]
        return [one for one in self.all() if any(found.failure is one for found in map(self._of, of_growth) if found)]

    def _found(self, action: str, about: Iterable[str]) -> Obstacle | None:
        actions = (action, ADDRESSES) if action in _TAKES else (action,)
        keys = [(CREDENTIALS, ""), *((one, name) for one in actions for name in ("", *about))]
        return next((one for one in map(self._of, keys) if one is not None), None)

    def _of(self, key: Key) -> Obstacle | None:
        known = self._known.get(key)
        return known if known is not None and known.until > self._clock() else None

    @staticmethod
    def _denied(error: Refused) -> FabricRefused:
        remedy = "; see deploy/aws-eni-policy.json" if error.code == DENIED else ""
        return FabricRefused(f"EC2 refused {error.action}", f"EC2 says {error.code}: {error.message}{remedy}")

    def _put(self, key: Key, pause: float, failure: Failure, code: str = "", longest: float = LONGEST) -> None:
        now, known = self._clock(), self._known.get(key)
        is_again = known is not None and now - known.until < LONGEST
        times = known.times + 1 if known is not None and is_again else 1
        seconds = min(longest, (pause or FIRST) * 2.0 ** (times - 1)) if pause or times > 1 else 0.0
        self._known[key] = Obstacle(now + seconds * (0.5 + 0.5 * self._random()), failure, code, times)
