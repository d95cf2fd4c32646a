"""Which versions of the specification the executables of others speak: asked of them, once for each file.

Why: a runtime that reads ``cniVersions`` takes the highest that it knows. Where a chained plugin does not speak that,
every ADD of the list fails, and so does STATUS: reference plugins before release 1.6.0 speak 1.0.0 at most.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

_PATIENCE: Final = 5.0
"""Seconds for an answer that takes milliseconds."""


class _Answer(msgspec.Struct, frozen=True, rename="camel"):
    supported_versions: list[str]


class Plugins:
    """One thread asks."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, ...], frozenset[str] | None]] = {}

    def spoken(self, path: Path) -> frozenset[str] | None:
        """The versions that the executable at *path* speaks; None: it does not say, or is not there."""
        try:
            found = path.stat()
        except OSError:
            return None
        state = found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
        known = self._known.get(path)
        if known is None or known[0] != state:
            try:
                known = self._known[path] = state, _asked(path)
            except (OSError, subprocess.SubprocessError):  # busy, as while it is copied, or the machine is: ask again
                return None
        return known[1]


def _asked(path: Path) -> frozenset[str] | None:
    environment: Mapping[str, str] = {"CNI_COMMAND": "VERSION"}
    question = b'{"cniVersion": "1.0.0"}'
    done = subprocess.run(
        [path], env=environment, input=question, capture_output=True, timeout=_PATIENCE, check=False
    )
    try:
        return frozenset(msgspec.json.decode(done.stdout, type=_Answer).supported_versions)
    except ValueError:
        return None
