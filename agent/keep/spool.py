"""DELs that came while the agent was away, written by the executable, to be served as if they came now.

What always holds: a file is removed only after its DEL was served, or set aside with a name that says so; and that is
done only to what is no request and never will be, not to what cannot be read at this moment.

A file's name is ``del-<wall>-<pid>.<up>.<boot>``: nanoseconds since the epoch, for people and for older agents; those
of CLOCK_BOOTTIME, by which it is ordered; and the boot's id without dashes. Older ones write only the first two.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from cni import frame
from cni.errors import ConfigInvalid, Failure, Unreadable
from ipam.moment import Moment
from ipam.schema import named_kind

log = logging.getLogger(__name__)

_PREFIX: Final = "del-"
_BEGUN: Final = "."
_BAD: Final = "bad-"
_FRAME_MAX: Final = 12 + frame.ENV_MAX + frame.STDIN_MAX
_AT_ONCE: Final = 256
"""Files that are read at a time; a request may be 1 MiB."""
_STALE: Final = 3600.0
"""Seconds after which a file that was begun and not finished is somebody's who died."""
TICK: Final = 0.02
"""Seconds by which a file's wall time may be early: older Python executables took the file system's, which ticks.
Without them a DEL that came just after its ADD would be taken for one of before it."""
_NEVER: Final = -1.0


class Written(NamedTuple):
    """When a request was written. *up*: seconds since this boot, before it where it was another; None: an older
    executable wrote it, and only *wall* (seconds since the epoch) is known."""

    up: float | None
    wall: float

    def is_after(self, began: Moment) -> bool:
        """Whether that was after *began*, by the better clock of the two that both have."""
        return self.wall >= began.wall if self.up is None else self.up >= began.up


class Spooled(NamedTuple):
    """A request that waited, and when it was written."""

    request: frame.Request
    written: Written


Serve = Callable[[Sequence[Spooled]], Sequence[Failure | None]]
"""Serves many, and answers for each why it must come again, or None."""


class Spool:
    """The spool directory at *path*, during the boot *boot*. *wall* answers seconds since the epoch."""

    def __init__(
        self, path: Path, boot: str, wall: Callable[[], float], read: Callable[[Path], frame.Request] | None = None
    ) -> None:
        self._read = read or _read
        self._path = path
        self._boot = boot.replace("-", "")
        self._wall = wall
        self._troubles: dict[str, str] = {}

    def prepare(self) -> None:
        """Make the directory for its owner alone. ConfigInvalid: it cannot be, or is not the agent's."""
        try:
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.refuse_others()
            self._path.chmod(0o700)
        except OSError as error:
            raise ConfigInvalid(f"spool {self._path} cannot be made: {error.strerror}", "check paths.spool") from error

    def refuse_others(self) -> None:
        """Raise ConfigInvalid if the directory, which is there, is not the agent's; or what is there is none."""
        remedy = "it was left alone; set paths.spool to a directory of the agent's own"
        try:
            found = self._path.lstat()
            if not stat.S_ISDIR(found.st_mode):
                raise ConfigInvalid(f"paths.spool is {self._path}, which is a {named_kind(found.st_mode)}", remedy)
            strange = [one.name for one in self._path.iterdir() if not one.name.startswith((_PREFIX, _BEGUN, _BAD))]
        except OSError as error:
            raise ConfigInvalid(f"spool {self._path} cannot be made: {error.strerror}", "check paths.spool") from error
        if strange or found.st_uid != os.geteuid():
            whose = f"which has {strange[0]} in it" if strange else f"which belongs to user {found.st_uid}"
            raise ConfigInvalid(f"paths.spool is {self._path}, {whose}", remedy)

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
                waiting.append(Spooled(self._read(file), self._written(file)))
                read.append(file)
            except FileNotFoundError:
                continue
            except Unreadable as error:
                self._set_aside(file, str(error))
            except OSError as error:
                self._tell(file.name, f"it cannot be read now: {error.strerror}")
        served = 0
        for file, failure in zip(read, serve(waiting) if waiting else (), strict=True):
            if failure is not None:
                self._tell(file.name, str(failure))
            elif self._removed(file):
                served += 1
        return served

    def sweep(self) -> None:
        """Remove files that were begun long ago and never finished."""
        try:
            begun = list(self._path.glob(f"{_BEGUN}*"))
        except OSError as error:
            self._tell("", f"it cannot be read: {error.strerror}")
            return
        for file in begun:
            try:
                if self._wall() - file.stat().st_mtime > _STALE:
                    file.unlink()
            except FileNotFoundError:
                continue
            except OSError as error:
                self._tell(file.name, f"it cannot be removed: {error.strerror}")

    def _waiting(self) -> list[Path]:
        try:
            files = [file for file in self._path.iterdir() if file.name.startswith(_PREFIX)]
        except FileNotFoundError:
            return []
        except OSError as error:
            self._tell("", f"it cannot be read now: {error.strerror}")
            return []
        return sorted(files, key=self._order)

    def _order(self, file: Path) -> tuple[float, float, str]:
        written = self._written(file)
        return _NEVER if written.up is None else written.up, written.wall, file.name

    def _written(self, file: Path) -> Written:
        """When it was written, by its name; 0 for another name."""
        first, *rest = file.name.removeprefix(_PREFIX).split(".")
        wall = _seconds(first.partition("-")[0])
        if len(rest) != 2:
            return Written(None, wall + TICK)
        up, boot = rest
        return Written(_seconds(up) if boot == self._boot else _NEVER, wall)

    def _removed(self, file: Path) -> bool:
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            self._tell(file.name, f"it was served, and cannot be removed: {error.strerror}")
            return False
        self._troubles.pop(file.name, None)
        return True

    def _set_aside(self, file: Path, why: str) -> None:
        log.error("a spooled file is no request; set aside", extra={"file": file.name, "error": why})
        try:
            file.rename(file.with_name(_BAD + file.name))
        except FileNotFoundError:
            return
        except OSError as error:
            self._tell(file.name, f"it is no request, and cannot be set aside: {error.strerror}")

    def _tell(self, name: str, why: str) -> None:
        """Once, however often it is tried."""
        if self._troubles.get(name) != why:
            self._troubles[name] = why
            log.warning("a spooled DEL failed and stays", extra={"file": name or str(self._path), "error": why})


def _read(file: Path) -> frame.Request:
    """The request in *file*. Unreadable: it holds none, and never will; OSError: it cannot be read now."""
    # The directory is the agent's user's alone, so what it looks at here is what it opens then.
    status = file.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        raise Unreadable(f"{file.name} is not a regular file of the agent's user")
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as stream:
        return frame.decode(stream.read(_FRAME_MAX + 1))


def _seconds(nanoseconds: str) -> float:
    return int(nanoseconds) / 1e9 if nanoseconds.isascii() and nanoseconds.isdecimal() else 0.0
