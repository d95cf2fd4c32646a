"""Installing the executable: the right form, in one step, and never one that does not run."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cni.errors import ConfigInvalid
from cni.install import install
from tests.conformance.executables import PYTHON, called

ROOT = Path(__file__).parents[2]


def is_runnable(path: Path) -> bool:
    """Whether *path* answers VERSION without an agent."""
    environ = {b"CNI_COMMAND": b"VERSION", b"ROUTABLE_SOCKET": b"/dev/null/agent.sock"}
    return b"supportedVersions" in called(path, environ).out


def compiler(path: Path, body: str) -> str:
    """A compiler that does what the shell line *body* says."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_with_a_compiler_the_executable_is_c(tmp_path: Path) -> None:
    """A compiler that is found gives the compiled form, in a directory that is made for it."""
    done = install(tmp_path / "cni" / "bin", PYTHON, "cc")
    assert (done.form, done.path) == ("c", tmp_path / "cni" / "bin" / "routable")
    assert done.reason.startswith(f"compiled by {shutil.which('cc')} (")
    assert done.path.read_bytes()[:4] == b"\x7fELF"
    assert is_runnable(done.path)
    assert stat.S_IMODE(done.path.stat().st_mode) == 0o755
    assert list(done.path.parent.iterdir()) == [done.path]


@pytest.mark.parametrize(
    ("cc", "reason"), [(None, "no C compiler was asked for"), ("no-such-cc", "no C compiler no-such-cc was found")]
)
def test_without_a_compiler_the_executable_is_python(tmp_path: Path, cc: str | None, reason: str) -> None:
    """With no compiler the Python form is installed, for the base interpreter, isolated and without site."""
    done = install(tmp_path, PYTHON, cc)
    assert (done.form, done.reason) == ("python", reason)
    assert done.path.read_text().splitlines()[0] == f"#!{PYTHON.resolve()} -IS"
    assert is_runnable(done.path)
    assert stat.S_IMODE(done.path.stat().st_mode) == 0o755
    assert list(tmp_path.iterdir()) == [tmp_path / "routable"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("echo no headers >&2; exit 3", "failed with 3: no headers"),
        ('while [ "$1" != -o ]; do shift; done; printf "#!/bin/false" > "$2"', "failed with 1"),
        ('while [ "$1" != -o ]; do shift; done; printf "#!/bin/echo" > "$2"', "it answers VERSION with"),
        ('while [ "$1" != -o ]; do shift; done; printf "\\177ELF" > "$2"', "cannot be run"),
    ],
)
def test_a_compiler_that_makes_nothing_runnable_gives_python(tmp_path: Path, body: str, reason: str) -> None:
    """If what was compiled does not answer VERSION, the Python form is installed and the reason told."""
    done = install(tmp_path / "bin", PYTHON, compiler(tmp_path / "cc", body))
    assert done.form == "python"
    assert reason in done.reason
    assert is_runnable(done.path)
    assert list(done.path.parent.iterdir()) == [done.path]


def test_without_a_static_libc_the_executable_is_dynamic(tmp_path: Path) -> None:
    """A compiler that cannot link statically still gives the compiled form."""
    cc = compiler(tmp_path / "cc", 'for a; do [ "$a" = -static ] && exit 1; done; exec cc "$@"')
    done = install(tmp_path / "bin", PYTHON, cc)
    assert (done.form, done.reason) == ("c", f"compiled by {cc} (dynamic)")
    assert is_runnable(done.path)


def test_what_was_installed_before_is_replaced_in_one_step(tmp_path: Path) -> None:
    """An open old file keeps its content: the new one is another file under the same name."""
    (tmp_path / "routable").write_bytes(b"old")
    with (tmp_path / "routable").open("rb") as old:
        done = install(tmp_path, PYTHON, None)
        assert old.read() == b"old"
    assert is_runnable(done.path)


@pytest.mark.parametrize("python", ["/no/such/python", "/bin/false", "/with space/python", "/" + "p" * 130])
def test_nothing_is_replaced_by_what_cannot_run(tmp_path: Path, python: str) -> None:
    """If neither form runs, the old executable stays and the error says why for both."""
    (tmp_path / "routable").write_bytes(b"old")
    with pytest.raises(ConfigInvalid, match=f"routable cannot be installed in {tmp_path}") as caught:
        install(tmp_path, Path(python), None)
    assert "no C compiler was asked for" in caught.value.details
    assert (tmp_path / "routable").read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [tmp_path / "routable"]


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The system's reason is translated into an error that names the directory."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigInvalid, match=r"/file/bin: Not a directory"):
        install(tmp_path / "file" / "bin", PYTHON, None)


def test_routablectl_says_what_it_installed(tmp_path: Path) -> None:
    """With the compiler that is on the PATH, or without one."""
    for path, form in ((os.environ["PATH"], "c (compiled by "), ("/nowhere", "python (no C compiler was asked for)")):
        command = [sys.executable, "-m", "agent.ctl", "install", str(tmp_path / form[0])]
        environ = {**os.environ, "PATH": path}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True, cwd=ROOT)
        assert done.stdout.startswith(f"{tmp_path / form[0] / 'routable'}: {form}")
        assert is_runnable(tmp_path / form[0] / "routable")
