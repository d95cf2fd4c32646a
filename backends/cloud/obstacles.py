"""What a cloud refuses: which action, on what, why, and until when that is believed; never for good. Pure.

What always holds: an obstacle stands in the way of the action that was refused, on the object that it was refused for,
and of nothing else; each time in a row that the same is refused, it is believed for longer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from cni.errors import Failure

AT_ONCE: Final = 0.0
"""Seconds until it is tried again what was refused for its arguments or the object's state: others may do."""
SOON: Final = 2.0
"""… until credentials are tried again: a machine that boots has them in a moment."""
FOR_NOW: Final = 60.0
"""… what somebody must do something about: a range that is full, a permission."""
FIRST: Final = 1.0
"""Seconds: half the second pause, where the first is none."""
SOONEST: Final = 15.0
"""Seconds: the longest of all pauses for credentials."""
LONGEST: Final = 600.0
"""Seconds: the longest of all."""
CREDENTIALS: Final = "credentials"
"""Stands for every action: without good ones nothing can be asked."""


class Obstacle(NamedTuple):
    """What stands in the way *until* a time, and whose business that is; *code* is the cloud's word for it. It was
    refused *times* in a row."""

    until: float
    failure: Failure
    code: str = ""
    times: int = 1


class Obstacles:
    """*clock* answers seconds, *random* numbers from 0 to 1. A cloud's own subclass puts in what its codes mean.

    An action is kept from, too, by what stands in the way of the *wider* one; *growth* are those that more addresses
    take, in the order in which they are told; *last* is what has a way around it.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        random: Callable[[], float],
        *,
        wider: Mapping[str, str],
        growth: Sequence[str],
        last: str,
    ) -> None:
        self._clock = clock
        self._random = random
        self._wider = wider
        self._growth = growth
        self._last = last
        self._known: dict[tuple[str, str], Obstacle] = {}

    # --- what is learned ----------------------------------------------------------------------------------------

    def put(
        self, action: str, about: str, pause: float, failure: Failure, code: str = "", longest: float = LONGEST
    ) -> None:
        """It stands in the way of *action* on the object *about*, '' for whatever it is, for about *pause* seconds."""
        key, now = (action, about), self._clock()
        known = self._known.get(key)
        is_again = known is not None and now - known.until < LONGEST
        times = known.times + 1 if known is not None and is_again else 1
        seconds = min(longest, (pause or FIRST) * 2.0 ** (times - 1)) if pause or times > 1 else 0.0
        self._known[key] = Obstacle(now + seconds * (0.5 + 0.5 * self._random()), failure, code, times)

    def passed(self, action: str, about: str) -> None:
        """The cloud did it: nothing of what was refused before stands in its way."""
        for key in ((CREDENTIALS, ""), (action, about), (action, "")):
            self._known.pop(key, None)

    # --- what it means ------------------------------------------------------------------------------------------

    def of(self, action: str, *about: str) -> Failure | None:
        """What stands in the way of *action*, on any of these objects, now."""
        found = self._found(action, about)
        return found.failure if found is not None else None

    def code(self, action: str, *about: str) -> str:
        """What the cloud says of it; '' where nothing stands in its way."""
        found = self._found(action, about)
        return found.code if found is not None else ""

    def pause(self, action: str, *about: str) -> float:
        """Seconds until it may be tried again."""
        found = self._found(action, about)
        return found.until - self._clock() if found is not None else 0.0

    def all(self) -> list[Failure]:
        """Everything that stands in the way of something now: first what keeps pods waiting, last what has a way
        around it."""
        order = {action: place for place, action in enumerate((*self._growth, "", self._last))}
        keys = sorted(self._known, key=lambda key: order.get(key[0], order[""]))
        found = [one.failure for key in keys if (one := self._of(key)) is not None]
        return [one for place, one in enumerate(found) if one not in found[:place]]

    def growing(self) -> list[Failure]:
        """What stands in the way of more addresses."""
        of_growth = [key for key in self._known if key[0] in (*self._growth, self._last)]
        return [one for one in self.all() if any(found.failure is one for found in map(self._of, of_growth) if found)]

    def _found(self, action: str, about: Iterable[str]) -> Obstacle | None:
        actions = (action, self._wider[action]) if action in self._wider else (action,)
        keys = [(CREDENTIALS, ""), *((one, name) for one in actions for name in ("", *about))]
        return next((one for one in map(self._of, keys) if one is not None), None)

    def _of(self, key: tuple[str, str]) -> Obstacle | None:
        known = self._known.get(key)
        return known if known is not None and known.until > self._clock() else None
