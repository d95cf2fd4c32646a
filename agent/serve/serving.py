"""Requests that are whole are served: alone, or in their lane together with others; and answers are sent.

What always holds: a client whose request came here gets an answer, or waits in the parking, or is hung up on by a bug,
which ends the process.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Final

from agent.serve.connections import Client, Connections
from agent.serve.lane import Answer, Incoming, Lane, Together
from agent.serve.parking import Parking
from backends.threads import OnDeath, watched
from cni import frame

log = logging.getLogger(__name__)

WRITE_DEADLINE: Final = 5.0
"""Seconds for a client to take its answer."""
MORE: Final = 16
"""Threads for what could not be served together with others: it may have to wait for what is."""
_FINISHING: Final = 4
"""Threads for finishing a batch while the next are begun. That waits for nobody, so it must not be done by the threads
that may all be waiting for it."""

Job = Callable[[], None]
"""What whoever has the time does next."""


class Serving:
    """*serve* answers a request and raises nothing; one that it answers with None waits in *parking*, and *on_wait* is
    told. What has its CNI_COMMAND in *together* is not served one by one."""

    def __init__(
        self,
        serve: Callable[[Incoming], Answer | None],
        *,
        together: Mapping[bytes, Together],
        connections: Connections,
        parking: Parking,
        on_wait: Callable[[], None],
        on_death: OnDeath,
    ) -> None:
        self._serve = serve
        self._connections = connections
        self._parking = parking
        self._on_wait = on_wait
        self._on_death = on_death
        self._lanes: dict[bytes, Lane[Client]] = {command: Lane(one) for command, one in together.items()}
        self._alone = ThreadPoolExecutor(MORE, thread_name_prefix="more")
        self._finishing = ThreadPoolExecutor(_FINISHING, thread_name_prefix="finish")

    def enter(self, client: Client, incoming: Incoming, do: Callable[[Job], None]) -> None:
        """Have *do* somebody serve it."""
        lane = self._lanes.get(incoming.command)
        if lane is None:
            do(lambda: self._serve_one(client, incoming))
        elif lane.enter(client, incoming):
            do(lambda: self._serve_lane(lane))

    def send(self, client: Client, answer: Answer) -> None:
        """Answer, and hang up."""
        is_delivered = False
        try:
            client.stream.settimeout(WRITE_DEADLINE)
            client.stream.sendall(frame.encode_response(answer.response))
            is_delivered = True
        except OSError as error:
            log.warning("an answer could not be delivered", extra={"error": str(error)})
        finally:
            try:
                if answer.afterwards is not None:
                    answer.afterwards(is_delivered)
            finally:
                self._connections.close(client)

    def stop(self) -> None:
        """Once everything is answered: end the threads."""
        for pool in (self._alone, self._finishing):
            pool.shutdown(wait=True)

    def _serve_one(self, client: Client, incoming: Incoming) -> None:
        with self._closed_by_a_bug([client]):
            answer = self._serve(incoming)
        if answer is not None:
            self.send(client, answer)
        elif self._parking.park(incoming, lambda again: self.enter(client, again, self._later)):
            self._on_wait()
        else:
            self._serve_one(client, incoming._replace(has_patience=False))

    def _serve_lane(self, lane: Lane[Client]) -> None:
        has_more = True
        while has_more:
            is_first = lane.beginning.acquire(blocking=False)
            if not is_first:
                lane.beginning.acquire()
                time.sleep(lane.together.company)
            try:
                batch, has_more = lane.batch()
                clients = [client for client, _ in batch]
                incomings = [incoming for _, incoming in batch]
                with self._closed_by_a_bug(clients):
                    finish = lane.together.serve(incomings)
            finally:
                lane.beginning.release()
            if has_more:
                self._have(self._finishing, partial(self._finish, clients, incomings, finish))
            else:
                self._finish(clients, incomings, finish)

    def _finish(
        self,
        clients: Sequence[Client],
        incomings: Sequence[Incoming],
        finish: Callable[[], Sequence[Answer | None]],
    ) -> None:
        with self._closed_by_a_bug(clients):
            answers = finish()
        for client, incoming, answer in zip(clients, incomings, answers, strict=True):
            if answer is not None:
                self.send(client, answer)
            else:
                self._later(partial(self._serve_one, client, incoming))

    def _later(self, work: Job) -> None:
        self._have(self._alone, work)

    def _have(self, pool: ThreadPoolExecutor, work: Job) -> None:
        pool.submit(watched("more", work, self._on_death))

    @contextmanager
    def _closed_by_a_bug(self, clients: Sequence[Client]) -> Iterator[None]:
        try:
            yield
        except BaseException:
            for client in clients:
                self._connections.close(client)
            raise
