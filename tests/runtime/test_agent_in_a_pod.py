"""The agent runs in a pod of a real containerd, of the built image, as the DaemonSet has it, and serves the others."""

from __future__ import annotations

import shutil
import tomllib
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cni.errors import Failure
from demo.cluster import PORT, SERVER, Cluster, cluster
from demo.lab import Lab, Node, built, eventually, toml
from demo.place import Failed
from tests.deploy import image
from tests.deploy.manifests import rendered
from tests.fakes.gocni import kubelet
from tests.runtime import daemon
from tests.runtime.cri import Pod
from tests.runtime.daemon import NOTHING, RELEASES
from tests.runtime.daemonset import AgentPod

pytestmark = [
    pytest.mark.runtime,
    pytest.mark.skipif(shutil.which("podman") is None, reason="podman, which builds the image, is not installed"),
]
OVERLAY, APPLIED = rendered("overlays/static"), rendered("overlays/vxlan")


@pytest.fixture(scope="module", params=list(RELEASES))
def agent(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentPod]:
    """It was started on a node that had never seen it; containerd has its network from it."""
    release = RELEASES[request.param]
    lacks = release.lacks()
    if lacks:
        pytest.skip(lacks)
    tools = daemon.tools(tmp_path_factory.mktemp("images") / "tools.tar")
    with built(nodes=1, family="dual", is_started=False) as lab, ExitStack() as cleanup:
        (node,) = lab.nodes
        machine = cleanup.enter_context(daemon.machine(node, release, tools, image.archive()))
        assert machine.cri.network().endswith("cni plugin not initialized")
        made = AgentPod(machine, OVERLAY, image.NAME, configured(lab, node))
        made.begin()
        try:
            eventually("containerd has a network", lambda: serves(made))
        except Failed as error:
            raise Failed(f"{error}\n{node.tail()}") from error
        yield made


def configured(lab: Lab, node: Node) -> Path:
    """The overlay's configuration for the node, as its ConfigMap would have it: peers are in a file, nobody is told."""
    directory = node.directory / "config"
    directory.mkdir()
    document = tomllib.loads(OVERLAY.config)
    document |= {"nodes": {"file": "/etc/routable/nodes.toml"}, "kubernetes": {}}
    (directory / "agent.toml").write_text(toml(document))
    shutil.copy(lab.directory / "nodes.toml", directory)
    return directory


def serves(agent: AgentPod) -> bool:
    """Whether it answers, and containerd knows."""
    try:
        return not agent.machine.cri.network() and bool(agent.machine.node.status())
    except Failure:
        return False


def pod(**options: object) -> Pod:
    """A new pod."""
    return Pod(f"web-{uuid.uuid4().hex[:5]}", str(uuid.uuid4()), **options)  # type: ignore[arg-type]


def peer_url(address: str) -> str:
    """Where the web server of a pod tells a client's address."""
    return f"http://[{address}]/cgi-bin/peer" if ":" in address else f"http://{address}/cgi-bin/peer"


def test_it_serves_pods_of_its_node(agent: AgentPod) -> None:
    """Whose namespaces come after its own container: both families, host ports, and nothing is left."""
    machine = agent.machine
    made = [machine.serve(pod(ports=ports)) for ports in ({}, {8080: 80})]
    addresses = [machine.cri.addresses(sandbox) for sandbox, _ in made]
    for (_, container), own, others in zip(made, addresses, reversed(addresses), strict=True):
        for mine, other in zip(own, others, strict=True):
            assert machine.cri.execute(container, "wget", "-q", "-O", "-", peer_url(other)) == mine
    machine.node.place.run("busybox", "wget", "-q", "-O", "-", f"http://{machine.node.address(4)}:8080/cgi-bin/peer")
    assert machine.node.status()["problems"] == []
    for sandbox, _ in made:
        machine.delete(sandbox)
    assert machine.left() == NOTHING


def test_the_node_stays_ready_while_it_is_replaced(agent: AgentPod) -> None:
    """As a DaemonSet's roll does it. Asked all the time, containerd always says that its network is ready; pods go on,
    one that came meanwhile is served, and of one that went nothing is left."""
    machine = agent.machine
    (kept, container), (gone, _) = (machine.serve(pod()) for _ in range(2))
    with kubelet(machine.cri) as watched:
        agent.end()
        machine.delete(gone)
        machine.cri.execute(container, "ping", "-c", "1", "-W", "5", machine.node.address(4))
        agent.begin()
        late = machine.cri.run(pod())
    assert (watched.reasons, watched.answers > 0) == ([], True)
    eventually("only those are there", lambda: machine.left()["leases"] == sorted([kept.id, late.id]))
    machine.cri.execute(container, "ping", "-c", "1", "-W", "5", machine.cri.addresses(late)[0])
    for sandbox in (kept, late):
        machine.delete(sandbox)
    assert machine.left() == NOTHING


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
            eventually(f"{name} has a network", lambda one=one: serves(one))
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
        agent.end()
        agent.begin()
        sandbox, container = machine.serve(pod())
        machine.cri.execute(container, "ping", "-c", "1", "-W", "5", machine.node.address(6))
        machine.delete(sandbox)
        asked = len(here.api.requests)
        here.api.come_back()
        eventually("the agent listens again", lambda: any("watch" in one for one in here.api.requests[asked:]))
    assert (watched.reasons, watched.answers > 0) == ([], True)
    assert here.api.store.get(machine.node.name) == before
