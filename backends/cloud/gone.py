"""What was given back to a cloud lately, which answers that lag behind may still show. Pure.

A block may come again, to the same interface or to another, the moment after it was given back. So it is remembered
with its interface, only for as long as an answer may be that old, and not against better evidence: the cloud's own word
that it was assigned anew, or a pod that has an address of it, which nobody could have got after it had gone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

from netaddr import IPAddress, IPNetwork

GONE: Final = 300.0
"""Seconds for which a machine's metadata may still show what was taken away."""


class LatelyGone:
    """*known* is what an earlier process had: `times` of then. *held* answers the addresses that pods have."""

    def __init__(
        self, known: Mapping[str, float], clock: Callable[[], float], held: Callable[[], Collection[IPAddress]]
    ) -> None:
        self._clock = clock
        self._held = held
        self.times: dict[str, float] = dict(known)
        """When each went: an interface by its id, a block by that of its interface and its own name."""

    def add(self, interface: str, blocks: Iterable[str] = (), *, is_whole: bool = False) -> None:
        """*blocks* went from *interface*; if it *is_whole*, so did the interface itself."""
        now = self._clock()
        self.times = {name: when for name, when in self.times.items() if abs(now - when) < GONE}
        self.times.update(dict.fromkeys((_key(interface, block) for block in blocks), now))
        if is_whole:
            self.times[interface] = now

    def forget(self, interface: str, blocks: Iterable[IPNetwork]) -> None:
        """They are there, by a word that cannot be old."""
        for name in (interface, *(_key(interface, str(block)) for block in blocks)):
            self.times.pop(name, None)

    def has_whole(self, interface: str, seconds: float) -> bool:
        """Whether it went within so many seconds: its id never comes again."""
        return self._is_recent(interface, seconds)

    def of(self, interface: str, blocks: Iterable[IPNetwork], seconds: float) -> frozenset[IPNetwork]:
        """Those of *blocks* that went from *interface* within so many seconds, and have not come again as far as is
        known."""
        found = [block for block in blocks if self._is_recent(_key(interface, str(block)), seconds)]
        held = self._held() if found else ()
        return frozenset(block for block in found if not any(address in block for address in held))

    def _is_recent(self, name: str, seconds: float) -> bool:
        when = self.times.get(name)
        return when is not None and abs(self._clock() - when) < seconds


def _key(interface: str, block: str) -> str:
    return f"{interface} {block}"
