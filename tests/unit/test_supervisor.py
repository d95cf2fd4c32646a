"""What systemd is told, with a socket of its kind."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.process.supervisor import Supervisor

PID = 77


@pytest.fixture(params=["file", "abstract"])
def told(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A socket that takes messages, and its name as a service is given it."""
    name = f"{tmp_path}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stream:
        stream.bind(name if request.param == "file" else f"\0{name}")
        stream.setblocking(False)
        yield stream, name if request.param == "file" else f"@{name}"


def messages(stream: socket.socket) -> list[str]:
    found = []
    while True:
        try:
            found.append(stream.recv(1 << 12).decode())
        except BlockingIOError:
            return found


def test_it_is_told_how_the_agent_is(told: tuple[socket.socket, str]) -> None:
    """While there is a problem it is not told that the agent works, but what the problem is: once."""
    stream, name = told
    one = Supervisor({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(PID)}, PID)
    assert one.patience == 30.0
    one.ready()
    one.works(None)
    one.works("no pass\nwas completed")
    one.works("no pass\nwas completed")
    one.works(None)
    one.stopping()
    assert messages(stream) == [
        "READY=1",
        "WATCHDOG=1",
        "STATUS=no pass was completed",
        "WATCHDOG=1",
        "STATUS=",
        "STOPPING=1",
    ]


def test_a_problem_is_told_whatever_is_in_its_words(told: tuple[socket.socket, str]) -> None:
    """As the name of a file that is not UTF-8."""
    stream, name = told
    Supervisor({"NOTIFY_SOCKET": name}, PID).works("no file \udcff")
    assert messages(stream) == ["STATUS=no file \\udcff"]


def test_one_that_takes_nothing_holds_nobody_up(told: tuple[socket.socket, str]) -> None:
    """Its queue is full, or its socket is gone."""
    stream, name = told
    one = Supervisor({"NOTIFY_SOCKET": name}, PID)
    for _ in range(1000):
        one.works(None)
    assert messages(stream)
    stream.close()
    one.works(None)


@pytest.mark.parametrize(
    "environment",
    [{}, {"WATCHDOG_USEC": "5000000", "WATCHDOG_PID": "1"}, {"NOTIFY_SOCKET": "vsock:2:1"}, {"WATCHDOG_USEC": "soon"}],
    ids=["nothing", "another-process", "another-kind", "no-number"],
)
def test_where_nobody_asks_nothing_is_told(environment: dict[str, str]) -> None:
    """Started by hand, or what is set was meant for another process."""
    one = Supervisor(environment, PID)
    assert one.patience == 0.0
    one.ready()
    one.works(None)


def test_the_unit_waits_for_what_the_agent_tells() -> None:
    """It is not ready before it says so, and must say that it works more often than it is looked at."""
    lines = (Path(__file__).parents[2] / "deploy/routable-agent.service").read_text().splitlines()
    settings = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    assert settings["Type"] == "notify"
    assert int(settings["WatchdogSec"]) >= 10
    assert Path(settings["ExecStart"].split()[0]).name == "routable-agent"
