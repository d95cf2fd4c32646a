"""Connections of the socket's clients: how many there are, and what has arrived by each."""

from __future__ import annotations

import select
import socket
import threading
from dataclasses import dataclass, field
from typing import Final

from cni import frame

CONNECTIONS_MAX: Final = 4096
"""Connections at once, where there are as many descriptors; more wait in the kernel's queue."""


@dataclass(slots=True)
class Client:
    """A connection that was accepted. *deadline* (monotonic) is when its request has to be whole."""

    stream: socket.socket
    deadline: float
    reader: frame.FrameReader = field(default_factory=frame.FrameReader)

    def is_gone(self) -> bool:
        """Whether it has hung up."""
        poll = select.poll()
        poll.register(self.stream, 0)
        return any(event & select.POLLHUP for _, event in poll.poll(0))


class Connections:
    """Counts those that are open, of which *room* may be. Any thread may call."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._open = 0
        self._changed = threading.Condition()

    @property
    def has_room(self) -> bool:
        """Whether there may be one more."""
        return self._open < self._room

    def opened(self) -> None:
        """There is one more."""
        with self._changed:
            self._open += 1

    def close(self, client: Client) -> None:
        """Close what was `opened`."""
        client.stream.close()
        with self._changed:
            self._open -= 1
            self._changed.notify_all()

    def wait(self) -> None:
        """Return when all are closed."""
        with self._changed:
            self._changed.wait_for(lambda: not self._open)
