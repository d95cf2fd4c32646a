"""A node whose agent speaks on its Node, whatever its list is from: what it is not permitted costs no pod anything."""

from __future__ import annotations

import signal
import subprocess
import sys

from demo.cluster import Cluster, cluster, do_meet
from demo.lab import PATIENCE, Node, eventually
from tests.cluster import rbac
from tests.cluster.store import node
from tests.fakes.mortal import ARMED

ROLE = ({"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch", "patch"]},)


def on_a_list_of_its_own(here: Cluster) -> None:
    """The nodes are in a file; the API server is for what is said."""
    for one in here.lab.nodes:
        one.settings["nodes"] = {"file": str(here.lab.directory / "nodes.toml")}
        one.settings["kubernetes"] = {"announce": True, "kubeconfig": here.kubeconfig}


def test_a_node_that_is_not_heard_of_and_may_not_speak() -> None:
    """There is no Node of its name yet, then one, on which it may not say all: told, with what lacks; pods are served.
    Permitted, it is said; and again when somebody takes it back."""
    with cluster("static") as here:
        first, last = here.lab.nodes
        on_a_list_of_its_own(here)
        here.api.rules = ROLE
        for one in here.lab.nodes:
            one.start()
        pod, other = first.add(), last.add()
        eventually("the pods reach each other", lambda: do_meet(pod, other))

        def told() -> dict[str, str] | None:
            found = (one for one in first.status()["problems"] if one["kind"] == "kubernetes")
            return next((one for one in found if "has not answered yet" not in one["details"]), None)

        problem = eventually("it is told", told)
        assert 'WRONG Node: the API server https://192.0.2.100:6443 does not answer now: 404 NotFound' in checked(first)
        assert problem["msg"] == f"the Kubernetes API ({here.kubeconfig}) has no Node node-a"
        assert not problem["by_status"]
        here.api.store.put(here.told(first))
        eventually("it is told", lambda: "the verb patch on nodes/status (RBAC)" in str(told()))
        assert do_meet(pod, other, patience=PATIENCE)
        here.api.rules = rbac.ALL
        eventually("it is said", lambda: here.takes_pods(first) == "RoutableIsUp")
        eventually("nothing is wrong", lambda: not first.status()["problems"])
        assert "ok Node: node-a says NetworkUnavailable=False (RoutableIsUp); taints: none" in checked(first)
        here.api.store.put(here.told(first))
        eventually("it is said again", lambda: here.takes_pods(first) == "RoutableIsUp")
        assert all("fieldSelector=metadata.name%3Dnode-" in one for one in here.api.requests if "watch" in one)
        assert first.stop() == 0
        assert here.takes_pods(first) == "RoutableIsUp"


def checked(node: Node) -> str:
    """What `routable-agent --check` says there."""
    line = node.place.enter(sys.executable, "-m", "agent.main", "--check", "--config", str(node.config))
    return " ".join(subprocess.run(line, capture_output=True, text=True, check=False).stdout.split())


def test_what_it_says_of_addresses() -> None:
    """A node of which nothing else is wrong says how many pods it has addresses for, and that there are some."""
    with cluster("static", "v4", 1) as here:
        (one,) = here.lab.nodes
        here.api.store.put(node(one.name, one.addresses, ["10.244.1.0/28"]))
        one.start()
        eventually("it is said", lambda: here.takes_pods(one))
        found = here.api.store.get(one.name)
        assert found is not None
        assert found["status"]["capacity"] == {"routable.io/pod-addresses": "14"}
        conditions = {each["type"]: each["status"] for each in found["status"]["conditions"]}
        assert conditions["routable.io/PodAddressPressure"] == "False"


def test_the_agent_ends_with_who_speaks() -> None:
    """The thread dies: the process follows, with exit code 1 and the thread's name in its log."""
    with cluster("static", "v4", 1) as here:
        (one,) = here.lab.nodes
        on_a_list_of_its_own(here)
        here.api.store.put(here.told(one))
        one.program = ("-m", "tests.fakes.mortal", "announcer", "look", "ZeroDivisionError")
        one.start()
        eventually("it is said", lambda: here.takes_pods(one))
        assert one.agent is not None
        one.agent.send_signal(signal.SIGUSR1)
        eventually("the thread may die", lambda: ARMED in one.log.read_text())
        assert one.agent.wait(PATIENCE) == 1
        one.agent = None
        assert "died=announcer" in one.tail()


def test_a_list_that_gives_pods_other_addresses_than_the_node_says_is_told() -> None:
    """kube-proxy and others go by the Node: what stands where, and what to do. Pods are served all the same."""
    with cluster("static", "v4", 1) as here:
        (one,) = here.lab.nodes
        on_a_list_of_its_own(here)
        here.api.store.put(node(one.name, one.addresses, ["10.99.1.0/24"]))
        one.start()
        one.add()
        words = "the spec.podCIDRs of this Node are 10.99.1.0/24, but its pods have addresses of 10.244.1.0/24"
        (problem,) = eventually("it is told", lambda: [p for p in one.status()["problems"] if p["msg"] == words])
        assert (problem["kind"], problem["by_status"]) == ("kubernetes", False)
        here.api.store.put(here.told(one))
        eventually("nothing is wrong", lambda: not one.status()["problems"])
