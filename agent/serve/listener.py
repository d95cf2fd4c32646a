"""The agent's listening socket: where it is, whose it is, and that nobody else serves it."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import Final

from cni.errors import ConfigInvalid
from ipam.schema import named_kind

BACKLOG: Final = 4096
"""Connections that the kernel keeps waiting."""
Identity = tuple[int, int]
"""Device and inode: what tells a socket's file from every other that is in its place later."""


def identity(path: Path) -> Identity | None:
    """What is at *path* now."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def listening(path: Path) -> socket.socket:
    """What `bound` makes, and connections to it wait."""
    listener = bound(path)
    listener.listen(BACKLOG)
    return listener


def bound(path: Path) -> socket.socket:
    """A socket at *path*, mode 0600, in a directory made with mode 0700 where missing; it is yet to listen.

    A socket that nobody serves is replaced, and nothing else. ConfigInvalid: somebody serves it, something else is
    there, or it cannot be made.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        refuse_others(path)
        if _is_served(path):
            raise ConfigInvalid(
                f"the socket {path} is served already", "another agent runs on this node: stop it first"
            )
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            # The mode before the name: nobody connects between the two.
            os.fchmod(listener.fileno(), 0o600)
            listener.bind(os.fspath(path))
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise ConfigInvalid(f"the socket {path} cannot be made: {error.strerror}", "check paths.socket") from error
    return listener


def refuse_others(path: Path) -> None:
    """Raise ConfigInvalid if something that is no socket is at *path*."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigInvalid(
            f"paths.socket is {path}, which is a {named_kind(mode)}",
            "it was left alone; set paths.socket to where nothing else is",
        )


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)  # whose queue is full serves it, too, and would be waited for
        try:
            probe.connect(os.fspath(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except BlockingIOError:
            return True
        except OSError as error:
            raise ConfigInvalid(f"the socket {path} cannot be used: {error.strerror}", "check paths.socket") from error
    return True
