"""Passwords of sessions (RFC 2385), each in a file of its own: read, and never said."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cni.errors import ConfigInvalid

LENGTH_MAX: Final = 80
"""Bytes: TCP_MD5SIG_MAXKEYLEN (linux/tcp.h)."""


def passwords(paths: Iterable[str]) -> dict[str, str]:
    """What is in the files at *paths*, by these; '' is none. ConfigInvalid: one has no password that can be used."""
    return {path: password(path) for path in sorted(set(paths)) if path}


def password(path: str) -> str:
    """The first line of the file."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            raw = file.read(LENGTH_MAX + 3)
    except OSError as error:
        raise ConfigInvalid(f"no password can be read in {path}: {error.strerror}", "set bgp.password_file") from error
    line = raw.split(b"\n", 1)[0].rstrip(b"\r")
    if not line or len(line) > LENGTH_MAX:
        raise ConfigInvalid(f"{path} has no password", f"its first line is one of 1 to {LENGTH_MAX} characters")
    text = line.decode("ascii", errors="replace")
    if not text.isprintable() or not text.isascii() or '"' in text:
        raise ConfigInvalid(
            f"the password in {path} has a character that BIRD cannot read",
            "allowed: letters, digits, spaces and signs of ASCII, but no quotation mark",
        )
    return text


def is_readable_by_others(path: str) -> bool:
    """Whether more than the owner may read it."""
    return bool(Path(path).stat().st_mode & 0o077)
