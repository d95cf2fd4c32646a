"""What the emulated clouds have in common: a clock, unfriendliness drawn from a seed, and a log of who changed what."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from netaddr import IPNetwork

Within = tuple[float, float]
"""At least and at most so many seconds, drawn anew each time."""
NEVER: Within = (0.0, 0.0)

SOMEBODY = "somebody"
"""Who made a change that no call of an agent made."""


class Switches(Protocol):
    """What every cloud may do to its callers; each has more. A frozen dataclass: everything drawn comes from its seed
    and the order of the calls alone."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def seed(self) -> int: ...

    @property
    def losing(self) -> float:
        """The chance that a call's connection breaks, before it was done or after."""

    @property
    def failing(self) -> float:
        """The chance of a server's error, in its own words or as a page of what stands before it, done or not."""

    @property
    def throttling(self) -> float:
        """The chance that a call is throttled although there is quota left."""

    @property
    def doubling(self) -> float:
        """The chance that a call comes twice."""


U = TypeVar("U", bound=Switches)


@dataclass(frozen=True, slots=True)
class Change:
    """*who* did *action*: interface *nic*, on *instance* then ('' if on none), got *gained* and lost *lost*."""

    when: float
    who: str
    action: str
    nic: str
    instance: str
    gained: tuple[IPNetwork, ...] = ()
    lost: tuple[IPNetwork, ...] = ()


class Fate(Generic[U]):
    """*clock* answers seconds. What a test may set: *unkind*."""

    def __init__(self, clock: Callable[[], float], unkind: U) -> None:
        self.clock = clock
        self.log: list[Change] = []
        """Every change, the oldest first."""
        self.doing = SOMEBODY, ""
        """Who does what, while changes are made."""
        self.unkind = unkind
        self._random = random.Random(unkind.seed)

    def set_unkind(self, unkind: U) -> None:
        """How it is from now on."""
        self.unkind = unkind
        self._random = random.Random(unkind.seed)

    def become(self, **changes: object) -> None:
        """Some switches are otherwise from now on."""
        self.set_unkind(replace(self.unkind, **changes))

    def drawn(self, within: Within) -> float:
        """So many seconds."""
        return self._random.uniform(*within) if within[1] else 0.0

    def chance(self) -> float:
        """From 0 to 1."""
        return self._random.random()

    @contextmanager
    def by(self, who: str, action: str) -> Iterator[None]:
        """What changes meanwhile *who* did."""
        before, self.doing = self.doing, (who, action)
        try:
            yield
        finally:
            self.doing = before

    def lost(self, instance: str, block: IPNetwork) -> list[Change]:
        """When what is in *block* or has it in it left an instance, and who did it."""
        gone = [one for one in self.log if one.instance == instance]
        return [one for one in gone if any(each in block or block in each for each in one.lost)]
