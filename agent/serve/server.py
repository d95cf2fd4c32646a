"""The agent's unix socket: for root alone, one request and one answer per connection.

One thread at a time reads for all connections, so that slow, silent, half-closed and flooding clients cost a
descriptor for a few seconds and nothing else. Whoever has read a whole request serves it, and the next thread reads:
no request waits for a thread to wake up. What always holds: a connection is closed by the deadline or gets an answer,
and if a thread ends unasked, ``on_death`` is told.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from agent.serve.lane import Answer, Incoming, Lane, Together
from agent.serve.listener import BACKLOG, Identity, bound, identity, listening
from cni import frame, result
from cni.errors import ConfigInvalid, Failure, NotReady, Unreadable

log = logging.getLogger(__name__)

READ_DEADLINE: Final = 10.0
"""Seconds for a whole request to arrive."""
WRITE_DEADLINE: Final = 5.0
"""Seconds for a client to take its answer."""
PATIENCE: Final = 45.0
"""Seconds from its arrival for which a request may wait to be served: the executable waits for 60."""
CONNECTIONS_MAX: Final = 4096
"""Connections at once, where there are as many descriptors; more wait in the kernel's queue."""
CROWDED: Final = 1.0
"""Seconds that a request has to arrive while no more connections are taken: who says nothing keeps nobody out."""
LOOK: Final = 1.0
"""Seconds between looks whether the socket is where it was, and whose time to wait is over."""
_CHUNK: Final = 64 * 1024
_ACCEPT_AT_ONCE: Final = 64
_PAUSE: Final = 0.1
"""Seconds between looks whether there is room again for one more connection."""
_MORE: Final = 16
"""Threads for what could not be served together with others, and for finishing while the next are begun."""
_UCRED: Final = struct.Struct("3i")
_EXHAUSTED: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


@dataclass(slots=True)
class _Client:
    stream: socket.socket
    deadline: float
    reader: frame.FrameReader = field(default_factory=frame.FrameReader)

    def is_gone(self) -> bool:
        poll = select.poll()
        poll.register(self.stream, 0)
        return any(event & select.POLLHUP for _, event in poll.poll(0))


class _Waiting(NamedTuple):
    client: _Client
    incoming: Incoming
    deadline: float


