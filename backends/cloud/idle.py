"""Blocks as the policy of the warm pool counts them, with the time since when nobody has used them."""

from __future__ import annotations

from collections.abc import Callable

from netaddr import IPNetwork

from ipam.family import Counts
from ipam.warmpool import Chunk, Pool


class Idle:
    """*clock* answers seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: dict[str, float] = {}

    def chunk(self, block: IPNetwork, counts: Counts | None) -> Chunk:
        """What the policy sees of *block*; *counts* are its addresses' states, None while it is not offered."""
        name, now = str(block), self._clock()
        used, cooling = (counts.used, counts.cooling) if counts is not None else (0, 0)
        return Chunk(name, int(block.size), used, cooling, now - self._since.get(name, now))

    def note(self, pool: Pool) -> None:
        """Remember since when each block has not been used."""
        now = self._clock()
        self._since = {one.name: self._since.get(one.name, now) for one in pool.chunks if one.is_empty}
