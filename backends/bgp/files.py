"""BIRD's files: in one directory, for root alone, since passwords are among what is in them."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from backends.bgp.table import BgpTable
from cni.errors import ConfigInvalid


class Files(NamedTuple):
    """Where they are."""

    directory: Path

    @property
    def configuration(self) -> Path:
        """What BIRD is told."""
        return self.directory / "bird.conf"

    @property
    def trial(self) -> Path:
        """The same, before BIRD's parser has read it."""
        return self.directory / "bird.conf.next"

    @property
    def socket(self) -> Path:
        """Where BIRD is asked."""
        return self.directory / "bird.ctl"

    @property
    def errors(self) -> Path:
        """What BIRD says before it has read its configuration."""
        return self.directory / "bird.err"

    @property
    def log(self) -> Path:
        """What BIRD says afterwards."""
        return self.directory / "bird.log"

    @property
    def drained(self) -> Path:
        """While this is there, nothing is announced: see `backends.bgp.drain`."""
        return self.directory / "drained"

    def clear(self) -> None:
        """Remove them: passwords are in them, and who runs BIRD elsewhere begins with what is there."""
        older = self.log.with_name("bird.log.1")
        for path in (self.configuration, self.trial, self.errors, self.log, older, self.drained):
            with suppress(OSError):
                path.unlink()

    def write(self, path: Path, text: str) -> None:
        """Have *text* at *path*, in one step, for root alone. ConfigInvalid: that is not possible."""
        fresh = path.with_name(f"{path.name}.new")
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                fresh.unlink()
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with os.fdopen(os.open(fresh, flags, 0o600), "w") as file:
                file.write(text)
        except OSError as error:
            with suppress(OSError):
                fresh.unlink()
            raise _unwritable(path, error) from error
        self.place(fresh, path)

    def place(self, fresh: Path, path: Path) -> None:
        """Have the file *fresh* at *path*. ConfigInvalid: that is not possible."""
        try:
            fresh.replace(path)
        except OSError as error:
            raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> ConfigInvalid:
    return ConfigInvalid(
        f"{path} cannot be written: {error.strerror}", "see that bgp.directory is one that root can write to"
    )


def files(table: BgpTable) -> Files:
    """Of the BIRD that *table* is about."""
    return Files(Path(table.directory))
