"""One connection to the API server: answers and streams of lines, and what goes wrong, in our words.

A list, a watch, and now and then a patch of one Node are all that the agent asks, so this is the standard library's
HTTP: a client library would have to be given bookmarks, fresh client certificates and the list after a 410, which is
the work itself, and costs 30 MB on every node. What always holds: no wait is without a bound, nothing is read without
one, and `Api.end` ends any wait from any thread.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Final, NamedTuple
from urllib.parse import urlencode

from cluster.access import Access, Credentials
from cluster.nodeobjects import StatusObject, decoded
from cni.errors import ConfigInvalid, FabricRefused, Failure, TryAgain

CONNECT: Final = 5.0
"""Seconds to be connected, and again for TLS."""
ANSWER: Final = 30.0
"""Seconds without a byte of an answer after which it is given up."""
WHOLE: Final = 120.0
"""Seconds for a whole answer: one that comes byte by byte is none."""
LINE: Final = 16 << 20
"""Bytes of one line of a watch: etcd keeps objects of 1.5 MB, and JSON is longer than what it keeps."""
BODY: Final = 512 << 20
"""Bytes of an answer: more would be all that a node has, and is no list of Nodes."""
AFTER: Final = 600.0
"""Seconds at most for which a server is left alone because it wants that: who puts more into an answer errs."""
PATCH_TYPE: Final = "application/strategic-merge-patch+json"
"""Lists whose elements have keys, as conditions have, are merged by these; all others are replaced."""
LISTENING: Final = "the verbs list and watch on nodes"
"""What the RBAC of who listens must allow."""
_KEEPALIVE: Final = {
    socket.TCP_KEEPIDLE: 30,
    socket.TCP_KEEPINTVL: 10,
    socket.TCP_KEEPCNT: 3,
    socket.TCP_USER_TIMEOUT: 30_000,
}
"""A server that is gone without a word is noticed within a minute."""


class _Request(NamedTuple):
    method: str
    path: str
    parameters: Mapping[str, str]
    body: bytes = b""
    encoding: str = "gzip"


class Opened(NamedTuple):
    """A connection, and what it was opened with."""

    access: Access
    stream: ssl.SSLSocket


class Unanswered(Exception):
    """There is no answer: *failure* says why, *after* is how many seconds the server wants to be left alone."""

    def __init__(self, failure: Failure, after: float = 0.0) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.after = after


class Gone(Unanswered):
    """What was asked from is too long ago for the server to know (410), or was never known to it (400): all must be
    listed again."""


class Conflict(Unanswered):
    """What was to be changed is not any more what it was taken for (409): look again."""


class Connection:
    """Made by `Api.connected`: one that is *opened*, and opened again where the server ended it with an answer, as
    proxies may that keep none for the next request."""

    def __init__(self, opened: Callable[[], Opened], whole: float = WHOLE) -> None:
        self._opened = opened
        self._bound = whole
        self._open()

    def _open(self) -> None:
        self._access, self._stream = self._opened()
        self._http = http.client.HTTPConnection(self._access.host, self._access.port)
        self._http.auto_open = 0  # never a connection anew, without TLS
        self._http.sock = self._stream

    def _set_out(self) -> None:
        """Be ready for a request, whose answer is not waited for without end."""
        if self._http.sock is None:
            self._open()
        self._stream.settimeout(ANSWER)

    def answer(self, path: str, parameters: Mapping[str, str], needs: str = LISTENING) -> bytes:
        """The whole answer to a GET. *needs* is what is told to lack where it is not permitted."""
        with self._told(), self._bounded(), self._asked(_Request("GET", path, parameters), needs) as response:
            return self._whole(response)

    def patch(self, path: str, change: bytes, needs: str) -> bytes:
        """What it is after the strategic merge *change*. Conflict: that was of an older version."""
        with self._told(), self._bounded(), self._asked(_Request("PATCH", path, {}, change), needs) as response:
            return self._whole(response)

    @contextmanager
    def _bounded(self) -> Iterator[None]:
        """The connection ends after a while, whatever comes by it."""
        self._set_out()
        timer = threading.Timer(self._bound, _shut, (self._stream,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _whole(self, response: http.client.HTTPResponse) -> bytes:
        body = response.read(BODY + 1)
        if response.length and len(body) <= BODY:
            raise http.client.IncompleteRead(body, response.length)
        if response.getheader("Content-Encoding") == "gzip":
            body = zlib.decompressobj(wbits=31).decompress(body, BODY + 1)
        if len(body) > BODY:
            raise Unanswered(TryAgain(f"{self._access.server} answers more than {BODY >> 20} MiB"))
        return body

    def lines(self, path: str, parameters: Mapping[str, str], silence: float) -> Iterator[bytes]:
        """The lines of the answer to a GET, as they come, until the server ends it. TryAgain after *silence* seconds
        without a byte."""
        with self._told():
            self._set_out()
            with self._asked(_Request("GET", path, parameters, encoding="identity"), LISTENING) as response:
                self._stream.settimeout(silence)
                rest = b""
                # Not readline, which takes a connection that is cut for the end of the answer.
                while data := response.read1(1 << 16):
                    *lines, rest = (rest + data).split(b"\n")
                    yield from lines
                    if len(rest) > LINE:
                        raise Unanswered(TryAgain(f"{self._access.server} tells of more than {LINE >> 20} MiB at once"))
                if rest:
                    raise http.client.IncompleteRead(rest)

    @contextmanager
    def _asked(self, request: _Request, needs: str) -> Iterator[http.client.HTTPResponse]:
        """The answer; it holds the connection's descriptor until it is closed, too."""
        headers = {"Accept": "application/json", "Accept-Encoding": request.encoding, "User-Agent": "routable-agent"}
        if self._access.token:
            headers["Authorization"] = f"Bearer {self._access.token}"
        if request.body:
            headers["Content-Type"] = PATCH_TYPE
        query = f"?{urlencode(request.parameters)}" if request.parameters else ""
        target = f"{self._access.prefix}{request.path}{query}"
        self._http.request(request.method, target, request.body or None, headers)
        with self._http.getresponse() as response:
            if response.status != 200:
                after = response.getheader("Retry-After")
                raise refused(self._access.server, response.status, after, response.read(1 << 16), needs)
            yield response

    @contextmanager
    def _told(self) -> Iterator[None]:
        with told(self._access.server):
            yield


