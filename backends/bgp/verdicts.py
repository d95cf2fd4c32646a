"""What ``routable-agent --check`` looks at: BIRD, and the passwords."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

from backends.bgp.passwords import is_readable_by_others, password
from backends.bgp.table import BgpTable
from backends.verdict import Mark, Verdict
from cni.errors import ConfigInvalid


def verdicts(table: BgpTable) -> Iterator[Verdict]:
    """Each thing that a start needs besides a list of nodes."""
    yield _bird(table)
    for path in sorted({table.password_file, *(one.password_file for one in table.router)} - {""}):
        yield _password(path)


def _bird(table: BgpTable) -> Verdict:
    if not table.start_bird:
        return Verdict(Mark.NOTE, "BIRD", f"is started by somebody else, with its socket in {table.directory}")
    try:
        done = subprocess.run([table.bird, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Verdict(Mark.WRONG, "BIRD", f"{table.bird} cannot be run: {error}; install bird2, or set bgp.bird")
    said = (done.stderr + done.stdout).strip()
    if "BIRD version 2." not in said and "BIRD version 3." not in said:
        return Verdict(Mark.WRONG, "BIRD", f"{table.bird} says {said[:80]!r}: it is no BIRD 2")
    return Verdict(Mark.GOOD, "BIRD", f"{table.bird}: {said}")


def _password(path: str) -> Verdict:
    try:
        password(path)
    except ConfigInvalid as failure:
        return Verdict(Mark.WRONG, "password", str(failure))
    if is_readable_by_others(path):
        return Verdict(Mark.NOTE, "password", f"{path} can be read by others than its owner: chmod 600 {path}")
    return Verdict(Mark.GOOD, "password", f"{path} can be used")
