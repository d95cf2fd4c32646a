"""Where the sysctls are. Below ``net`` they are of the network namespace of the thread that opens them, whichever mount
of procfs that is by: so a container whose own /proc/sys is read-only can be given the host's beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from cni.errors import ConfigInvalid

PROC_SYS: Final = Path("/proc/sys")


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
