"""The agent runs in a pod of a real containerd, of the built image, as the DaemonSet has it, and serves the others."""

from __future__ import annotations

import shutil
import tomllib
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from cni.errors import Failure
from demo.lab import Lab, Node, built, eventually, toml
from demo.place import Failed
from tests.deploy import image
from tests.deploy.manifests import rendered
from tests.fakes.gocni import kubelet
from tests.runtime import daemon, daemonset
from tests.runtime.cri import Pod, Sandbox
from tests.runtime.daemon import NOTHING, RELEASES, Machine

pytestmark = [
    pytest.mark.runtime,
    pytest.mark.skipif(shutil.which("podman") is None, reason="podman, which builds the image, is not installed"),
]
OVERLAY = rendered("overlays/static")


@dataclass(slots=True)
class Agent:
    """The DaemonSet's pod on a node."""

    machine: Machine
    configuration: Path
    sandbox: Sandbox
    container: str

    def begin(self) -> None:
        """Begin a new one."""
        self.sandbox = self.machine.cri.run(daemonset.pod(OVERLAY, uuid.uuid4().hex[:5], self.machine.node.directory))
        self.container = daemonset.start(self.machine, self.sandbox, OVERLAY, image.NAME, self.configuration)


@pytest.fixture(scope="module", params=list(RELEASES))
def agent(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
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
        made = Agent(machine, configured(lab, node), Sandbox("", Pod("", "")), "")
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


def serves(agent: Agent) -> bool:
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


def test_it_serves_pods_of_its_node(agent: Agent) -> None:
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


def test_the_node_stays_ready_while_it_is_replaced(agent: Agent) -> None:
    """As a DaemonSet's roll does it. Asked all the time, containerd always says that its network is ready; pods go on,
    one that came meanwhile is served, and of one that went nothing is left."""
    machine = agent.machine
    (kept, container), (gone, _) = (machine.serve(pod()) for _ in range(2))
    with kubelet(machine.cri) as watched:
        machine.cri.end(agent.container, OVERLAY.pod["terminationGracePeriodSeconds"])
        machine.delete(agent.sandbox)
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
