"""Requests that cannot be served now wait without a thread: an ADD for an address, a STATUS for the end of the start.

What always holds: whoever waits here is served again, when there is news, when his time is over, or at the end; and so
many cannot wait that others could not connect.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from agent.serve.connections import CONNECTIONS_MAX
from agent.serve.lane import Incoming

PATIENCE: Final = 45.0
"""Seconds from its arrival for which a request may wait to be served: the executable waits for 60."""

Again = Callable[[Incoming], None]
"""Has somebody serve a request that waited, and does not wait for that."""


class _Waiting(NamedTuple):
    incoming: Incoming
    deadline: float
    again: Again


class Parking:
    """Any thread may call. Of *room* connections three quarters may wait; *patience* says for how many seconds, by
    CNI_COMMAND, where that is not `PATIENCE`."""

    def __init__(
        self,
        room: int = CONNECTIONS_MAX,
        *,
        patience: Mapping[bytes, float] = MappingProxyType({}),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = room * 3 // 4
        self._patience = patience
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: list[_Waiting] = []
        self._is_closed = False

    def waiting(self) -> int:
        """How many ADDs wait for `resume`."""
        return sum(one.incoming.command == b"ADD" for one in self._waiting)

    def park(self, incoming: Incoming, again: Again) -> bool:
        """Have it wait for `resume`; False: nothing does any more, or so much that others could not connect."""
        arrived = incoming.arrived if incoming.arrived is not None else self._clock()
        deadline = arrived + self._patience.get(incoming.command, PATIENCE)
        with self._lock:
            may_wait = not self._is_closed and len(self._waiting) < self._most
            if may_wait:
                self._waiting.append(_Waiting(incoming, deadline, again))
            return may_wait

    def resume(self, has_news: bool) -> None:
        """Serve those that wait: all, if it *has_news* of what they wait for, good or bad, or else those whose time
        is over; who hung up waits no more."""
        now = self._clock()
        with self._lock:
            judged = [(one, one.deadline > now and not one.incoming.is_gone()) for one in self._waiting]
            self._waiting = [] if has_news else [one for one, may_wait in judged if may_wait]
        for one, may_wait in judged:
            if has_news or not may_wait:
                has_patience = may_wait and not self._is_closed
                one.again(one.incoming._replace(has_patience=has_patience))

    def close(self) -> None:
        """Nobody waits from now on; who does is served, and told that nothing came."""
        with self._lock:
            self._is_closed = True
        self.resume(has_news=True)
