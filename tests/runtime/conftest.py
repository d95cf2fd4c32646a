"""Two nodes with a real containerd each, once per test file and release of containerd."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from demo import lab
from demo.lab import Lab
from tests.conformance.podman import is_root
from tests.runtime import daemon
from tests.runtime.daemon import RELEASES, ROOT, Machine


@dataclass(frozen=True, slots=True)
class Cluster:
    """A lab, and its nodes with their containerd."""

    lab: Lab
    machines: tuple[Machine, ...]


@pytest.fixture(scope="module", params=list(RELEASES))
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Dual-stack, on one segment, with the conflist that the project ships."""
    release = RELEASES[request.param]
    if not is_root():
        pytest.skip("containerd needs real root")
    if not release.is_there:
        pytest.skip(f"containerd {request.param} was not unpacked: see deploy/packages.sh")
    directory: Path = tmp_path_factory.mktemp("images")
    tools = daemon.tools(directory / "tools.tar")
    conflist = ROOT / "conf/10-routable.conflist"
    with lab.built(nodes=2, family="dual", is_started=False) as built, ExitStack() as cleanup:
        machines = [cleanup.enter_context(daemon.machine(node, release, tools, conflist)) for node in built.nodes]
        for node in built.nodes:
            node.start()
        yield Cluster(built, tuple(machines))
