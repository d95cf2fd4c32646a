"""The words of the CNI specification 1.1.0 that the other floors share.

https://github.com/containernetworking/cni/blob/spec-v1.1.0/SPEC.md
"""

from __future__ import annotations

import enum
import re
from typing import Final, NamedTuple

VERSIONS: Final = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
"""Every released cniVersion that we speak, oldest first."""

NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*", re.ASCII)
"""Network names and container ids (SPEC.md, "CNI_CONTAINERID" and "name"); use with ``fullmatch``."""

IFNAME_MAX: Final = 15
"""IFNAMSIZ less the terminating NUL."""


class Verb(enum.StrEnum):
    """CNI_COMMAND."""

    ADD = "ADD"
    DEL = "DEL"
    CHECK = "CHECK"
    GC = "GC"
    STATUS = "STATUS"
    VERSION = "VERSION"


class Identity(NamedTuple):
    """Which network namespace it is, whatever path names it. The kernel gives *inode* to another one as soon as this is
    gone, so *cookie* is what is never given again until the next boot; 0 where the kernel has none (before 5.14)."""

    device: int
    inode: int
    cookie: int


class Attachment(NamedTuple):
    """The specification's primary key: one interface of one container on one network."""

    network: str
    container: str
    ifname: str

    def __str__(self) -> str:
        return f"{self.network}/{self.container}/{self.ifname}"
