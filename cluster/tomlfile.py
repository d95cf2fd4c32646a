"""Reading a TOML file so that whoever wrote it can mend it: a complaint names the file and the line.

``tomllib`` keeps no positions, so a line is found by searching the text again. That search understands the
plain layout (``[table]`` headers, one key per line) and answers None for anything cleverer rather than guess.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Any, Final

from cni.errors import ConfigInvalid

SIZE_MAX: Final = 8 << 20
"""Bytes: ten times what 5,000 dual-stack nodes take; more is some other file, and would be read for a minute."""

_HEADER: Final = re.compile(r"^[ \t]*(\[\[?)[ \t]*([A-Za-z0-9_.\-]+)[ \t]*\]\]?[ \t]*(?:#.*)?$", re.MULTILINE)
_AT_LINE: Final = re.compile(r"(.*) \(at line (\d+), column (\d+)\)", re.DOTALL)
_SHOWN_MAX: Final = 80


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)  # without O_NONBLOCK a FIFO would hang


def read(path: Path) -> tuple[os.stat_result, bytes]:
    """The file's state and content, both of the same file even where another replaces it meanwhile.

    Raises OSError, or ConfigInvalid when it is nothing that could hold a configuration.
    """
    with open(path, "rb", opener=_open) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ConfigInvalid(f"{path}: is not a regular file", "name a TOML file")
        raw = file.read(SIZE_MAX + 1)
    if len(raw) > SIZE_MAX:
        raise ConfigInvalid(f"{path}: is larger than {SIZE_MAX >> 20} MiB", "is it the right file?")
    return status, raw


def parse(path: str, raw: bytes) -> tuple[str, dict[str, Any]]:
    """*raw*, the content of *path*, as text and as TOML. Raises ConfigInvalid with file and line."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigInvalid(f"{path}, line {line}: is not UTF-8 text", "TOML files are UTF-8") from error
    try:
        return text, tomllib.loads(text)
    except RecursionError as error:
        raise ConfigInvalid(f"{path}: is not TOML", "values are nested too deeply") from error
    except ValueError as error:  # TOMLDecodeError, and what int() says of a number with 4,300 digits
        found = _AT_LINE.fullmatch(str(error))
        if found is None:
            raise ConfigInvalid(f"{path}: is not TOML", str(error)) from error
        why, line_text, column = found.groups()
        raise ConfigInvalid(f"{path}, line {line_text}, column {column}: is not TOML", why) from error


def shown(value: object) -> str:
    """*value* on one line as TOML would write it, cut when it is long."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = _plain(value)
    text = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}… ({len(text)} characters)"


def _plain(value: object) -> str:
    """What JSON has no words for: a date, a number of more digits than Python shows, a table in a table in a table …"""
    try:
        return str(value)
    except (ValueError, RecursionError):
        return f"(a {type(value).__name__} that is too large to be shown)"


def place(path: str, line: int | None) -> str:
    """The beginning of a complaint: the file, and the line where that is known."""
    return path if line is None else f"{path}, line {line}"


def line_of(text: str, table: str, nth: int = 0, key: str = "", value: str = "") -> int | None:
    """The line (from 1) of *value*, else of *key*, else of the header, in the *nth* (from 0) *table*.

    The table "" is what stands before the first header. None: there is no such header, as when the file uses
    inline tables or dotted keys.
    """
    headers = list(_HEADER.finditer(text))
    if table:
        found = [number for number, one in enumerate(headers) if one[2] == table]
        if nth >= len(found):
            return None
        start = headers[found[nth]].start()
        rest = headers[found[nth] + 1 :]
    else:
        start, rest = 0, headers
    lines = text[start : rest[0].start() if rest else len(text)].split("\n")
    first = text.count("\n", 0, start) + 1
    key_at = next((n for n, line in enumerate(lines) if key and _begins_with(line, key)), None)
    if value:
        for number, line in enumerate(lines[key_at or 0 :], key_at or 0):
            if f'"{value}"' in line or f"'{value}'" in line:
                return first + number
    if key_at is not None:
        return first + key_at
    return first if table else None


def _begins_with(line: str, key: str) -> bool:
    return re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[=.]", line) is not None
