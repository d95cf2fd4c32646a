"""Requests are read, by one thread at a time for all connections, whoever's turn it is.

What always holds: a client whose request is not whole by its deadline is told so, and room is made sooner where there
is none; a socket that somebody removed is made anew; who has connected before the end is answered.
"""

from __future__ import annotations

import errno
import logging
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from agent.serve.connections import Client, Connections
from agent.serve.lane import Answer, Incoming
from agent.serve.listener import Listener
from agent.serve.parking import Parking
from agent.serve.serving import Job, Serving
from cni import frame, result
from cni.errors import Failure, Unreadable

log = logging.getLogger(__name__)

READ_DEADLINE: Final = 10.0
"""Seconds for a whole request to arrive."""
CROWDED: Final = 1.0
"""Seconds that a request has to arrive while no more connections are taken: who says nothing keeps nobody out."""
LOOK: Final = 1.0
"""Seconds between looks whether the socket is where it was, and whose time to wait is over."""
_CHUNK: Final = 64 * 1024
_ACCEPT_AT_ONCE: Final = 64
LAST: Final = 0.2
"""Seconds that those have to say what they want who connected just before the end: the executable has it ready then."""
_PAUSE: Final = 0.1
"""Seconds between looks whether there is room again for one more connection."""
_UCRED: Final = struct.Struct("3i")
_EXHAUSTED: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class Reading:
    """Any thread may call `next_job`. *arrival* is called when a request is complete; *is_trusted* judges the uid of
    the peer's process."""

    def __init__(
        self,
        listener: Listener,
        *,
        connections: Connections,
        serving: Serving,
        parking: Parking,
        arrival: Callable[[], int],
        is_trusted: Callable[[int], bool],
        clock: Callable[[], float],
    ) -> None:
        self._listener = listener
        self._connections = connections
        self._serving = serving
        self._parking = parking
        self._arrival = arrival
        self._is_trusted = is_trusted
        self._clock = clock
        self._looked_at = clock()
        self._turn = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._wake, self._waker = socket.socketpair()
        self._clients: dict[int, Client] = {}
        self._ready: deque[Job] = deque()
        self._is_listening = False
        self._is_stopping = False
        self._is_over = False

    def start(self) -> None:
        """Listen."""
        self._listener.listen()
        self._selector.register(self._wake, selectors.EVENT_READ)

    def next_job(self) -> Job | None:
        """What is to be done next; None: nothing any more."""
        with self._turn:
            while not self._ready and not self._is_over:
                self._step()
            return self._ready.popleft() if self._ready else None

    def stop(self) -> None:
        """Nobody comes any more; `next_job` answers those who came. The socket is removed."""
        self._is_stopping = True
        self._waker.send(b"x")
        with self._turn:
            self._end()

    def close(self) -> None:
        """When nobody calls `next_job` any more."""
        for stream in (self._wake, self._waker):
            stream.close()
        self._selector.close()

    def _end(self) -> None:
        """Whoever has the turn does it: who comes from now on finds no agent, and waits for the next one; who came is
        read yet."""
        if self._is_over:
            return
        self._is_over = True
        self._listen(False)
        self._listener.refuse()
        while self._accept():
            pass
        self._selector.unregister(self._wake)
        limit = time.monotonic() + LAST
        while self._clients and (left := limit - time.monotonic()) > 0:
            for key, _ in self._selector.select(left):
                self._read(self._clients[key.fd])
        self._listener.close()
        for client in list(self._clients.values()):
            self._hang_up(client)

    def _step(self) -> None:
        if self._is_stopping:
            self._end()
            return
        if not self._is_listening and self._connections.has_room:
            self._listen(True)
        for key, _ in self._selector.select(self._patience()):
            if key.fileobj is self._listener.stream:
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

    def _look(self) -> None:
        """Whose time to wait is over need not wait for a pass, and a socket that is gone is made anew."""
        self._parking.resume(has_news=False)
        fresh = self._listener.anew()
        if fresh is None:
            return
        self._accept()  # who connected before it was removed
        has_room = self._is_listening
        self._listen(False)
        self._listener.go_on(fresh)
        self._listen(has_room)

    def _patience(self) -> float:
        limits = [LOOK] if self._is_listening else [_PAUSE]
        oldest = next(iter(self._clients.values()), None)
        if oldest is not None:
            limits.append(max(0.0, oldest.deadline - self._clock()))
        return min(limits)

    def _listen(self, wanted: bool) -> None:
        if wanted == self._is_listening:
            return
        if wanted:
            self._selector.register(self._listener.stream, selectors.EVENT_READ)
        else:
            self._selector.unregister(self._listener.stream)
        self._is_listening = wanted

    def _accept(self) -> bool:
        """Whether there may be more."""
        for _ in range(_ACCEPT_AT_ONCE):
            if not self._connections.has_room:
                self._listen(False)
                return False
            try:
                stream, _ = self._listener.stream.accept()
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                log.error("no more descriptors for the socket", extra={"error": str(error)})
                self._listen(False)
                return False
            self._welcome(stream)
        return True

    def _welcome(self, stream: socket.socket) -> None:
        _, uid, _ = _UCRED.unpack(stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        if not self._is_trusted(uid):
            log.warning("refused a connection of another user", extra={"uid": uid})
            stream.close()
            return
        stream.setblocking(False)
        self._connections.opened()
        self._read(Client(stream, self._clock() + READ_DEADLINE))  # most requests are there already

    def _read(self, client: Client) -> None:
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
                    self._serving.enter(client, incoming, self._ready.append)
                    return
        except BlockingIOError:
            if client.stream.fileno() not in self._clients:
                self._clients[client.stream.fileno()] = client
                self._selector.register(client.stream, selectors.EVENT_READ)
        except Unreadable as failure:
            self._answer_failure(client, failure)
        except OSError:
            self._hang_up(client)
        except BaseException:
            self._hang_up(client)
            raise

    def _release(self, client: Client) -> None:
        """Nothing more is read from this client."""
        if self._clients.pop(client.stream.fileno(), None) is not None:
            self._selector.unregister(client.stream)

    def _hang_up(self, client: Client) -> None:
        self._release(client)
        self._connections.close(client)

    def _answer_failure(self, client: Client, failure: Failure) -> None:
        self._release(client)
        answer = Answer(frame.Response(1, result.error(failure, "1.1.0")))
        self._ready.append(lambda: self._serving.send(client, answer))
