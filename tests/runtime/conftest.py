"""Nodes with a real containerd each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from demo import lab
from demo.lab import Lab, eventually
from tests.runtime import daemon
from tests.runtime.daemon import RELEASES, Machine


@dataclass(frozen=True, slots=True)
class Cluster:
    """A lab, and its nodes with their containerd."""

    lab: Lab
    machines: tuple[Machine, ...]


@pytest.fixture(scope="module", params=list(RELEASES))
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes; every test of a file has them with each release of containerd."""
    with running(request.param, 2, tmp_path_factory.mktemp("images")) as cluster:
        yield cluster


@contextmanager
def running(release: str, nodes: int, directory: Path, wait: str = "10") -> Iterator[Cluster]:
    """So many nodes on one segment, dual-stack, whose agents give containerd its network as they would on any node. The
    executable waits so many seconds for an agent."""
    lacks = RELEASES[release].lacks()
    if lacks:
        pytest.skip(lacks)
    tools = daemon.tools(directory / "tools.tar")
    with lab.built(nodes=nodes, family="dual", is_started=False) as built, ExitStack() as cleanup:
        for node in built.nodes:
            node.runtime = replace(node.runtime, environment={"ROUTABLE_WAIT": wait})
        machines = [cleanup.enter_context(daemon.machine(node, RELEASES[release], tools)) for node in built.nodes]
        for node in built.nodes:
            node.start()
        for one in machines:
            eventually("containerd has a network", lambda one=one: not one.cri.network())
        yield Cluster(built, tuple(machines))
