"""Nodes with a real containerd each."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from demo import lab
from demo.lab import Lab, eventually
from tests.deploy import image
from tests.deploy.manifests import rendered
from tests.runtime import daemon
from tests.runtime.daemon import OTHER, RELEASES, Machine
from tests.runtime.daemonset import AgentPod, configured


@dataclass(frozen=True, slots=True)
class Cluster:
    """A lab, and its nodes with their containerd."""

    lab: Lab
    machines: tuple[Machine, ...]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("1.6", True), id="1.6-in-pods"),
        pytest.param(("2", False), id="2"),
        *(pytest.param((release, False), id=release) for release in OTHER),
    ],
)
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes; every test of a file has them with each release of containerd, and with agents in pods or not."""
    release, is_in_pods = request.param
    with running(release, 2, tmp_path_factory.mktemp("images"), is_in_pods=is_in_pods) as cluster:
        yield cluster


@contextmanager
def running(
    release: str, nodes: int, directory: Path, *, wait: str = "10", is_in_pods: bool = False
) -> Iterator[Cluster]:
    """So many nodes on one segment, dual-stack, whose agents give containerd its network as they would on any node,
    processes or *in_pods*, of the built image. The executable waits so many seconds for an agent."""
    lacks = RELEASES[release].lacks()
    if lacks:
        pytest.skip(lacks)
    images = [daemon.tools(directory / "tools.tar")]
    if is_in_pods:
        if shutil.which("podman") is None:
            pytest.skip("podman, which builds the image, is not installed")
        images.append(image.archive())
    with lab.built(nodes=nodes, family="dual", is_started=False) as built, ExitStack() as cleanup:
        for node in built.nodes:
            node.runtime = replace(node.runtime, environment={"ROUTABLE_WAIT": wait})
        machines = [cleanup.enter_context(daemon.machine(node, RELEASES[release], *images)) for node in built.nodes]
        for one in machines:
            if is_in_pods:
                one.agent = in_pod(built, one)
            one.agent.start()
        for one in machines:
            eventually("containerd has a network", lambda one=one: not one.cri.network())
        yield Cluster(built, tuple(machines))


def in_pod(built: Lab, machine: Machine) -> AgentPod:
    """The agent of *machine* as the static overlay has it. A container's /proc is the kernel's: so is the boot id."""
    overlay = rendered("overlays/static")
    machine.boots = itertools.repeat(Path(daemon.BOOT_ID).read_text().strip())
    configuration = configured(built, overlay, machine.node.directory / "config")
    return AgentPod(machine, overlay, image.NAME, configuration)