class Api:
    """Connections by *credentials*, one at a time. An answer has come within *whole* seconds, or there is none."""

    def __init__(self, credentials: Credentials, whole: float = WHOLE) -> None:
        self._credentials = credentials
        self._whole = whole
        self._lock = threading.Lock()
        self._stream: socket.socket | None = None
        self._is_ended = False

    @contextmanager
    def connected(self) -> Iterator[Connection]:
        """A new connection, with what the credentials are now. Unanswered: there is none."""
        with ExitStack() as streams:
            yield Connection(lambda: self._opened(streams), self._whole)

    def _opened(self, streams: ExitStack) -> Opened:
        """One that lasts as long as *streams*, and is held meanwhile."""
        try:
            access = self._credentials()
        except ConfigInvalid as failure:
            raise Unanswered(failure) from failure
        with told(access.server):
            plain = socket.create_connection((access.host, access.port), CONNECT)
            with plain:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for option, value in _KEEPALIVE.items():
                    plain.setsockopt(socket.IPPROTO_TCP, option, value)
                stream = access.context.wrap_socket(
                    plain, server_hostname=access.name, do_handshake_on_connect=False
                )
            streams.enter_context(stream)
            streams.callback(self._hold, None)
            self._hold(stream)
            stream.do_handshake()
            return Opened(access, stream)

    def end(self) -> None:
        """No answer is waited for any more."""
        with self._lock:
            self._is_ended = True
            if self._stream is not None:
                _shut(self._stream)

    def _hold(self, stream: socket.socket | None) -> None:
        with self._lock:
            self._stream = stream
            if self._is_ended and stream is not None:
                raise Unanswered(TryAgain("the agent ends"))


def _shut(stream: socket.socket) -> None:
    """End whatever is waited for there; any thread may call."""
    with suppress(OSError):
        # Not SSLSocket's own, which would take the TLS away from under the thread that reads.
        socket.socket.shutdown(stream, socket.SHUT_RDWR)


@contextmanager
def told(server: str) -> Iterator[None]:
    """What the network, TLS and HTTP say, as Unanswered."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        why = f"its certificate is not believed: {error.verify_message}; see the CA, and that the name is in it"
        raise Unanswered(TryAgain(f"the API server {server} cannot be asked", why)) from error
    except TimeoutError as error:
        raise Unanswered(TryAgain(f"the API server {server} cannot be asked", "it does not answer")) from error
    except (OSError, http.client.HTTPException, zlib.error, ValueError) as error:
        # ValueError: a name that IDNA cannot have, or a path that is not ASCII, in a kubeconfig.
        why = (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__
        raise Unanswered(TryAgain(f"the API server {server} cannot be asked", why)) from error


def refused(
    server: str, code: int, retry_after: str | None, body: bytes, needs: str = LISTENING
) -> Unanswered:
    """What the server says in place of an answer; *needs* is what who asks must be permitted."""
    try:
        said = decoded(body, StatusObject)
    except ValueError:  # a proxy's page
        said = StatusObject(code=code)
    wanted = said.details.retry_after_seconds if said.details is not None else None
    after = float(retry_after) if retry_after is not None and retry_after.isdecimal() else wanted or 0.0
    after = min(after, AFTER)
    why = f"{code} {said.reason or http.client.responses.get(code, '')}".strip()
    why = f"{why}, {said.message}" if said.message else why
    if code == 409:
        return Conflict(TryAgain(f"the API server {server} has a newer version of it", why), after)
    if code == 410 or (code == 400 and needs == LISTENING):
        return Gone(TryAgain(f"the API server {server} does not know what came since it was heard of last", why), after)
    if code == 401:
        remedy = "see that the token or the client certificate is of this cluster and not expired"
        return Unanswered(FabricRefused(f"the API server {server} does not know who asks", f"{why}; {remedy}"), after)
    if code == 403:
        remedy = f"the agent needs {needs} (RBAC)"
        return Unanswered(FabricRefused(f"the API server {server} does not permit it", f"{why}; {remedy}"), after)
    return Unanswered(TryAgain(f"the API server {server} does not answer now", why), after)
