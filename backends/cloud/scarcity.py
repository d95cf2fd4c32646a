"""How many blocks a range of a cloud's network may still have, by what was refused of it lately. Pure.

A cloud gives all that is asked for or nothing, and does not say how many there are. Half as many are asked for after
each refusal, down to one; where that was is remembered between calls, since a pause may come between any two of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

FOR_NOW: Final = 60.0
"""Seconds for which it is believed."""


class Scarcity:
    """*clock* answers seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: dict[tuple[str, int], tuple[float, int]] = {}

    def refused(self, where: str, size: int, chunks: int) -> None:
        """There are not so many blocks of *size*."""
        self._known[where, size] = self._clock() + FOR_NOW, max(1, chunks // 2)

    def most(self, where: str, size: int, chunks: int) -> int:
        """How many of so many to ask for."""
        until, most = self._known.get((where, size), (0.0, chunks))
        return min(chunks, most) if 0 < until - self._clock() <= FOR_NOW else chunks
