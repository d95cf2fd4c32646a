"""Other network namespaces: what a path names, and doing something inside for a moment (setns(2))."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cni.errors import EnvironmentInvalid, KernelRefused
from cni.spec import Identity
from dataplane.items import Space
from dataplane.refusal import PASSING, translated

log = logging.getLogger(__name__)

_CLONE_NEWNET: Final = 0x40000000
_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ESRCH})
"""What opening a path is answered when nothing is there any more: ESRCH below /proc of a process that ended."""
_TRIES: Final = 50
_MOMENT: Final = 0.02
"""Seconds."""
_SO_NETNS_COOKIE: Final = 71
"""Linux 5.14: a number that no other namespace is given until the next boot."""
_NS_GET_NSTYPE: Final = 0xB703  # _IO(0xb7, 3), ioctl_ns(2)


class Netns:
    """The agent's own namespace and a way into others; used by any thread. *lost* ends the process: a thread that does
    not get back would take a pod's namespace for the node's."""

    def __init__(self, lost: Callable[[], object] = os.abort) -> None:
        self._lost = lost
        self._setns = ctypes.CDLL(None, use_errno=True).setns  # os.setns comes with Python 3.12
        with translated("open the node's own network namespace"):
            self._own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._hosts = {_file(os.fstat(self._own)), *_of_init()}

    def open(self, path: str, variable: str = "CNI_NETNS") -> int:
        """A descriptor of the network namespace at *path*, which the caller closes.

        Raises:
            FileNotFoundError: nothing is there (any more), or, where *path* is a `Space`, not the one that is meant.
            EnvironmentInvalid: what is there is no network namespace, or it is the node's.
            OSError: no descriptor is to be had at the moment.
        """
        if not isinstance(path, Space):
            return self._opened(path, variable)
        try:
            descriptor = self._opened(path, variable)
        except EnvironmentInvalid as error:
            raise FileNotFoundError(errno.ENOENT, str(error), path) from error
        try:
            is_it = self.identity(descriptor) == path.identity
        except BaseException:
            os.close(descriptor)
            raise
        if not is_it:
            os.close(descriptor)
            raise FileNotFoundError(errno.ENOENT, "another network namespace is there now", path)
        return descriptor

    def _opened(self, path: str, variable: str) -> int:
        try:
            # O_NONBLOCK: a hostile path may name a FIFO, and opening must not wait for its writer.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError) as error:
            number = error.errno if isinstance(error, OSError) else None
            if number in _GONE:
                raise FileNotFoundError(errno.ENOENT, str(error), path) from error
            if number in PASSING:
                raise
            raise EnvironmentInvalid(f"{variable} cannot be opened: {path!r}", str(error)) from error
        try:
            if not _is_netns(descriptor):
                raise EnvironmentInvalid(
                    f"{variable} is not a network namespace: {path!r}",
                    "it must be a path such as /var/run/netns/NAME that a network namespace is bound to",
                )
            if _file(os.fstat(descriptor)) in self._hosts:
                raise EnvironmentInvalid(
                    f"{variable} is the node's own network namespace: {path!r}",
                    "a pod on the host's network must not be attached to another",
                )
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    @contextmanager
    def inside(self, descriptor: int) -> Iterator[None]:
        """Run the body with the calling thread inside the namespace; threads elsewhere are not moved."""
        self._enter(descriptor)
        try:
            yield
        finally:
            self._return()

    def _return(self) -> None:
        for _ in range(_TRIES):
            try:
                self._enter(self._own)
            except OSError as error:  # ENOMEM, as setns(2) has it
                log.critical("a thread does not get back from a pod's namespace", extra={"error": str(error)})
                time.sleep(_MOMENT)
            else:
                return
        self._lost()

    def _enter(self, descriptor: int) -> None:
        if self._setns(descriptor, _CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, f"setns: {os.strerror(number)}")

    def identity(self, descriptor: int) -> Identity:
        """Which namespace is open as *descriptor*."""
        with self.inside(descriptor), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            try:
                cookie = int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), sys.byteorder)
            except OSError as error:
                if error.errno != errno.ENOPROTOOPT:
                    raise
                cookie = 0
        return Identity(*_file(os.fstat(descriptor)), cookie)

    def close(self) -> None:
        """Close the descriptor of the own namespace."""
        os.close(self._own)


class Opened:
    """Descriptors of the pods' namespaces that one `Kernel.apply` is about, each opened once."""

    def __init__(self, netns: Netns) -> None:
        self._netns = netns
        self._open: dict[str, int] = {}

    def open(self, netns: str) -> int:
        """KernelRefused: the namespace is gone."""
        descriptor = self._open.get(netns)
        if descriptor is None:
            try:
                descriptor = self._open[netns] = self._netns.open(netns)
            except FileNotFoundError as error:
                message = f"the pod's network namespace is gone: {netns}"
                raise KernelRefused(message, "the runtime removed it during the request", errno.ENOENT) from error
        return descriptor

    def close(self) -> None:
        """Close them all."""
        for descriptor in self._open.values():
            os.close(descriptor)


def _file(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _of_init() -> list[tuple[int, int]]:
    """The first process's, as far as it may be seen: the node's, too, where the agent has been given another."""
    try:
        return [_file(Path("/proc/1/ns/net").stat())]
    except OSError:
        return []


def _is_netns(descriptor: int) -> bool:
    try:
        return fcntl.ioctl(descriptor, _NS_GET_NSTYPE) == _CLONE_NEWNET
    except OSError:
        return False
