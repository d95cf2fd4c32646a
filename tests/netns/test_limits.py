"""What only one agent can have, and what an agent has only so many of."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from demo.lab import Lab, Node, built, eventually
from tests.pace import Stopwatch

POWERLESS = 1024
"""Descriptors: what systemd gives a service that does not ask for more."""
SOON = 5.0


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A node whose agent is yet to be started."""
    with built(nodes=1, is_started=False) as lab:
        yield lab


def kernel(node: Node) -> str:
    """What is in the node's namespace."""
    return "".join(node.place.ip(what) for what in ("-o link show", "route show", "nexthop show")) + node.place.run(
        "nft", "list", "ruleset"
    )


def second(node: Node, metrics: str, paths: bool = True) -> subprocess.CompletedProcess[str]:
    """What becomes of another agent in the node's namespace that listens there, with other paths or the same."""
    directory = node.directory / "second"
    directory.mkdir(mode=0o700)
    settings: dict[str, Any] = {**node.settings, "metrics": {"listen": metrics}}
    if paths:
        settings["paths"] = {key: str(directory / Path(path).name) for key, path in node.settings["paths"].items()}
    plain = [f"{key} = {json.dumps(value)}" for key, value in settings.items() if not isinstance(value, dict)]
    for name, table in settings.items():
        if isinstance(table, dict):
            plain += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    (directory / "agent.toml").write_text("\n".join([*plain, ""]))
    return subprocess.run(
        node.place.enter(sys.executable, "-m", "agent.main", "--config", str(directory / "agent.toml")),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_a_second_agent_with_other_paths_is_refused_before_it_changes_anything(lab: Lab) -> None:
    """It would take the first one's pods for left over; it names the process that is there."""
    (node,) = lab.nodes
    node.start()
    node.add()
    before = kernel(node)
    done = second(node, "127.0.0.1:9473")
    assert done.returncode == 1
    assert node.agent is not None
    assert f"an agent runs in this network namespace already: process {node.agent.pid} of user" in done.stderr
    assert "Traceback" not in done.stderr
    assert kernel(node) == before
    assert node.status()["events"] == []


def test_what_another_has_is_noticed_before_anything_is_changed(lab: Lab) -> None:
    """The socket: the kernel is as it was."""
    (node,) = lab.nodes
    before = kernel(node)
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(node.runtime.socket))
        taken.listen()
        done = second(node, "127.0.0.1:9472", paths=False)
    assert done.returncode == 1
    assert str(node.runtime.socket) in done.stderr
    assert kernel(node) == before


def test_a_port_for_metrics_that_is_anothers_costs_the_metrics_alone(lab: Lab) -> None:
    """A pod on the host's network may have it: pods are served, STATUS succeeds, log and status name the port; and it
    is had when it is free."""
    (node,) = lab.nodes
    with node.place.socket(socket.AF_INET, socket.SOCK_STREAM) as taken:
        taken.bind(("127.0.0.1", 9472))
        taken.listen()
        node.start()
        node.add()
        node.runtime.call("STATUS")
        (problem,) = node.status()["problems"]
        assert (problem["kind"], problem["by_status"]) == ("metrics", False)
        assert "cannot listen on 127.0.0.1 port 9472" in problem["msg"]
        assert "nobody can see the metrics" in node.tail()
    eventually("the port is had", lambda: not node.status()["problems"])
    assert "routable_ready 1.0" in node.metrics()


@pytest.mark.parametrize("hard", [POWERLESS, 4096], ids=["few", "as-many-as-allowed"])
def test_whoever_connects_leaves_the_agent_what_it_needs(lab: Lab, hard: int) -> None:
    """A thousand silent connections where there are 1,024 descriptors: pods are served, and what drifts is mended."""
    (node,) = lab.nodes
    own = resource.getrlimit(resource.RLIMIT_NOFILE)
    if own[1] != resource.RLIM_INFINITY and own[1] < 4096:
        pytest.fail("the tests need 4,096 descriptors: ulimit -Hn")
    node.launcher = ("prlimit", f"--nofile={POWERLESS}:{hard}", "--")
    node.start()
    assert node.agent is not None
    limits = Path(f"/proc/{node.agent.pid}/limits").read_text().splitlines()
    assert next(line.split()[3] for line in limits if "open files" in line) == str(hard)
    pod = node.add()
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, own[1]))
        with ExitStack() as silent:
            for _ in range(1030):
                stream = silent.enter_context(socket.socket(socket.AF_UNIX))
                stream.connect(os.fspath(node.runtime.socket))
            with Stopwatch() as watch:
                node.add()
                node.place.ip(f"route del {pod.address(4)}/32")
                eventually("it is mended", lambda: f"{pod.address(4)} " in node.place.ip("route show"))
                node.runtime.call("STATUS")
            assert watch.seconds < SOON
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, own)
    assert "Too many open files" not in node.log.read_text()
