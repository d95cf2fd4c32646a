"""The last good list of nodes on disk, for a start while the list itself cannot be used.

One wrong entry, or an API server that is away, must not leave every node that restarts without a network: what the
agent would still use, had it gone on, it uses after a restart, too. What always holds: the copy is whole, was good, and
is of the very source that is asked for.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from cluster import tomlfile
from cni.errors import ConfigInvalid

log = logging.getLogger(__name__)

_HEAD: Final = "# routable-agent's copy of the last good list of nodes, not to be edited. It is of "


class Kept:
    """The copy at *path* of what *source* says, a file's path or an API server's address."""

    def __init__(self, path: Path, source: str) -> None:
        self.path = path
        self._head = f"{_HEAD}{source!a}\n".encode()

    def save(self, raw: bytes) -> None:
        """Keep *raw*, which is good. That it cannot be kept is logged, and no more: the list
        itself is in use."""
        fresh = self.path.with_name(f"{self.path.name}.new")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(self._head + raw)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path)
        except OSError as error:
            log.warning("the list of nodes cannot be kept", extra={"file": str(self.path), "error": str(error)})
            with suppress(OSError):
                fresh.unlink()

    def load(self) -> bytes | None:
        """What was kept of that source; None: nothing."""
        try:
            _, raw = tomlfile.read(self.path)
        except (OSError, ConfigInvalid):
            return None
        return raw.removeprefix(self._head) if raw.startswith(self._head) else None
