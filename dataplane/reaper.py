"""Deleting links together.

The kernel waits about 20 ms for RCU whenever links are deleted, be it one or sixty. So deletions that arrive while
one is under way wait for it and then go together: put into one link group, removed by one message.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class _Ticket:
    name: str
    done: bool = False
    error: BaseException | None = field(default=None)


class Reaper:
    """Collects deletions: whoever finds the kernel free deletes for all that wait.

    *delete* removes the links with the given names, at once, and raises if it cannot.
    """

    def __init__(self, delete: Callable[[Sequence[str]], None]) -> None:
        self._delete = delete
        self._turn = threading.Lock()
        self._lock = threading.Lock()
        self._waiting: list[_Ticket] = []

    def remove(self, names: Sequence[str]) -> None:
        """Delete links and return when they are gone; any thread may call, and calls are combined.

        Raises:
            what *delete* raised for the batch that held one of *names*.
        """
        tickets = [_Ticket(name) for name in names]
        with self._lock:
            self._waiting += tickets
        with self._turn:
            if not all(ticket.done for ticket in tickets):
                self._lead()
        for ticket in tickets:
            if ticket.error is not None:
                raise ticket.error

    def _lead(self) -> None:
        with self._lock:
            batch, self._waiting = self._waiting, []
        try:
            self._delete([ticket.name for ticket in batch])
        except BaseException as error:  # noqa: BLE001 - carried over: every caller of the batch raises it
            for ticket in batch:
                ticket.error = error
        finally:
            for ticket in batch:
                ticket.done = True