class Server:
    """Serves the socket at *path* with *workers* threads.

    *serve* answers a request and raises nothing; one that it answers with None waits for `resume`, and *on_wait* is
    told; *patience* says for how many seconds, by CNI_COMMAND, where that is not `PATIENCE`. *arrival* is called when
    a request is complete. What has its CNI_COMMAND in *together* is not served one by one. *room*: connections
    that there are descriptors for. *is_trusted* judges the uid of the peer's process.
    """

    name: Final = "socket"

    def __init__(
        self,
        path: Path,
        serve: Callable[[Incoming], Answer | None],
        arrival: Callable[[], int],
        on_death: Callable[[str, BaseException], None],
        *,
        workers: int,
        together: Mapping[bytes, Together],
        on_wait: Callable[[], None] = lambda: None,
        patience: Mapping[bytes, float] = MappingProxyType({}),
        room: int = CONNECTIONS_MAX,
        is_trusted: Callable[[int], bool] = lambda uid: uid == os.geteuid(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._serve = serve
        self._arrival = arrival
        self._on_death = on_death
        self._on_wait = on_wait
        self._patience_of = patience
        self._waiting: list[_Waiting] = []
        self._room = room
        self._problem: Failure | None = None
        self._looked_at = clock()
        self._is_trusted = is_trusted
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._listener: socket.socket | None = None
        self._identity: Identity | None = None
        self._wake, self._waker = socket.socketpair()
        self._clients: dict[int, _Client] = {}
        self._reading = threading.Lock()
        self._ready: deque[Callable[[], None]] = deque()
        self._lanes: dict[bytes, Lane[_Client]] = {command: Lane(one) for command, one in together.items()}
        self._pool = ThreadPoolExecutor(_MORE, thread_name_prefix="more")
        self._lock = threading.Lock()
        self._open = 0
        self._all_closed = threading.Condition(self._lock)
        self._is_listening = False
        self._stopping = False
        self._threads = [self._thread(f"request-{number}", self._work) for number in range(workers)]

    def _thread(self, name: str, work: Callable[[], None]) -> threading.Thread:
        return threading.Thread(target=self._watched(name, work), name=name, daemon=True)

    def _watched(self, name: str, work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 (the top of a thread)
                self._on_death(name, error)

        return run

    def take(self) -> None:
        """Have the socket, and nobody else. ConfigInvalid: it cannot be made there, or another agent has it."""
        self._listener = bound(self._path)
        self._identity = identity(self._path)

    def start(self) -> None:
        """Listen. ConfigInvalid: see `take`, which is done where it was not."""
        if self._listener is None:
            self.take()
        assert self._listener is not None
        self._listener.listen(BACKLOG)
        self._selector.register(self._wake, selectors.EVENT_READ)
        for thread in self._threads:
            thread.start()

    def problem(self) -> Failure | None:
        """Why nobody can connect. Any thread may ask."""
        return self._problem

    @property
    def waiting(self) -> int:
        """How many ADDs wait for `resume`."""
        return sum(_command(one.incoming) == b"ADD" for one in self._waiting)

    def resume(self, has_hope: bool) -> None:
        """Serve those that wait: all, if it *has_hope*, or else those whose time is over; who hung up waits no more."""
        now = self._clock()
        with self._lock:
            judged = [(one, one.deadline > now and not one.client.is_gone()) for one in self._waiting]
            self._waiting = [] if has_hope else [one for one, may_wait in judged if may_wait]
        for one, may_wait in judged:
            if has_hope or not may_wait:
                has_patience = may_wait and not self._stopping
                self._enter(one.client, one.incoming._replace(has_patience=has_patience), self._later)

    def stop(self) -> None:
        """Take no more requests, answer those that are whole, and remove the socket."""
        with self._lock:
            self._stopping = True
        self._waker.send(b"x")
        with self._reading:
            if self._listener is not None:
                if identity(self._path) == self._identity:
                    self._path.unlink(missing_ok=True)
                self._listener.close()
            for client in list(self._clients.values()):
                self._release(client)
                self._close(client)
        self.resume(has_hope=True)  # who comes to wait from now on is served at once, too: see `_park`
        with self._all_closed:
            while self._open:
                self._all_closed.wait()
        for thread in self._threads:
            thread.join()
        self._pool.shutdown(wait=True)
        for stream in (self._wake, self._waker):
            stream.close()
        self._selector.close()

    # --- reading: one thread at a time ------------------------------------------------------------------------

    def _work(self) -> None:
        while job := self._next():
            job()

    def _next(self) -> Callable[[], None] | None:
        """What is to be done next; None: nothing any more."""
        with self._reading:
            while not self._ready and not self._stopping:
                self._step()
            return self._ready.popleft() if self._ready else None

    def _step(self) -> None:
        if not self._is_listening and self._open < self._most:
            self._listen(True)
        for key, _ in self._selector.select(self._patience()):
            if key.fileobj is self._listener:
                self._accept()
            elif key.fileobj is not self._wake:
                self._read(self._clients[key.fd])
        now = self._clock()
        if now >= self._looked_at + LOOK:
            self._looked_at = now
            self._look()
        over = now if self._is_listening else now + READ_DEADLINE - CROWDED
        # All have the same time, so they run out in the order in which they came.
        while self._clients and (oldest := next(iter(self._clients.values()))).deadline <= over:
            late = Unreadable("no whole request arrived in the time allowed", oldest.reader.eof().message)
            self._answer_failure(oldest, late)

    @property
    def _most(self) -> int:
        return min(CONNECTIONS_MAX, self._room)

    def _look(self) -> None:
        """Whose time to wait is over need not wait for a pass, and a socket that is gone is made anew."""
        self.resume(has_hope=False)
        if self._identity is not None and identity(self._path) == self._identity:
            self._problem = None
            return
        try:
            fresh = listening(self._path)
        except ConfigInvalid as failure:
            if str(failure.details) != str(self._problem and self._problem.details):
                log.error("the socket is gone and cannot be made anew", extra={"error": str(failure)})
            self._problem = NotReady(f"the socket {self._path} is gone: no runtime reaches the agent", str(failure))
            return
        log.warning("somebody removed the socket: it was made anew", extra={"socket": str(self._path)})
        assert self._listener is not None
        self._accept()  # who connected before it was removed
        has_room = self._is_listening
        self._listen(False)
        self._listener.close()
        self._listener, self._identity, self._problem = fresh, identity(self._path), None
        self._listen(has_room)

    def _patience(self) -> float:
        limits = [LOOK] if self._is_listening else [_PAUSE]
        oldest = next(iter(self._clients.values()), None)
        if oldest is not None:
            limits.append(max(0.0, oldest.deadline - self._clock()))
        return min(limits)

    def _listen(self, wanted: bool) -> None:
        assert self._listener is not None
        if wanted == self._is_listening:
            return
        if wanted:
            self._selector.register(self._listener, selectors.EVENT_READ)
        else:
            self._selector.unregister(self._listener)
        self._is_listening = wanted

    def _accept(self) -> None:
        assert self._listener is not None
        for _ in range(_ACCEPT_AT_ONCE):
            if self._open >= self._most:
                self._listen(False)
                return
            try:
                stream, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                log.error("no more descriptors for the socket", extra={"error": str(error)})
                self._listen(False)
                return
            self._welcome(stream)

    def _welcome(self, stream: socket.socket) -> None:
        _, uid, _ = _UCRED.unpack(stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        if not self._is_trusted(uid):
            log.warning("refused a connection of another user", extra={"uid": uid})
            stream.close()
            return
        stream.setblocking(False)
        with self._lock:
            self._open += 1
        self._read(_Client(stream, self._clock() + READ_DEADLINE))  # most requests are there already

    def _read(self, client: _Client) -> None:
        try:
            while True:
                data = client.stream.recv(_CHUNK)
                if not data:
                    self._answer_failure(client, client.reader.eof())
                    return
                request = client.reader.feed(data)
                if request is not None:
                    incoming = Incoming(request, self._arrival(), client.is_gone, True, self._clock())
                    self._release(client)
                    self._enter(client, incoming, self._ready.append)
                    return
        except BlockingIOError:
            if client.stream.fileno() not in self._clients:
                self._clients[client.stream.fileno()] = client
                self._selector.register(client.stream, selectors.EVENT_READ)
        except Unreadable as failure:
            self._answer_failure(client, failure)
        except OSError:
            self._release(client)
            self._close(client)
        except BaseException:
            self._release(client)
            self._close(client)
            raise

    def _enter(self, client: _Client, incoming: Incoming, do: Callable[[Callable[[], None]], None]) -> None:
        """Have *do* somebody serve it."""
        lane = self._lanes.get(_command(incoming))
        if lane is None:
            do(lambda: self._serve_one(client, incoming))
        elif lane.enter(client, incoming):
            do(lambda: self._serve_lane(lane))

    def _release(self, client: _Client) -> None:
        """Nothing more is read from this client."""
        if self._clients.pop(client.stream.fileno(), None) is not None:
            self._selector.unregister(client.stream)

    def _answer_failure(self, client: _Client, failure: Failure) -> None:
        self._release(client)
        answer = Answer(frame.Response(1, result.error(failure, "1.1.0")))
        self._ready.append(lambda: self._send(client, answer))

    # --- serving ----------------------------------------------------------------------------------------------

    def _serve_lane(self, lane: Lane[_Client]) -> None:
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
                self._later(partial(self._finish, clients, incomings, finish))
            else:
                self._finish(clients, incomings, finish)

    def _finish(
        self,
        clients: Sequence[_Client],
        incomings: Sequence[Incoming],
        finish: Callable[[], Sequence[Answer | None]],
    ) -> None:
        with self._closed_by_a_bug(clients):
            answers = finish()
        for client, incoming, answer in zip(clients, incomings, answers, strict=True):
            if answer is not None:
                self._send(client, answer)
            else:
                self._later(partial(self._serve_one, client, incoming))

    def _later(self, work: Callable[[], None]) -> None:
        self._pool.submit(self._watched("more", work))

    @contextmanager
    def _closed_by_a_bug(self, clients: Sequence[_Client]) -> Iterator[None]:
        try:
            yield
        except BaseException:
            for client in clients:
                self._close(client)
            raise

    def _serve_one(self, client: _Client, incoming: Incoming) -> None:
        with self._closed_by_a_bug([client]):
            answer = self._serve(incoming)
        if answer is not None:
            self._send(client, answer)
        elif self._park(client, incoming):
            self._on_wait()
        else:
            self._serve_one(client, incoming._replace(has_patience=False))

    def _park(self, client: _Client, incoming: Incoming) -> bool:
        """Have it wait for `resume`; False: nothing does any more, or so much that others could not connect."""
        arrived = incoming.arrived if incoming.arrived is not None else self._clock()
        patience = self._patience_of.get(_command(incoming), PATIENCE)
        with self._lock:
            may_wait = not self._stopping and len(self._waiting) < self._most * 3 // 4
            if may_wait:
                self._waiting.append(_Waiting(client, incoming, arrived + patience))
            return may_wait

    def _send(self, client: _Client, answer: Answer) -> None:
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
                self._close(client)

    def _close(self, client: _Client) -> None:
        client.stream.close()
        with self._all_closed:
            self._open -= 1
            self._all_closed.notify_all()


def _command(incoming: Incoming) -> bytes:
    return incoming.request.env.get("CNI_COMMAND", b"")
