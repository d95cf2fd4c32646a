"""An agent that does what a script says on each connection, however wrong: for tests of the executable."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from cni.frame import FrameReader, Request, Response, encode_response

PATIENCE = 60.0
"""Seconds after which a test that hangs fails; no test waits for it to pass."""

Script = Callable[[socket.socket], Request | None]
"""Serves one connection and returns the request that it read, if it did."""


def read(connection: socket.socket, at_a_time: int = 65536) -> Request:
    """Return the request on *connection*, received *at_a_time* bytes at most."""
    reader = FrameReader()
    while True:
        data = connection.recv(at_a_time)
        if not data:
            raise reader.eof()
        request = reader.feed(data)
        if request is not None:
            return request


def answers(code: int, stdout: bytes, reading: int = 65536, writing: int = 65536) -> Script:
    """Read the request and give a whole answer, in pieces of *reading* and *writing* bytes."""
    return sends(encode_response(Response(code, stdout)), reading, writing)


def sends(raw: bytes, reading: int = 65536, writing: int = 65536) -> Script:
    """Read the request, send *raw*, whatever it is, and close."""

    def script(connection: socket.socket) -> Request:
        request = read(connection, reading)
        for start in range(0, len(raw), writing):
            connection.sendall(raw[start : start + writing])
        return request

    return script


def answers_unread(code: int, stdout: bytes) -> Script:
    """Give a whole answer without reading the request, and close."""

    def script(connection: socket.socket) -> None:
        connection.sendall(encode_response(Response(code, stdout)))

    return script


def hangs_up(connection: socket.socket) -> None:
    """Close without reading anything."""


def falls_silent(raw: bytes) -> Script:
    """Read the request, send *raw* and then nothing more, until the executable gives up."""

    def script(connection: socket.socket) -> Request:
        request = read(connection)
        with contextlib.suppress(ConnectionError):  # it may have given up already
            connection.sendall(raw)
            assert connection.recv(1) == b""
        return request

    return script


class ScriptedAgent:
    """Listens on *path* and serves one connection per script, in order, on a thread of its own.

    Leaving the context waits for the scripts and raises what went wrong in them.
    """

    def __init__(self, path: Path, *scripts: Script) -> None:
        self.requests: list[Request | None] = []
        self._path = path
        self._scripts = scripts
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._serve, name="scripted-agent")
        self._listener = socket.socket(socket.AF_UNIX)

    def __enter__(self) -> Self:
        self._listener.settimeout(PATIENCE)
        self._listener.bind(str(self._path))
        self._listener.listen()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.join(PATIENCE)
        self._listener.close()
        self._path.unlink()
        if error is None:
            assert not self._thread.is_alive(), "the script did not end"
            if self._failure is not None:
                raise self._failure

    def _serve(self) -> None:
        try:
            for script in self._scripts:
                connection, _ = self._listener.accept()
                with connection:
                    connection.settimeout(PATIENCE)
                    self.requests.append(script(connection))
        except Exception as failure:  # noqa: BLE001 - the top of a thread; raised again on leaving
            self._failure = failure
