"""Speaking with BIRD over its control socket, as birdc does: one line asks, coded lines answer.

The protocol is BIRD's (nest/cli.c, doc/reply_codes): a line is four digits of a code and, where more lines follow, a
dash, else a space; a line that begins with a space goes on with the code before; one that begins with "+" comes of
itself. What always holds: an answer has an end in time and in size, whoever it is that answers.
"""

from __future__ import annotations

import re
import socket
import struct
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, NamedTuple

from cni.errors import TryAgain

PATIENCE: Final = 3.0
"""Seconds for one answer, and for the greeting."""
ANSWER_MAX: Final = 32 << 20
"""Bytes: a route takes some 100, and a session 2,000."""
_CODED: Final = re.compile(rb"([0-9]{4})([ -])(.*)", re.DOTALL)
_GREETING: Final = 1
_UCRED: Final = struct.Struct("=iII")


class Line(NamedTuple):
    """A line of an answer: its code, and the text without it."""

    code: int
    text: str


class Conversation:
    """With the BIRD at the socket *path*; use it in a ``with`` block. *clock* counts seconds, *most* the bytes of an
    answer.

    TryAgain, of every method: there is no answer, or none that BIRD gives; the conversation is then over.
    """

    def __init__(
        self,
        path: str,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
        most: int = ANSWER_MAX,
    ) -> None:
        self._path = path
        self._most = most
        self._patience = patience
        self._clock = clock
        self._buffer = b""
        try:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        except OSError as error:  # no descriptor is left
            raise self._silent(error.strerror or str(error)) from error
        try:
            self._socket.settimeout(patience)
            self._socket.connect(path)
            credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
            self.pid: int = _UCRED.unpack(credentials)[0]
            """Who listens; 0 where that is not seen from here."""
            self.greeting = self._answer()[-1]
        except OSError as error:
            self._socket.close()
            raise self._silent(error.strerror or str(error)) from error
        except TryAgain:
            self._socket.close()
            raise
        if self.greeting.code != _GREETING:
            self._socket.close()
            raise self._silent(f"who answers there greets with {self.greeting.text[:80]!r}: it is no BIRD")

    def __enter__(self) -> Conversation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def ask(self, command: str) -> Sequence[Line]:
        """What BIRD answers to *command*. An error that it answers with is an answer, too: see its code."""
        try:
            self._socket.settimeout(self._patience)
            self._socket.sendall(command.encode() + b"\n")
        except OSError as error:
            raise self._silent(error.strerror or str(error)) from error
        return self._answer()

    def _answer(self) -> list[Line]:
        until = self._clock() + self._patience
        lines: list[Line] = []
        size = 0
        while True:
            raw = self._line(until)
            size += len(raw)
            if size > self._most:
                raise self._silent(f"its answer is longer than {self._most} bytes")
            if raw.startswith(b"+"):
                continue
            found = _CODED.fullmatch(raw)
            if found is not None:
                lines.append(Line(int(found[1]), found[3].decode(errors="replace")))
                if found[2] == b" ":
                    return lines
            elif raw.startswith(b" ") and lines:
                lines.append(Line(lines[-1].code, raw[1:].decode(errors="replace")))
            else:
                raise self._silent(f"it answers {raw[:80]!r}, which is nothing that BIRD says")

    def _line(self, until: float) -> bytes:
        while b"\n" not in self._buffer:
            left = until - self._clock()
            if left <= 0:
                raise self._silent(f"no whole answer within {self._patience:g} s")
            if len(self._buffer) > self._most:
                raise self._silent(f"a line of its answer is longer than {self._most} bytes")
            try:
                self._socket.settimeout(left)
                data = self._socket.recv(1 << 16)
            except TimeoutError:
                continue
            except OSError as error:
                raise self._silent(error.strerror or str(error)) from error
            if not data:
                raise self._silent("it hung up")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _silent(self, why: str) -> TryAgain:
        return TryAgain(f"BIRD does not answer at {self._path}: {why}", "is it running? See its log, bird.log")
