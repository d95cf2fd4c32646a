"""What ``routablectl`` prints, where nobody reads it to its end."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from agent.process import terminal

ROOT = Path(__file__).parents[2]


def ctl(arguments: Sequence[str], stdout: int) -> subprocess.CompletedProcess[str]:
    """``routablectl``, with that descriptor as its output."""
    line = [sys.executable, "-m", "agent.ctl", *arguments]
    return subprocess.run(line, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT)


def gone() -> int:
    """The end of a pipe that nobody reads any more."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize("command", [["--help"], ["max-pods", "--instance-type", "m5.large", "--json"], ["--version"]])
def test_a_reader_that_goes_is_no_error(command: Sequence[str]) -> None:
    """As ``head`` does: no traceback, and the exit code tells of what was asked for."""
    writer = gone()
    try:
        done = ctl(command, writer)
    finally:
        os.close(writer)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr


def test_an_output_that_takes_nothing_is_told() -> None:
    """A full disk: one line says so."""
    with Path("/dev/full").open("wb") as full:
        done = ctl(["max-pods", "--instance-type", "m5.large", "--json"], full.fileno())
    assert done.returncode == 1
    assert done.stderr == "routablectl: the standard output takes nothing: No space left on device\n"


def test_what_is_done_while_lines_are_told_is_done_without_a_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on after a line that nobody took."""
    writer = gone()
    done = []
    with io.TextIOWrapper(io.FileIO(writer, "w"), "utf-8", write_through=True) as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        with terminal.forgiving():
            for number in range(3):
                sys.stdout.write(f"step {number}\n")
                done.append(number)
    assert done == [0, 1, 2]


def test_a_sign_that_the_terminal_has_not_is_written_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A locale whose encoding is not UTF-8."""
    path = tmp_path / "printed"
    with path.open("w", encoding="ascii") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        with terminal.forgiving():
            sys.stdout.write("… and more\n")
    assert path.read_text() == "\\u2026 and more\n"


def test_somebody_who_waits_no_longer_ends_it(tmp_path: Path) -> None:
    """Ctrl-C while the agent is waited for: the shell's exit code for that, and no traceback."""
    config = tmp_path / "agent.toml"
    config.write_text(f'backend = "static"\n[nodes]\nfile = "/n"\n[paths]\nsocket = "{tmp_path}/agent.sock"\n')
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(f"{tmp_path}/agent.sock")
        agent.listen()
        line = [sys.executable, "-m", "agent.ctl", "--config", str(config), "status"]
        process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        connection, _ = agent.accept()
        with connection:
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, ("", ""))


def test_without_a_file_behind_it_the_output_stays_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody redirected it."""
    with terminal.forgiving():
        sys.stdout.write("to whom it concerns\n")
    assert capsys.readouterr().out == "to whom it concerns\n"
