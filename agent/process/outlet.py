"""Where the lines of the log go out: one thread writes them, and whoever logs never waits for the reader.

What always holds: a reader that is stuck or gone costs lines of the log, at most `MOST` bytes of memory, and nothing
else; how many lines it cost stands in the log as soon as that is taken again, and in a metric meanwhile.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

MOST: Final = 1 << 20
"""Bytes that wait for the reader, some five thousand lines. What comes then is dropped: what led there tells more."""
STDERR: Final = 2
FLUSH: Final = 0.5
"""Seconds for what waits to be taken at the end."""


class Outlet(logging.Handler):
    """Has *write* write, which may block, and raises OSError when that cannot be done. *on_death* is told if the thread
    ends unasked."""

    def __init__(
        self,
        write: Callable[[bytes], object],
        on_death: Callable[[str, BaseException], None],
        most: int = MOST,
    ) -> None:
        super().__init__()
        self._write = write
        self._on_death = on_death
        self._most = most
        self._changed = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._told = 0
        self.dropped = 0
        """Lines that were dropped since the start."""
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Have the record written; any thread may call."""
        try:
            line = self.format(record)
        except Exception as error:  # noqa: BLE001 - a line that is wrong must not cost what it is about
            line = f"a line of the log is wrong: {error!r}: {record.msg!r} at {record.pathname}:{record.lineno}"
        self.put(line)

    def put(self, line: str) -> None:
        """Have a line written as it is."""
        data = f"{line}\n".encode("utf-8", "backslashreplace")
        with self._changed:
            if self._size + len(data) > self._most:
                self.dropped += 1
                return
            self._lines.append(data)
            self._size += len(data)
            self._changed.notify_all()

    def flush(self) -> None:
        """Return when all is written, or cannot be in time."""
        until = time.monotonic() + FLUSH
        with self._changed:
            self._changed.wait_for(lambda: not self._size, max(0.0, until - time.monotonic()))

    def _run(self) -> None:
        try:
            while True:
                self._step()
        except BaseException as error:  # noqa: BLE001 (the top of a thread)
            self._on_death("log", error)

    def _step(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._lines)
            lines = list(self._lines)
            self._lines.clear()
        is_taken = True
        try:
            self._write(b"".join(lines))
        except OSError:
            is_taken = False
        with self._changed:
            self._size -= sum(map(len, lines))
            if not is_taken:
                self.dropped += len(lines)
            missing, is_due = self.dropped - self._told, is_taken and self.dropped > self._told
            if is_due:
                self._told = self.dropped
            self._changed.notify_all()
        if is_due:
            what = {"msg": "lines of the log were dropped: nobody took them", "name": __name__, "dropped": missing}
            self.emit(logging.makeLogRecord({**what, "levelno": logging.WARNING, "levelname": "WARNING"}))


def standard_error() -> int:
    """The descriptor of the standard error. Where a caller closed it, or one before it, nothing reads it from now on: a
    file of ours that was given such a number would have lines written into it."""
    while (spare := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        pass
    os.close(spare)
    return STDERR


def to(descriptor: int) -> Callable[[bytes], None]:
    """Writes all of what it is given to *descriptor*, also where another process made that non-blocking."""

    def write(data: bytes) -> None:
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(descriptor, left) :]
            except BlockingIOError:
                poll = select.poll()
                poll.register(descriptor, select.POLLOUT)
                poll.poll()

    return write
