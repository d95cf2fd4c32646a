"""No part of a running agent dies unnoticed: the process ends with it, for its supervisor to start anew."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from agent import commands
from cni.errors import Failure
from demo.lab import PATIENCE, Node, built, eventually
from demo.place import Failed
from demo.runtime import Refused
from tests.fakes.mortal import ARMED, HANG, HANGS, LATE
from tests.pace import Stopwatch

SOON = 1.0
"""Seconds within which the process has to end."""


def ask_status(node: Node) -> None:
    node.runtime.call("STATUS")


def add_again(node: Node) -> None:
    """It cannot be served with others, and somebody else does that."""
    pod = node.pods[0]
    node.runtime.add(pod.container, pod.place)


def switch(node: Node) -> None:
    commands.ask(str(node.runtime.socket), commands.SWITCH, {"backend": "vxlan"})


def scrape(node: Node) -> None:
    node.metrics()


def nothing(node: Node) -> None:
    """It comes by itself."""


DEATHS = [
    pytest.param("request-", "_serve_one", ask_status, id="request"),
    pytest.param("request-", "next_job", ask_status, id="request-reading"),
    pytest.param("more", "_serve_one", add_again, id="more"),
    pytest.param("reconciler", "_turn", nothing, id="reconciler"),
    pytest.param("reconciler", "quick", nothing, id="reconciler-in-a-pass"),
    pytest.param("switch", "advance", switch, id="switch"),
    pytest.param("http", "service_actions", nothing, id="http"),
    pytest.param("Thread-", "do_GET", scrape, id="http-request"),
]


@pytest.fixture
def node() -> Iterator[Node]:
    """One with a pod, whose agent is yet to be started."""
    with built(nodes=1, is_started=False) as lab:
        yield lab.nodes[0]


@pytest.mark.parametrize(("thread", "function", "provoke"), DEATHS)
@pytest.mark.parametrize("error", ["SystemExit", "ZeroDivisionError"])
def test_the_process_ends_with_any_of_its_threads(
    node: Node, thread: str, function: str, provoke: Callable[[Node], None], error: str
) -> None:
    """Within a second, with exit code 1, and its log names the thread; the next agent finds all as it was."""
    if (function, error) == ("do_GET", "ZeroDivisionError"):
        error = "KeyboardInterrupt"  # an exception there ends one connection
    provoking = assert_ends(node, thread, function, provoke, error)
    line = next(line for line in node.tail(100).splitlines() if "a thread died" in line)
    assert f"died={thread.rstrip('-')}" in line or 'died="http request"' in line
    assert "killed by the test" in line
    node.program = ("-m", "agent.main")
    node.start()
    provoking.join()
    node.runtime.check(node.pods[0])
    assert node.stop() == 0


def assert_ends(
    node: Node, thread: str, function: str, provoke: Callable[[Node], None], error: str
) -> threading.Thread:
    """Have that thread die, and see the process end. Who provoked it may still wait for the next agent."""
    node.program = ("-m", "tests.fakes.mortal", thread, function, error)
    node.start()
    node.add()
    assert node.agent is not None
    node.agent.send_signal(signal.SIGUSR1)
    eventually("the thread may die", lambda: ARMED in node.log.read_text())
    provoking = threading.Thread(target=_provoke, args=(provoke, node))
    with Stopwatch() as watch:
        provoking.start()
        code = node.agent.wait(PATIENCE)
    node.agent = None
    assert code == 1
    assert watch.seconds < SOON + (1.0 if provoke is nothing else 0.0)  # what comes by itself comes once a second
    return provoking


def _provoke(provoke: Callable[[Node], None], node: Node) -> None:
    with suppress(Refused, Failed, Failure, OSError):
        provoke(node)


def test_one_that_works_no_more_says_so_to_all_who_look(node: Node) -> None:
    """Its reconciler hangs, all else is well: STATUS, both probes and the supervisor hear of it; ADDs are served."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(node.directory / "notify"))
        supervisor.settimeout(PATIENCE)
        node.environment = {"NOTIFY_SOCKET": f"{node.directory}/notify", "WATCHDOG_USEC": "1000000", LATE: "5"}
        node.program = ("-m", "tests.fakes.mortal", "reconciler", "quick", HANG)
        node.start()
        assert [supervisor.recv(1000), supervisor.recv(1000)] == [b"READY=1", b"WATCHDOG=1"]
        node.runtime.call("STATUS")
        assert " 200 " in probed(node, "/healthz")
        assert node.agent is not None
        node.agent.send_signal(signal.SIGUSR1)
        while (said := supervisor.recv(1000)) == b"WATCHDOG=1":
            pass
        assert said.startswith(b"STATUS=what changes on this node is not mended")
        with pytest.raises(Refused, match="is not mended"):
            node.runtime.call("STATUS")
        for path in ("/healthz", "/readyz"):
            assert " 503 " in probed(node, path)
            assert "is not mended" in probed(node, path)
        node.add()
        supervisor.settimeout(1.0)
        with pytest.raises(TimeoutError):  # it is not told again that the agent works
            supervisor.recv(1000)


def test_one_that_was_stopped_and_goes_on_goes_on(node: Node) -> None:
    """As under a debugger, or when its cgroup was frozen: that is no signal to end."""
    node.start()
    assert node.agent is not None
    for _ in range(3):
        node.agent.send_signal(signal.SIGSTOP)
        time.sleep(2.1)  # longer than the thread that waits for the end waits between looks
        node.agent.send_signal(signal.SIGCONT)
        time.sleep(0.2)
        node.runtime.call("STATUS")
    assert "stopping" not in node.log.read_text()
    assert node.stop() == 0


def test_one_that_is_started_without_standard_streams_serves(node: Node) -> None:
    """And what a caller has closed is no file of the agent's, into which its log would go."""
    node.launcher = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")
    node.start()
    node.delete(node.add())
    assert node.agent is not None
    streams = [Path(f"/proc/{node.agent.pid}/fd/{number}").readlink() for number in range(3)]
    assert streams == [Path(os.devnull)] * 3
    assert node.stop() == 0


def probed(node: Node, path: str) -> str:
    """What the port answers."""
    with node.place.socket(socket.AF_INET, socket.SOCK_STREAM) as stream:
        stream.connect(("127.0.0.1", 9472))
        stream.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        answer = b""
        while data := stream.recv(1 << 12):
            answer += data
    return answer.decode()


def test_a_part_that_does_not_stop_is_named_and_left_behind(node: Node) -> None:
    """After ten seconds; who asks meanwhile is not served any more, and the next agent finds all as it was."""
    node.program = ("-m", "tests.fakes.mortal", "reconciler", "quick", HANG)
    node.start()
    pod = node.add()
    assert node.agent is not None
    node.agent.send_signal(signal.SIGUSR1)
    eventually("the thread hangs", lambda: HANGS in node.log.read_text())
    assert node.stop() == 1
    assert "some parts do not stop, and are left behind parts=reconciler" in node.tail()
    node.program = ("-m", "agent.main")
    node.start()
    node.runtime.check(pod)
