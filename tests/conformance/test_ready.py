"""The node stays Ready, whatever containerd asks: NotReady takes pods from their Services at once, and evicts them.

kubelet and containerd are those of `tests.fakes.gocni`, of both kinds; they ask fifty times as often as real ones.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from demo.cluster import cluster
from demo.lab import Node, built, eventually
from demo.runtime import Refused
from tests.cluster.store import node as node_object
from tests.fakes.gocni import GoCni, kubelet


def runtime(node: Node, has_status: bool) -> GoCni:
    """The containerd of *node*, of which release."""
    environment = {"ROUTABLE_SOCKET": str(node.runtime.socket), "ROUTABLE_SPOOL": str(node.runtime.spool)}
    return GoCni(node.directory / "net.d", node.directory / "plugins", environment, has_status)


def give(node: Node) -> None:
    """Have the agent of *node* keep the directories of its runtime; the network is this plugin's alone."""
    directories = {"conflist": node.directory / "net.d/10-routable.conflist", "executables": node.directory / "plugins"}
    for name in ("net.d", "plugins"):
        (node.directory / name).mkdir()
    template = node.directory / "template.json"
    template.write_text('{"name": "pods", "plugins": [{"type": "routable"}]}')
    node.settings["cni"] = {**{key: str(path) for key, path in directories.items()}, "template": str(template)}


@contextmanager
def ready(node: Node) -> Iterator[None]:
    """Whatever the body does: *node* was and is Ready, for containerd 1.x and 2.x."""
    first, second = runtime(node, has_status=False), runtime(node, has_status=True)
    eventually("the node is ready", lambda: not second.network())
    with kubelet(first) as one, kubelet(second) as two:
        yield
    assert (one.reasons, two.reasons) == ([], [])
    assert min(one.answers, two.answers) > 0


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node that keeps its runtime's directories, with six addresses."""
    with built(nodes=1, is_started=False) as lab:
        (node,) = lab.nodes
        node.pod_cidrs = ["10.244.1.0/29"]
        lab.write_nodes()
        give(node)
        node.start()
        yield node


def test_no_address_is_left(node: Node) -> None:
    """The pool is full, ADDs are refused, pods go, and all their addresses cool down."""
    with ready(node):
        with pytest.raises(Refused) as refused:
            for _ in range(9):
                node.add()
        assert refused.value.code == 100
        for pod in list(node.pods):
            node.delete(pod)
        with pytest.raises(Refused) as refused:
            node.add()
        assert refused.value.code == 11


def test_the_agent_is_started_anew(node: Node) -> None:
    """Stopped or killed, and started at once."""
    with ready(node):
        for number in (signal.SIGTERM, signal.SIGKILL):
            node.stop(number)
            node.start()


def test_the_agent_is_rolled(node: Node) -> None:
    """A DaemonSet ends the old pod, and only when that is gone makes the new one: seconds without an agent, in which an
    ADD would wait for it, too."""
    with ready(node):
        node.stop()
        time.sleep(4)
        node.start()


def test_nodes_are_bad_and_the_api_server_is_away() -> None:
    """Other Nodes say what cannot be, its own loses its ranges or is deleted, the API server goes, the agent is started
    anew meanwhile, and it comes back."""
    with cluster("static") as here:
        node, other = here.lab.nodes
        give(node)
        here.api.store.put(here.told(node))
        here.api.store.put(here.told(other))
        node.start()
        with ready(node):
            here.api.store.put(node_object("bad", ["nowhere"], ["10.244.9.0/24", "what"]))
            eventually("it is told", lambda: "bad" in told(node))
            here.api.store.put(node_object(node.name, node.addresses, None))
            eventually("it is told", lambda: node.name in told(node))
            here.api.store.delete(node.name)
            eventually("it is told", lambda: "list" in told(node))
            here.api.leave()
            node.stop(signal.SIGKILL)
            node.start()
            here.api.come_back()
            here.api.store.put(here.told(node))
            eventually("it is well again", lambda: node.name not in told(node))


def told(node: Node) -> str:
    """What the status says is wrong."""
    return " ".join(f"{one['msg']}: {one['details']}" for one in node.status()["problems"])
