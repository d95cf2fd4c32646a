"""DELs that came while the agent was away, written by the executable, to be served as if they came now.

What always holds: a file is removed only after its DEL was served, or set aside with a name that says so.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from cni import frame
from cni.errors import Failure, Unreadable

log = logging.getLogger(__name__)

_PREFIX: Final = "del-"
_BAD: Final = "bad-"
_FRAME_MAX: Final = 12 + frame.ENV_MAX + frame.STDIN_MAX
_AT_ONCE: Final = 256
"""Files that are read at a time; a request may be 1 MiB."""
_STALE: Final = 3600.0
"""Seconds after which a file that was begun and not finished is somebody's who died."""
TICK: Final = 0.02
"""Seconds by which a file's time may be early: the Python executable takes the file system's, which ticks. Without them
a DEL that came just after its ADD would be taken for one of before it."""


class Spooled(NamedTuple):
    """A request that waited, and a time (seconds since the epoch) by which it was written."""

    request: frame.Request
    written: float


Serve = Callable[[Sequence[Spooled]], Sequence[Failure | None]]
"""Serves many, and answers for each why it must come again, or None."""


class Spool:
    """The spool directory at *path*. *wall* answers seconds since the epoch."""

    def __init__(self, path: Path, wall: Callable[[], float]) -> None:
        self._path = path
        self._wall = wall

    def prepare(self) -> None:
        """Make the directory for its owner alone. Raises OSError."""
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.chmod(0o700)

    def __len__(self) -> int:
        """How many DELs wait."""
        return len(self._waiting())

    def replay(self, serve: Serve) -> int:
        """Serve what waits, oldest first; the answer is how many were served. One that fails stays for the next."""
        files = self._waiting()
        return sum(self._replay(files[start : start + _AT_ONCE], serve) for start in range(0, len(files), _AT_ONCE))

    def _replay(self, files: Sequence[Path], serve: Serve) -> int:
        read, waiting = [], []
        for file in files:
            try:
                waiting.append(Spooled(_read(file), _time(file) + TICK))
                read.append(file)
            except FileNotFoundError:
                continue
            except (OSError, Unreadable) as error:
                self._set_aside(file, str(error))
        served = 0
        for file, failure in zip(read, serve(waiting) if waiting else (), strict=True):
            if failure is not None:
                log.warning("a spooled DEL failed and stays", extra={"file": file.name, "error": str(failure)})
                continue
            file.unlink(missing_ok=True)
            served += 1
        return served

    def sweep(self) -> None:
        """Remove files that were begun long ago and never finished."""
        for file in self._path.glob(".*"):
            try:
                if self._wall() - file.stat().st_mtime > _STALE:
                    file.unlink()
            except FileNotFoundError:
                continue

    def _waiting(self) -> list[Path]:
        try:
            files = [file for file in self._path.iterdir() if file.name.startswith(_PREFIX)]
        except FileNotFoundError:
            return []
        return sorted(files, key=lambda file: (_time(file), file.name))

    def _set_aside(self, file: Path, why: str) -> None:
        log.error("a spooled file is no request; set aside", extra={"file": file.name, "error": why})
        try:
            file.rename(file.with_name(_BAD + file.name))
        except FileNotFoundError:
            return


def _read(file: Path) -> frame.Request:
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise Unreadable(f"{file.name} is not a regular file of the agent's user")
        return frame.decode(stream.read(_FRAME_MAX + 1))


def _time(file: Path) -> float:
    """When it was written, by its name ``del-<nanoseconds since the epoch>-<pid>``; 0 for another name."""
    number = file.name.removeprefix(_PREFIX).partition("-")[0]
    return int(number) / 1e9 if number.isascii() and number.isdecimal() else 0.0
