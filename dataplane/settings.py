"""Where the sysctls are, and how they are read and written.

Below ``net`` they are of the network namespace of the thread that opens them, whichever mount of procfs that is by: so
a container whose own /proc/sys is read-only can be given the host's beside it.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from cni.errors import ConfigInvalid
from dataplane.diff import Change
from dataplane.items import Sysctl
from dataplane.refusal import refused

PROC_SYS: Final = Path("/proc/sys")
_NOT_WRITABLE: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


def is_fixed(settings: Path) -> bool:
    """Whether nothing can be written below *settings*, as in a container. ConfigInvalid: no sysctls are there."""
    net = settings / "net"
    try:
        found = os.statvfs(net)
        (net / "ipv4/ip_forward").stat()
    except OSError as error:
        raise ConfigInvalid(
            f"paths.sysctls is {settings}, where no sysctls are: {net}: {error.strerror}",
            f"mount the host's /proc/sys/net at {net}, or take the key away",
        ) from error
    return bool(found.f_flag & os.ST_RDONLY)


def read(path: str) -> bytes:
    """The value in a file, without the end of its line."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 32).strip()
    finally:
        os.close(descriptor)


def write(path: str, value: bytes) -> None:
    """Have *value* in the file, which may be read-only where it has that already. An ADD waits for this: `pathlib`
    takes twice as long."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _NOT_WRITABLE and read(path) == value:
            return
        raise
    try:
        os.write(descriptor, value)
    finally:
        os.close(descriptor)


def put(settings: Path, change: Change) -> None:
    """Set a value below *settings*; one that is not wanted any more keeps what it has: others may rely on it by now.
    Where nothing can be written, the right value is right."""
    if not isinstance(change.new, Sysctl):
        return
    file = settings / change.new.path
    try:
        file.write_text(change.new.value)
    except OSError as error:
        with suppress(OSError):
            if file.read_text().strip() == change.new.value:
                return
        raise refused(change, error.errno or errno.EIO) from error
