"""Building and calling the executable in its forms: C, C with sanitizers, Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import cni.relay
from cni.install import install

SOURCE = Path(cni.relay.__file__)
PYTHON = Path(getattr(sys, "_base_executable", sys.executable))
STRICT = ("-O2", "-Wall", "-Wextra", "-Werror", "-pedantic")
SANITIZED = ("-g", "-O1", *STRICT[1:], "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
COUNTING = ("-O0", "--coverage", "-D_exit=exit")
"""Counts of executed lines are written by what `exit` calls and `_exit` does not."""
MEASURED = os.environ.get("ROUTABLE_GCOV")
"""The directory in which the C form leaves the lines that it executed; None: they are not counted."""
FORMS = ("python", "c", "c-sanitized")
PATIENCE = 60.0


class Outcome(NamedTuple):
    """How a call ended: exit code, standard output, standard error."""

    code: int
    out: bytes
    err: bytes


def built(form: str, directory: Path) -> Path:
    """Return the executable in *form*, made in *directory*."""
    if form == "python":
        return install(directory, PYTHON, None).path
    flags: tuple[str, ...] = SANITIZED if form == "c-sanitized" else STRICT
    if form == "c" and MEASURED is not None:
        directory, flags = Path(MEASURED), COUNTING
        directory.mkdir(exist_ok=True)
    target = directory / f"routable-{form}-{os.getpid()}"
    source = str(SOURCE.with_suffix(".c"))
    done = subprocess.run(["cc", *flags, source, "-o", str(target)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return target


def called(executable: Path, environ: Mapping[bytes, bytes], stdin: bytes = b"") -> Outcome:
    """Call *executable* with exactly *environ* and *stdin*; a hang is a failure."""
    done = subprocess.run(
        [str(executable)], env=environ, input=stdin, capture_output=True, timeout=PATIENCE, check=False
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def error(outcome: Outcome) -> dict[str, object]:
    """Return the CNI error that *outcome* must be: one JSON object on stdout, exit code 1, a quiet stderr."""
    assert outcome.code == 1
    assert outcome.err == b""
    document = json.loads(outcome.out)
    assert isinstance(document, dict)
    assert list(document) == ["cniVersion", "code", "msg", "details"]
    assert document["cniVersion"] == "1.1.0"
    assert document["msg"] and document["details"]
    return document
