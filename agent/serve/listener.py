"""The agent's listening socket: where it is, whose it is, that nobody else serves it, and that it stays there."""

from __future__ import annotations

import logging
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from cni.errors import ConfigInvalid, Failure, NotReady
from ipam.schema import named_kind

log = logging.getLogger(__name__)

BACKLOG: Final = 4096
"""Connections that the kernel keeps waiting."""
Identity = tuple[int, int]
"""Device and inode: what tells a socket's file from every other that is in its place later."""


class Listener:
    """The socket at *path*: had from the beginning, so that nobody else has it, and yet to `listen`. ConfigInvalid: see
    `bound`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stream = bound(path)
        """Where connections are accepted."""
        self._identity = identity(path)
        self._problem: Failure | None = None
        self._is_closed = False

    def listen(self) -> None:
        """Have connections wait to be accepted."""
        self.stream.listen(BACKLOG)

    def problem(self) -> Failure | None:
        """Why nobody can connect. Any thread may ask."""
        return self._problem

    def anew(self) -> socket.socket | None:
        """What to `go_on` with, listening already, where somebody removed the socket and another could be made."""
        if self._identity is not None and identity(self.path) == self._identity:
            self._problem = None
            return None
        try:
            fresh = listening(self.path)
        except ConfigInvalid as failure:
            if self._problem is None or self._problem.details != str(failure):
                log.error("the socket is gone and cannot be made anew", extra={"error": str(failure)})
            self._problem = NotReady(f"the socket {self.path} is gone: no runtime reaches the agent", str(failure))
            return None
        log.warning("somebody removed the socket: it was made anew", extra={"socket": str(self.path)})
        return fresh

    def go_on(self, fresh: socket.socket) -> None:
        """Accept connections of *fresh* from now on, which is at the same path."""
        self.stream.close()
        self.stream, self._identity, self._problem = fresh, identity(self.path), None

    def refuse(self) -> None:
        """From now on nobody can connect, which the kernel tells them; those who have can still be accepted."""
        with suppress(OSError):  # it does not listen yet
            self.stream.shutdown(socket.SHUT_RD)

    def close(self) -> None:
        """Let go of it and remove it, unless something else is in its place. Nothing happens the second time."""
        if self._is_closed:
            return
        self._is_closed = True
        if identity(self.path) == self._identity:
            self.path.unlink(missing_ok=True)
        self.stream.close()


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
