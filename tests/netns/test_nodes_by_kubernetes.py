"""Nodes whose agents take their list from an API server: it is in the lab, with TLS, and not always there."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from demo.cluster import cluster, do_meet
from demo.joining import Joining
from demo.lab import PATIENCE, Node, eventually
from demo.text import Printer
from tests.cluster.store import node
from tests.fakes.mortal import ARMED


def peers(one: Node) -> str:
    """The peers of a node, in order, with what is wrong with them."""
    found = sorted(one.status()["peers"], key=lambda peer: str(peer["name"]))
    return " ".join(f"{peer['name']}{'!' if peer['unserved'] else ''}" for peer in found)


@pytest.mark.parametrize("backend", ["static", "vxlan"])
def test_pods_of_nodes_that_the_api_server_knows(backend: str) -> None:
    """From the first list on pods reach each other; nodes come, change and go; the API server is away, an agent is
    started anew meanwhile, the token is rotated: pods are added and keep talking."""
    with cluster(backend) as here:
        lab, api = here.lab, here.api
        first, last = lab.nodes
        for one in lab.nodes:
            api.store.put(here.told(one))
            one.start()
        eventually("the nodes know each other", lambda: [peers(one) for one in lab.nodes] == ["node-b", "node-a"])
        eventually("they have addresses", lambda: all(one.status()["pool"] for one in lab.nodes))
        pod, other = first.add(), last.add()
        eventually("the pods reach each other", lambda: do_meet(pod, other))
        assert first.status()["nodes_source"] == f"the Kubernetes API ({here.kubeconfig})"
        assert "peers are of the Kubernetes API" in first.ctl("status")

        # A node comes without pod CIDRs, gets them, and goes.
        api.store.put(node("node-c", ["192.0.2.3", "2001:db8:ffff::3"], None))
        eventually("it is told", lambda: peers(first) == "node-b node-c!")
        problem = next(one for one in first.status()["problems"] if "node-c" in one["msg"])
        assert "neither spec.podCIDRs (yet) nor an annotation" in problem["details"]
        assert do_meet(pod, other, patience=PATIENCE)
        api.store.put(node("node-c", ["192.0.2.3", "2001:db8:ffff::3"], ["10.244.3.0/24", "2001:db8:3::/64"]))
        eventually("it is served", lambda: peers(first) == "node-b node-c" and "10.244.3.0/24" in routes(first))
        api.store.delete("node-c")
        eventually("its routes go", lambda: peers(first) == "node-b" and "10.244.3.0/24" not in routes(first))

        # The API server is away, and nothing changes, least of all for an agent that is killed.
        api.leave()
        first.stop(signal.SIGKILL)
        first.launch()
        first.await_ready()
        late = first.add()
        assert eventually("a new pod reaches the others", lambda: do_meet(late, other))
        assert do_meet(pod, other, patience=PATIENCE)
        assert peers(first) == "node-b"

        # It comes back, with another token; what happened meanwhile is known soon.
        here.rotate(2)
        api.store.put(node("node-d", ["192.0.2.4", "2001:db8:ffff::4"], ["10.244.4.0/24", "2001:db8:4::/64"]))
        api.come_back()
        eventually("the list is the newest", lambda: peers(first) == "node-b node-d")
        eventually("its routes are there", lambda: "10.244.4.0/24" in routes(first))
        assert 401 not in api.refusals
        assert do_meet(pod, other, patience=PATIENCE)


def routes(one: Node) -> str:
    """The routes of a node's main table."""
    return one.place.ip("route show")


def test_what_the_demo_claims() -> None:
    """A node joins and leaves, the API server goes away and comes back with another token: no packet is lost."""
    out = Printer()
    Joining("vxlan", "dual", out).run()
    assert out.conclusion() == 0


def test_an_agent_that_starts_before_the_api_server() -> None:
    """It serves as soon as its own Node has pod CIDRs, however late; until then ADD is told to come again, and the
    status says what is waited for."""
    with cluster("static") as here:
        lab, api = here.lab, here.api
        first, last = lab.nodes
        api.leave()
        first.start()
        problem = eventually("it is told", lambda: told(first, "cannot be asked"))
        assert problem["msg"] == "the cluster's nodes are not known yet"
        api.come_back()
        api.store.put(here.told(last))
        eventually("it is told", lambda: told(first, "no node is named node-a in the list of nodes"))
        api.store.put(node("node-a", first.addresses, None))
        eventually("it is told", lambda: told(first, "its Node has neither spec.podCIDRs (yet)"))
        api.store.put(here.told(first))
        eventually("it is ready", lambda: not first.status()["problems"])
        first.add()


def told(one: Node, words: str) -> dict[str, str] | None:
    """The problem that has these words."""
    found = (problem for problem in one.status()["problems"] if words in f"{problem['msg']}: {problem['details']}")
    return next(found, None)


def test_check_asks_the_api_server_once() -> None:
    """`routable-agent --check` tells where the list is of and how many nodes it has, or why it cannot be had."""
    with cluster("static") as here:
        lab, api = here.lab, here.api
        first = lab.nodes[0]
        for one in lab.nodes:
            api.store.put(here.told(one))
        first.write_config()

        def said() -> str:
            line = first.place.enter(sys.executable, "-m", "agent.main", "--check", "--config", str(first.config))
            return " ".join(subprocess.run(line, capture_output=True, text=True, check=False).stdout.split())

        assert f"ok list of nodes: the Kubernetes API ({here.kubeconfig}): 2 nodes" in said()
        assert not [one for one in api.requests if "watch" in one]
        api.is_permitted = False
        assert f"WRONG list of nodes: the API server {api.url} does not permit it: 403 Forbidden" in said()


def test_the_agent_ends_with_the_thread_that_listens() -> None:
    """It is a part like the others: SIGTERM ends it in the middle of a watch, at once and with exit code 0."""
    with cluster("static") as here:
        lab, api = here.lab, here.api
        first = lab.nodes[0]
        api.store.put(here.told(first))
        first.start()
        eventually("it watches", lambda: api.watching)
        assert first.stop() == 0
        assert "do not stop" not in first.tail()


def test_the_agent_ends_when_nobody_listens_any_more() -> None:
    """The thread dies: the process follows within a second, with exit code 1 and the thread's name in its log."""
    with cluster("static") as here:
        lab, api = here.lab, here.api
        first, last = lab.nodes
        api.store.put(here.told(first))
        first.program = ("-m", "tests.fakes.mortal", "nodes", "_is_news", "ZeroDivisionError")
        first.start()
        eventually("it watches", lambda: api.watching)
        assert first.agent is not None
        first.agent.send_signal(signal.SIGUSR1)
        eventually("the thread may die", lambda: ARMED in first.log.read_text())
        api.store.put(here.told(last))
        assert first.agent.wait(PATIENCE) == 1
        first.agent = None
        assert "died=nodes" in first.tail()
