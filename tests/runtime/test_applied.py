"""What ``kubectl apply -k`` sends, applied as it is to nodes of a real containerd: the agents run in pods of theirs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from demo.cluster import PORT, SERVER, Cluster, cluster
from demo.lab import eventually
from tests.deploy import image
from tests.deploy.manifests import rendered
from tests.fakes.gocni import kubelet
from tests.runtime import daemon
from tests.runtime.daemon import RELEASES
from tests.runtime.daemonset import AgentPod
from tests.runtime.pods import peer_url, pod

pytestmark = [
    pytest.mark.runtime,
    pytest.mark.skipif(shutil.which("podman") is None, reason="podman, which builds the image, is not installed"),
]
APPLIED = rendered("overlays/vxlan")


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, list[AgentPod]]]:
    """Two nodes with nothing on them but containerd, which the API server is told of as kubelet and the controller
    manager do; and what ``kubectl apply -k`` sends, as it is: configuration, role and pods. They take pods."""
    release = RELEASES["2"]
    lacks = release.lacks()
    if lacks:
        pytest.skip(lacks)
    tools = daemon.tools(tmp_path_factory.mktemp("images") / "tools.tar")
    with cluster("vxlan") as here, ExitStack() as cleanup:
        (role,) = APPLIED.of("ClusterRole")
        here.api.rules = role["rules"]
        (here.lab.directory / "agent").mkdir()
        (here.lab.directory / "agent/agent.toml").write_text(APPLIED.config)
        pods = []
        for node in here.lab.nodes:
            machine = cleanup.enter_context(daemon.machine(node, release, tools, image.archive()))
            server, account = (SERVER["dual"], PORT), here.lab.directory
            pods.append(AgentPod(machine, APPLIED, image.NAME, account / "agent", server, account))
        for one in pods:
            here.api.store.put(here.told(one.machine.node))
            one.begin()
        for one in pods:
            name = one.machine.node.name
            eventually(f"{name} takes pods", lambda one=one: here.takes_pods(one.machine.node) == "RoutableIsUp")
            eventually(f"{name} has a network", lambda one=one: not one.machine.cri.network())
        yield here, pods


def test_new_nodes_take_pods_without_anybody_touching_them(applied: tuple[Cluster, list[AgentPod]]) -> None:
    """The agents found their peers, gave containerd its network, and took the taint away: pods of both nodes reach each
    other, and nothing was asked that the role does not permit."""
    here, pods = applied
    made = [(one.machine, *one.machine.serve(pod())) for one in pods]
    addresses = [machine.cri.addresses(sandbox) for machine, sandbox, _ in made]
    for (machine, _, container), own, others in zip(made, addresses, reversed(addresses), strict=True):
        for mine, other in zip(own, others, strict=True):
            assert machine.cri.execute(container, "wget", "-q", "-O", "-", peer_url(other)) == mine
    assert [one.machine.node.status()["problems"] for one in pods] == [[], []]
    assert here.api.refusals == []


def test_the_api_server_is_away_while_an_agent_is_replaced(applied: tuple[Cluster, list[AgentPod]]) -> None:
    """The node stays Ready, pods come and go, and nothing is said of it that was not said before."""
    here, (agent, _) = applied
    machine = agent.machine
    before = here.api.store.get(machine.node.name)
    with kubelet(machine.cri) as watched:
        here.api.leave()
        agent.stop()
        agent.start()
        sandbox, container = machine.serve(pod())
        machine.cri.execute(container, "ping", "-c", "1", "-W", "5", machine.node.address(6))
        machine.delete(sandbox)
        asked = len(here.api.requests)
        here.api.come_back()
        eventually("the agent listens again", lambda: any("watch" in one for one in here.api.requests[asked:]))
    assert (watched.reasons, watched.answers > 0) == ([], True)
    assert here.api.store.get(machine.node.name) == before
