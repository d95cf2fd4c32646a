"""At which device index an interface can be attached: memory says which are free, a refusal that one is not. Pure.

Others attach interfaces, too, and of our own an answer may be lost; so what is believed free may be taken.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import count
from typing import Final

from backends.aws.model import PRIMARY

BELIEVED: Final = 600.0
"""Seconds for which a refusal is believed."""
MANY: Final = 15
"""As many refusals as no instance has interfaces: then the index is not the reason."""


class Indexes:
    """*clock* answers seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._reserved: dict[str, int] = {}
        self._refused: dict[int, float] = {}

    def choose(self, eni: str, attached: Collection[int | None]) -> int:
        """One for an interface that is not attached, the same until it is `refused` or `free`; *attached* are known to
        be taken."""
        others = {index for name, index in self._reserved.items() if name != eni}
        taken = {*attached, *others, *self._believed()}
        if (index := self._reserved.get(eni)) is None or index in taken:
            index = next(one for one in count(PRIMARY + 1) if one not in taken)
        self._reserved[eni] = index
        return index

    def reserve(self, eni: str, index: int) -> None:
        """It is there, while it is being detached."""
        self._reserved[eni] = index

    def refused(self, eni: str) -> bool:
        """EC2 says that the one chosen for *eni* is taken. True: another may be free."""
        if (index := self._reserved.pop(eni, None)) is not None:
            self._refused = {**self._believed(), index: self._clock()}
        return len(self._refused) < MANY

    def free(self, eni: str) -> None:
        """It is attached, and known to be, or it is gone."""
        self._reserved.pop(eni, None)

    def _believed(self) -> dict[int, float]:
        return {index: when for index, when in self._refused.items() if abs(self._clock() - when) < BELIEVED}
