"""Puts the executable ``routable`` into a CNI binary directory: compiled where a compiler is found, else Python.

The C form starts in under a millisecond and needs nothing from the node; the Python form needs the interpreter
that its first line names, at that path, where the *runtime* runs it. What is installed has been run once: a
candidate that cannot start there (another libc, a missing interpreter, a directory mounted noexec) never
replaces one that works.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Final, Literal

from cni.errors import ConfigInvalid

NAME: Final = "routable"
"""The file's name, and so the ``type`` in a network configuration."""

_SHEBANG_MAX: Final = 127
"""BINPRM_BUF_SIZE less one before Linux 5.1 (execve(2)): what is longer is cut off silently."""

_COMPILERS: Final = ("cc", "gcc", "clang")
_BUILDS: Final = (("-static",), ())
"""A static executable depends on no libc of the node, but needs the static libc to be built: the first choice."""


class _Unfit(Exception):
    """A candidate could not be made, or did not run; the text is the reason."""


@dataclass(frozen=True, slots=True)
class Installed:
    """Where the executable is, in which form, and why in that form."""

    path: Path
    form: Literal["c", "python"]
    reason: str


def install(directory: Path, python: Path, cc: str | None) -> Installed:
    """Write *directory*/routable (mode 0755) in one step: a runtime sees the old file or the new one, whole.

    Args:
        directory: the CNI binary directory, such as /opt/cni/bin; it is made if it is missing.
        python: the base interpreter for the Python form (``sys._base_executable``); links are followed, so that
            it does not depend on a virtual environment.
        cc: the C compiler, a name to be found on PATH or a path; None for the Python form.

    Raises:
        ConfigInvalid: if the directory cannot be written, or neither form runs there.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with _temporary(directory) as candidate:
            form, reason = _made(candidate, python, cc)
            candidate.chmod(0o755)
            _synced(candidate)
            target = directory / NAME
            candidate.replace(target)
    except OSError as error:
        raise _uninstallable(directory, error) from error
    return Installed(target, form, reason)


def install_with_what_is_here(directory: Path) -> Installed:
    """See `install`: by the interpreter that runs this, and a compiler if the machine has one."""
    compiler = next((found for name in _COMPILERS if (found := shutil.which(name))), None)
    return install(directory, Path(getattr(sys, "_base_executable", sys.executable)), compiler)


def is_placed(source: Path, target: Path) -> bool:
    """Whether the executable *source* is at *target*, and can be run there. ConfigInvalid: *source* cannot be read."""
    try:
        wanted = source.read_bytes()
    except OSError as error:
        why = "it is the CNI executable, as routablectl install makes it"
        raise ConfigInvalid(f"{source} cannot be read: {error.strerror or error}", why) from error
    try:
        found = target.lstat()
        return stat.S_ISREG(found.st_mode) and found.st_mode & 0o555 == 0o555 and target.read_bytes() == wanted
    except OSError:
        return False


def placed(source: Path, target: Path, known: Callable[[str], object]) -> str:
    """Put the executable *source* at *target* in one step, also while what is there is being executed; it has been run
    in its directory before. The answer is its SHA-256, which *known* is told before it is there.

    ConfigInvalid: it cannot be put there, or does not run.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _temporary(target.parent) as candidate:
            shutil.copyfile(source, candidate)
            _try(candidate)
            _synced(candidate)
            digest = sha256(candidate.read_bytes()).hexdigest()
            known(digest)
            candidate.replace(target)
    except OSError as error:
        raise _uninstallable(target.parent, error) from error
    except _Unfit as unfit:
        raise ConfigInvalid(f"{NAME} cannot be installed in {target.parent}: {unfit}", f"it is {source}") from unfit
    return digest


def removed(target: Path, digest: str) -> bool:
    """Take the executable at *target* away, if it is the one of that SHA-256. ConfigInvalid: that cannot be done."""
    try:
        is_it = stat.S_ISREG(target.lstat().st_mode) and sha256(target.read_bytes()).hexdigest() == digest
        if is_it:
            target.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ConfigInvalid(f"{target} cannot be removed: {error.strerror or error}", "remove it by hand") from error
    return is_it


def _uninstallable(directory: Path, error: OSError) -> ConfigInvalid:
    return ConfigInvalid(
        f"{NAME} cannot be installed in {directory}: {error.strerror or error}",
        "the directory must be writable and on a file system that allows execution",
    )


def _made(candidate: Path, python: Path, cc: str | None) -> tuple[Literal["c", "python"], str]:
    compiler = shutil.which(cc) if cc else None
    if compiler:
        try:
            how = _compile(candidate, compiler)
        except _Unfit as unfit:
            reason = str(unfit)
        else:
            return "c", f"compiled by {compiler} ({how})"
    else:
        reason = f"no C compiler {cc} was found" if cc else "no C compiler was asked for"
    try:
        _write_python(candidate, python.resolve())
        _try(candidate)
    except _Unfit as unfit:
        raise ConfigInvalid(
            f"{NAME} cannot be installed in {candidate.parent}: {unfit}", f"and not in C either: {reason}"
        ) from unfit
    return "python", reason


def _compile(candidate: Path, compiler: str) -> str:
    """Compile and try the C form; return how it was linked."""
    reasons = []
    with resources.as_file(resources.files("cni") / "relay.c") as source:
        for flags in _BUILDS:
            how = "static" if "-static" in flags else "dynamic"
            try:
                _run([compiler, "-O2", "-s", *flags, "-o", str(candidate), str(source)])
                _try(candidate)
            except _Unfit as unfit:
                reasons.append(f"{how}: {unfit}")
            else:
                return how
    raise _Unfit(f"{compiler} made no executable that runs here: " + "; ".join(reasons))


def _write_python(candidate: Path, python: Path) -> None:
    shebang = f"#!{python} -IS"
    if len(os.fsencode(shebang)) > _SHEBANG_MAX or any(sign.isspace() for sign in str(python)):
        raise _Unfit(f"{python} cannot stand in a script's first line: it is too long or contains a space")
    source = (resources.files("cni") / "relay.py").read_text("utf-8")
    candidate.write_text(f"{shebang}\n{source}", "utf-8")


def _try(candidate: Path) -> None:
    """Run *candidate* for VERSION without an agent, which has one right answer."""
    candidate.chmod(0o755)
    nowhere = "/dev/null/agent.sock"  # below what is no directory: nothing can listen there
    answer = _run([str(candidate)], {"CNI_COMMAND": "VERSION", "ROUTABLE_SOCKET": nowhere})
    try:
        is_right = "supportedVersions" in json.loads(answer)
    except ValueError:
        is_right = False
    if not is_right:
        raise _Unfit(f"it answers VERSION with {answer[:200]!r}")


def _run(command: Sequence[str], environ: dict[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _Unfit(f"{command[0]} cannot be run: {error}") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()
        raise _Unfit(f"{command[0]} failed with {done.returncode}: {said[-400:]}")
    return done.stdout.decode("utf-8", "replace")


@contextlib.contextmanager
def _temporary(directory: Path) -> Iterator[Path]:
    """A file name in *directory*, hidden from runtimes, that is gone afterwards unless it was renamed."""
    descriptor, name = tempfile.mkstemp(prefix=f".{NAME}-", dir=directory)
    os.close(descriptor)
    path = Path(name)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _synced(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
