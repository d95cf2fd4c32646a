"""The nodes file: a TOML file of ``[[node]]`` tables that says who is in the cluster; watched.

    [[node]]
    name = "node-a"
    addresses = ["192.0.2.1", "2001:db8::1"]        # at most one per family
    pod_cidrs = ["10.1.0.0/24", "2001:db8:1::/64"]  # no two overlap

What holds always: a file that turns bad or vanishes changes ``error`` and leaves ``nodes`` as they were; at the start,
as they were when the agent before ended.
Replace the file by rename, as editors and ConfigMap volumes do: one written in place can be read half.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cluster import nodeslist, tomlfile
from cluster.kept import Kept
from cluster.peers import Peer
from cni.errors import ConfigInvalid

log = logging.getLogger(__name__)

_YOUNG: Final = 2_000_000_000
"""Nanoseconds. Older kernels stamp files by the timer tick: one changed this lately can change unseen."""

Signature = tuple[int, int, int, int, int]
Reader = Callable[[Path], tuple[Signature, bytes]]


def _signature(status: os.stat_result) -> Signature:
    """What a change to a file changes; the inode catches the symlink swap that updates a ConfigMap volume."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def read(path: Path) -> tuple[Signature, bytes]:
    """The file's content and the signature of that very file, not of one that replaced it meanwhile."""
    status, raw = tomlfile.read(path)
    return _signature(status), raw


class NodesFile:
    """A ``peers.Source`` that reads *path*.

    Nothing is read before the first ``refresh``. One thread refreshes; any may read ``nodes`` and ``error``.
    """

    def __init__(
        self, path: str, clock: Callable[[], int] = time.time_ns, read: Reader = read, kept: Path | None = None
    ) -> None:
        """*clock* answers nanoseconds since the epoch, as files are stamped; *read* is what opens the file; *kept* is
        where a copy of the last good one is kept."""
        self._path = Path(path)
        self._kept = Kept(kept, path) if kept is not None else None
        self._clock = clock
        self._read = read
        self._nodes: frozenset[Peer] = frozenset()
        self._error: ConfigInvalid | None = None
        self._is_recalled = False
        self._seen: Signature | None = None
        self._raw: bytes | None = None

    @property
    def origin(self) -> str:
        """See `cluster.peers.Source.origin`."""
        return str(self._path)

    @property
    def nodes(self) -> frozenset[Peer]:
        """The last good set; empty until the first successful ``refresh``."""
        return self._nodes

    @property
    def error(self) -> ConfigInvalid | None:
        """Why the file as it is now is not in use; None when it is."""
        return self._error

    def refresh(self) -> bool:
        """Read the file if it changed: True when ``nodes`` or ``error`` did. Else it costs one stat(2)."""
        try:
            now = _signature(self._path.stat())
            if now == self._seen and self._clock() - max(now[-2:]) > _YOUNG:
                return False
            before, self._raw = self._raw, None  # None until read: after a refusal all is parsed again
            self._seen, self._raw = self._read(self._path)
            if self._raw == before:
                return False
            nodes = nodeslist.parse(str(self._path), self._raw)
        except OSError as error:
            self._seen = self._raw = None
            return self._refuse(ConfigInvalid(f"{self._path}: cannot be read", error.strerror or str(error)))
        except ConfigInvalid as error:
            return self._refuse(error)
        changed = self._error is not None or nodes != self._nodes
        self._nodes, self._error, self._is_recalled = nodes, None, False
        if self._kept is not None:
            self._kept.save(self._raw)
        return changed

    def _refuse(self, error: ConfigInvalid) -> bool:
        if self._kept is not None and not self._nodes and self._error is None:  # the first look after a start
            self._nodes = self._recalled(self._kept)
            self._is_recalled = bool(self._nodes)
        if self._kept is not None and self._is_recalled:
            remedy = f"{error.details}; until it is mended, {self._kept.path} is used, the last good list"
            error = ConfigInvalid(error.message, remedy)
        changed = str(error) != str(self._error)
        self._error = error
        return changed

    def _recalled(self, kept: Kept) -> frozenset[Peer]:
        raw = kept.load()
        try:
            return nodeslist.parse(str(kept.path), raw) if raw is not None else frozenset()
        except ConfigInvalid as error:  # somebody edited it, or a newer agent wants more of a list
            log.warning("the copy of the last good list of nodes cannot be used", extra={"error": str(error)})
            return frozenset()
