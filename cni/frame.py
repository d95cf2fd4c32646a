"""The protocol between the executable and the agent: one request and one response per connection.

::

    request  = "CNI1" + u32be(len env) + u32be(len stdin) + env + stdin
    response = u8(exit code) + u32be(len stdout) + stdout

*env* is every ``CNI_*`` variable as ``KEY=VALUE\\0``, the bytes as the runtime gave them. Both sides
announce lengths, so a peer that dies half-way is told from one that has finished. A file in the spool
directory is exactly one request. The executables (``relay.py``, ``relay.c``) write this form without
importing this module.

No I/O except in `read_request`, which is a loop over `FrameReader`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from cni.errors import Unreadable

MAGIC: Final = b"CNI1"
ENV_MAX: Final = 64 * 1024
"""Bytes of *env* that a request may carry."""
STDIN_MAX: Final = 1024 * 1024
"""Bytes of *stdin* that a request may carry."""
STDOUT_MAX: Final = 4 * 1024 * 1024
"""Bytes of *stdout* that a response may carry: above STDIN_MAX, as JSON can grow when it is written anew."""

_REQUEST: Final = struct.Struct(">4sII")
_RESPONSE: Final = struct.Struct(">BI")
_CHUNK: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """One call of the executable: its CNI_* variables and the bytes of its standard input.

    Names are text (bytes that are not UTF-8 as lone surrogates, PEP 383); values stay the bytes that the
    runtime gave, for their reader to judge.
    """

    env: Mapping[str, bytes]
    stdin: bytes


class Response(NamedTuple):
    """What the executable shall do: write *stdout* and exit with *code* (0 to 255)."""

    code: int
    stdout: bytes


class Stream(Protocol):
    """The two methods of a connected ``socket.socket`` that reading needs."""

    def settimeout(self, value: float | None, /) -> None: ...
    def recv(self, bufsize: int, /) -> bytes: ...


class FrameReader:
    """Assembles one request from pieces of any size, without I/O.

    Feed it what arrives until it returns the request; call `eof` when nothing more will come.
    """

    __slots__ = ("_buffer", "_whole")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._whole: int | None = None

    def feed(self, data: bytes) -> Request | None:
        """Return the request when *data* completes it, None while some is missing.

        Raises:
            Unreadable: as soon as the bytes cannot become a request: a wrong beginning, an announced length
                above its limit, variables that are not ``KEY=VALUE``, or bytes after the request's end.
        """
        self._buffer += data
        if self._whole is None:
            self._whole = _announced(self._buffer)
        if self._whole is None or len(self._buffer) < self._whole:
            return None
        if len(self._buffer) > self._whole:
            raise Unreadable(
                f"the request frame goes on after its end at byte {self._whole}",
                "one connection, and one spool file, carries exactly one request",
            )
        return _request(bytes(self._buffer))

    def eof(self) -> Unreadable:
        """Return the error that says how much is missing, for the caller to raise."""
        have = len(self._buffer)
        if have == 0:
            return Unreadable("the request frame is empty", "the peer ended before it sent a request")
        if self._whole is None:
            return Unreadable(
                f"the request frame is cut off after {have} bytes, within its header of {_REQUEST.size}",
                "the executable ended, or was killed, before it had sent its request",
            )
        return Unreadable(
            f"the request frame is cut off after {have} of {self._whole} bytes",
            "the executable ended, or was killed, before it had sent its request",
        )


def encode(request: Request) -> bytes:
    """Return the frame of *request*.

    Raises:
        Unreadable: if it exceeds a limit, or a name or value could not have been an environment variable's.
    """
    env = b"".join(_entry(name, value) for name, value in request.env.items())
    _within("env", len(env), ENV_MAX)
    _within("stdin", len(request.stdin), STDIN_MAX)
    return _REQUEST.pack(MAGIC, len(env), len(request.stdin)) + env + request.stdin


def decode(frame: bytes) -> Request:
    """Return the request that *frame* (for example a spool file) holds, whole and with nothing after it.

    Raises:
        Unreadable: if it does not; the message says where it stops being one.
    """
    reader = FrameReader()
    request = reader.feed(frame)
    if request is None:
        raise reader.eof()
    return request


def read_request(stream: Stream, deadline: float, clock: Callable[[], float]) -> Request:
    """Return the request that arrives on *stream* before *clock* (seconds, monotonic) passes *deadline*.

    The deadline is for the whole request: a peer that sends a byte now and then cannot hold a thread.

    Raises:
        Unreadable: if the peer ends early, is too slow, sends no request, or the connection fails.
    """
    reader = FrameReader()
    while True:
        remaining = deadline - clock()
        try:
            if remaining <= 0:
                raise TimeoutError
            stream.settimeout(remaining)
            data = stream.recv(_CHUNK)
        except TimeoutError as error:
            raise Unreadable("no whole request arrived in the time allowed", reader.eof().message) from error
        except OSError as error:
            raise Unreadable("the connection failed while a request was read", str(error)) from error
        if not data:
            raise reader.eof()
        request = reader.feed(data)
        if request is not None:
            return request


def encode_response(response: Response) -> bytes:
    """Return the frame of *response*.

    Raises:
        ValueError: if the code is not 0 to 255 or stdout exceeds STDOUT_MAX: a defect of the caller.
    """
    if not 0 <= response.code <= 255:
        raise ValueError(f"exit code {response.code}: a process can exit with 0 to 255 only")
    if len(response.stdout) > STDOUT_MAX:
        raise ValueError(f"stdout of {len(response.stdout)} bytes: the protocol carries at most {STDOUT_MAX}")
    return _RESPONSE.pack(response.code, len(response.stdout)) + response.stdout


def decode_response(frame: bytes) -> Response:
    """Return the response that *frame* holds, whole and with nothing after it.

    Raises:
        Unreadable: if it is cut off, too long, or announces more than STDOUT_MAX.
    """
    if len(frame) < _RESPONSE.size:
        raise Unreadable(
            f"the response frame is cut off after {len(frame)} bytes, within its header of {_RESPONSE.size}"
        )
    code, length = _RESPONSE.unpack_from(frame)
    _within("stdout", length, STDOUT_MAX)
    if len(frame) != _RESPONSE.size + length:
        raise Unreadable(
            f"the response frame has {len(frame)} bytes, but its header announces {_RESPONSE.size + length}"
        )
    return Response(code, frame[_RESPONSE.size :])


def _announced(buffer: bytearray) -> int | None:
    """The whole length that the header announces, or None while the header is not complete."""
    if not MAGIC.startswith(buffer[: len(MAGIC)]):
        raise Unreadable(
            f"the request frame begins with {bytes(buffer[: len(MAGIC)])!r} instead of {MAGIC!r}",
            "the peer does not speak this protocol: is its executable of another version?",
        )
    if len(buffer) < _REQUEST.size:
        return None
    _, env, stdin = _REQUEST.unpack_from(buffer)
    _within("env", env, ENV_MAX)
    _within("stdin", stdin, STDIN_MAX)
    return _REQUEST.size + int(env) + int(stdin)


def _request(frame: bytes) -> Request:
    _, env_length, _ = _REQUEST.unpack_from(frame)
    split = _REQUEST.size + env_length
    return Request(_variables(frame[_REQUEST.size : split]), frame[split:])


def _variables(env: bytes) -> dict[str, bytes]:
    if env and not env.endswith(b"\0"):
        raise Unreadable("the request frame's env does not end with NUL", "its last variable is cut off")
    variables: dict[str, bytes] = {}
    for entry in env.split(b"\0")[:-1]:
        name, equals, value = entry.partition(b"=")
        if not equals or not name.startswith(b"CNI_"):
            raise Unreadable(f"the request frame's env holds {entry[:80]!r}", "every entry is CNI_<NAME>=<value>")
        # An environment may hold a name twice; getenv(3), which the C executable asks, takes the first.
        variables.setdefault(name.decode("utf-8", "surrogateescape"), value)
    return variables


def _entry(name: str, value: bytes) -> bytes:
    key = name.encode("utf-8", "surrogateescape")
    if not key.startswith(b"CNI_") or b"=" in key or b"\0" in key or b"\0" in value:
        raise Unreadable(f"{name!r} with the value {value[:80]!r} is no CNI_* environment variable")
    return key + b"=" + value + b"\0"


def _within(part: str, length: int, limit: int) -> None:
    if length > limit:
        raise Unreadable(f"the frame's {part} of {length} bytes exceeds the limit of {limit}")
