"""The parts that live of the backends in use: of the two that a node is between, and of the one that it rests with.

What always holds: a backend's parts live while either way that is programmed is its, so what it says to others, as a
speaker of a routing protocol does, is said before the first peer moves and until the last has.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence

from agent.process.life import Life
from backends.descriptor import Part
from backends.told import Told, together


class Lives:
    """Any thread may call. *make* answers the parts of the backend of a name, new ones each time. Those of the backends
    *lasting* live all the time: others may be reached by what they say still."""

    def __init__(
        self, make: Callable[[str], Sequence[Part]], life: Life, lasting: Collection[str] = ()
    ) -> None:
        self._make = make
        self._life = life
        self._lasting = frozenset(lasting)
        self._lock = threading.Lock()
        self._parts: dict[str, Sequence[Part]] = {}

    def use(self, names: Collection[str]) -> None:
        """The backends of these *names* are in use, and no others. ConfigInvalid: what one needs is not installed."""
        names = self._lasting.union(names)
        with self._lock:
            begun = {name: self._make(name) for name in names if name not in self._parts}
            for part in (one for parts in begun.values() for one in parts):
                self._life.begin(part)
            ended = [part for name, parts in self._parts.items() if name not in names for part in parts]
            self._parts = {name: parts for name, parts in (self._parts | begun).items() if name in names}
        for part in ended:
            self._life.finish(part)

    def wake(self) -> None:
        """Pods wait for addresses."""
        for part in self._living():
            part.wake()

    def told(self) -> Told:
        """See `backends.told.Teller`."""
        return together(part.told() for part in self._living())

    def _living(self) -> list[Part]:
        return [part for parts in self._parts.values() for part in parts]
