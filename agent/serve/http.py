"""The local HTTP port: /metrics, /healthz and /readyz, for Prometheus and kubelet.

It is small and bounded on purpose: one request per connection, a deadline for the whole of it, few connections at
once. What holds always: if its thread ends unasked, ``on_death`` is told, and the process ends with it.
"""

from __future__ import annotations

import errno
import io
import logging
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, NamedTuple

from backends.threads import OnDeath, thread
from cni.errors import ConfigInvalid

CONNECTIONS_MAX: Final = 16
"""Connections served at once; the next are closed unanswered."""

DEADLINE: Final = 10.0
"""Seconds for a connection from its acceptance to the end of its request's head; Prometheus gives up after as many."""

_POLL: Final = 0.2
"""Seconds within which a stop is noticed."""

_TEXT: Final = "text/plain; charset=utf-8"
_EXHAUSTED: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))

log = logging.getLogger(__name__)


class Page(NamedTuple):
    """What a path answers."""

    status: int
    type: str
    body: bytes


class _Until(socket.SocketIO):
    """Reads from a socket until a point in time, however slowly the bytes drip in."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        super().__init__(connection, "r")
        self._connection = connection
        self._deadline = deadline

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return super().readinto(buffer)


class _Handler(BaseHTTPRequestHandler):
    server: _Listener
    wbufsize = -1  # head and body in one segment: two would wait 40 ms for Nagle and the delayed ACK
    disable_nagle_algorithm = True
    default_request_version = "HTTP/1.0"  # 0.9, the default, would answer nonsense without a status
    server_version = "routable"
    sys_version = ""

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_Until(self.connection, time.monotonic() + self.server.deadline))

    def do_GET(self) -> None:
        self._send(self.server.answer(self.path.partition("?")[0]))

    do_HEAD = do_GET  # noqa: N815 (http.server's name)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Bad requests in our plain form; a method that there is no do_… for is one that is not allowed."""
        if code == 501:
            code, message = 405, "allowed: GET, HEAD"
        self.close_connection = True
        self._send(Page(code, _TEXT, f"{message or 'bad request'}\n".encode("ascii", "backslashreplace")))

    def _send(self, answer: Page) -> None:
        self.connection.settimeout(self.server.deadline)  # for the whole of the answer: see socket.sendall
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Connection", "close")
        if answer.status == 405:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (http.server's name)
        log.debug("http", extra={"client": self.client_address[0], "line": format % args})


class _Listener(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(
        self, listener: socket.socket, deadline: float, answer: Callable[[str], Page], on_death: OnDeath
    ) -> None:
        self.deadline = deadline
        self.answer = answer
        self._on_death = on_death
        self._free = threading.BoundedSemaphore(CONNECTIONS_MAX)
        super().__init__(listener.getsockname(), _Handler, bind_and_activate=False)
        self.socket.close()  # socketserver makes one of its own, whatever it is told
        self.socket = listener

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in _EXHAUSTED:
                time.sleep(_POLL)  # the connection stays in the queue: without a pause this loop would spin
            elif error.errno in (errno.EBADF, errno.EINVAL, errno.ENOTSOCK):
                raise RuntimeError("the listening socket is gone") from error  # socketserver swallows OSErrors
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread can be started: socketserver closes the connection
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        except BaseException as error:  # noqa: BLE001 (the top of a thread; exceptions of one request are handled)
            self._on_death("http request", error)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("http connection failed", exc_info=True, extra={"client": client_address[0]})


def listening(host: str, port: int) -> socket.socket:
    """What listens there. ConfigInvalid: it cannot."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(CONNECTIONS_MAX)
    except OSError as error:
        listener.close()
        why = f"{error.strerror or error}; choose another address:port, or \"\" for none"
        raise ConfigInvalid(f"metrics.listen: cannot listen on {host} port {port}", why) from error
    return listener


class Http:
    """Serves the three paths on *listener*, which is `listening`, from a thread of its own between ``start`` and
    ``stop``."""

    name: Final = "http"

    def __init__(
        self,
        listener: socket.socket,
        *,
        scrape: Callable[[], tuple[str, bytes]],
        ready: Callable[[], tuple[bool, str]],
        works: Callable[[], tuple[bool, str]] = lambda: (True, "ok"),
        on_death: OnDeath,
        deadline: float = DEADLINE,
    ) -> None:
        """*scrape* answers content type and body of /metrics; *ready* whether ADDs would be served, and why not, in a
        line; *works* whether the agent does its work, or a new one might do better; *on_death* is told the thread's
        name and why it ended.
        """
        self._scrape = scrape
        self._ready = ready
        self._works = works
        self._thread = thread(self.name, self._live, on_death)
        self._listener = _Listener(listener, deadline, self._answer, on_death)

    @property
    def port(self) -> int:
        """The port that is listened on: the kernel's choice where 0 was asked for."""
        return int(self._listener.server_address[1])

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering and close the port; returns within a second. Nothing happens the second time."""
        if self._thread.is_alive():
            self._listener.shutdown()
            self._thread.join()
        self._listener.server_close()

    def _live(self) -> None:
        self._listener.serve_forever(_POLL)

    def _answer(self, path: str) -> Page:
        try:
            if path == "/metrics":
                return Page(200, *self._scrape())
            judge = {"/healthz": self._works, "/readyz": self._ready}.get(path)
            if judge is not None:
                is_so, why = judge()
                return Page(200 if is_so else 503, _TEXT, f"{why or 'ok'}\n".encode("utf-8", "backslashreplace"))
        except Exception:  # the server's edge
            log.exception("http answer failed", extra={"path": path})
            return Page(500, _TEXT, b"internal error, see the agent's log\n")
        return Page(404, _TEXT, b"there are /metrics, /healthz and /readyz\n")
