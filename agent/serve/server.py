"""The agent's unix socket: for root alone, one request and one answer per connection.

One thread at a time reads for all connections, so that slow, silent, half-closed and flooding clients cost a
descriptor for a few seconds and nothing else. Whoever has read a whole request serves it, and the next thread reads:
no request waits for a thread to wake up. What always holds: a connection is closed by the deadline or gets an answer,
and if a thread ends unasked, ``on_death`` is told.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Final

from agent.serve.connections import CONNECTIONS_MAX, Connections
from agent.serve.lane import Answer, Incoming, Together
from agent.serve.listener import Listener
from agent.serve.parking import Parking
from agent.serve.reading import Reading
from agent.serve.serving import Serving
from backends.threads import OnDeath, thread


class Server:
    """Serves what comes by *listener* with *workers* threads: see `Reading` and `Serving`. *room*: connections that
    there are descriptors for; *parking* is for as many."""

    name: Final = "socket"

    def __init__(
        self,
        listener: Listener,
        parking: Parking,
        serve: Callable[[Incoming], Answer | None],
        arrival: Callable[[], int],
        on_death: OnDeath,
        *,
        workers: int,
        together: Mapping[bytes, Together],
        on_wait: Callable[[], None] = lambda: None,
        room: int = CONNECTIONS_MAX,
        is_trusted: Callable[[int], bool] = lambda uid: uid == os.geteuid(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._parking = parking
        self._connections = Connections(room)
        self._serving = Serving(
            serve,
            together=together,
            connections=self._connections,
            parking=parking,
            on_wait=on_wait,
            on_death=on_death,
        )
        self._reading = Reading(
            listener,
            connections=self._connections,
            serving=self._serving,
            parking=parking,
            arrival=arrival,
            is_trusted=is_trusted,
            clock=clock,
        )
        self._threads = [thread(f"request-{number}", self._work, on_death) for number in range(workers)]

    def start(self) -> None:
        """Listen."""
        self._reading.start()
        for one in self._threads:
            one.start()

    def stop(self) -> None:
        """Take no more requests, answer those that are whole, and remove the socket."""
        self._reading.stop()
        self._parking.close()
        self._connections.wait()
        for one in self._threads:
            one.join()
        self._serving.stop()
        self._reading.close()

    def _work(self) -> None:
        while job := self._reading.next_job():
            job()
