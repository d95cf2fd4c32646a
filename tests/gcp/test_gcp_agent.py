"""Real agents on a VPC of namespaces, with Google's own library against the emulated Compute Engine: packets, the guest
agent, bursts, others' hands, death."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from netaddr import IPNetwork

from demo import traffic
from demo.gcpvpc import RANGE, Vpc, Where, built
from demo.lab import Node, eventually
from demo.router import OUTSIDE
from demo.runtime import Pod, Refused
from tests.cloud.refusals import NoAnswer
from tests.gcp.project import Project
from tests.gcp.strangers import Hands
from tests.netns.test_check import checked

SIZE = 200_000
DATAGRAM = 1400
"""Bytes: what goes through at the VPC's MTU of 1460 in one packet."""


def chosen(**keys: Any) -> Callable[[Where], Mapping[str, Any]]:
    """The agents' configuration, with these keys of the table [gcp]."""
    return lambda where: {
        "gcp": {"range": RANGE, "endpoint": where.compute, "shrink_delay": 1.0, **keys},
        "ipam": {"cooldown": 1.0},
    }


@pytest.fixture(scope="module")
def vpc() -> Iterator[Vpc]:
    """Two nodes with two pods each; the second overrides the guest agent's routes."""
    answers = iter(("tell", "override"))

    def settings(where: Where) -> Mapping[str, Any]:
        return chosen(guest_routes=next(answers))(where)

    with built(settings=settings) as found:
        for node in found.nodes:
            for _ in range(2):
                node.add()
        yield found


def at_rest(vpc: Vpc, node: Node) -> bool:
    """Whether the agent offers what Google has, and nothing is under way."""
    status = node.status()
    offered = {IPNetwork(one["block"]) for one in status["pool"]}
    return offered == vpc.ranges(node) and not status["cloud"]["under_way"]


def test_pods_reach_each_other_and_are_reached(vpc: Vpc) -> None:
    """Within a node, across nodes, from the nodes and from outside, by TCP and UDP at full size: the receiver sees the
    pod's own address, and the VPC drops nothing for its source."""
    before = vpc.router.dropped()
    pods = [pod for node in vpc.nodes for pod in node.pods[:2]]
    for one, other in itertools.permutations(pods, 2):
        assert traffic.seen_by_tcp(one.place, other.place, other.addresses[0], size=SIZE) == one.addresses[0]
    for pod in pods:
        address = pod.addresses[0]
        assert traffic.seen_by_udp(vpc.outside, pod.place, address, size=DATAGRAM) == OUTSIDE
        assert traffic.seen_by_tcp(pod.place, vpc.outside, OUTSIDE) == address
        for node in vpc.nodes:
            own = str(vpc.project.instances[node.name].nic.address)
            assert traffic.seen_by_tcp(node.place, pod.place, address) == own
    assert vpc.router.dropped() == before


def test_the_mtu_is_the_interfaces(vpc: Vpc) -> None:
    """As the VPC says it."""
    assert "mtu 1460" in vpc.nodes[0].pods[0].place.ip("link show eth0")


def test_an_address_that_no_pod_has_goes_nowhere(vpc: Vpc) -> None:
    """The node says so, rather than sending the packet back to the VPC, which would bring it again."""
    node = vpc.nodes[1]
    free = str(sorted(vpc.ranges(node))[0][-1])
    assert free not in {pod.addresses[0] for pod in node.pods}

    def connected() -> None:
        with socket.create_connection((free, 9), timeout=20.0):
            pass

    with pytest.raises(OSError, match=r"unreachable|No route"):
        node.pods[0].place.within(connected)


def test_a_rule_of_anybodys_and_the_guest_agent(vpc: Vpc) -> None:
    """The host answers for its pods from then on: every connection is refused, though a ping would look fine; a finding
    says so. Where the guest agent's routes are overridden nothing happens; and they are all there still."""
    telling, overriding = vpc.nodes
    for node in vpc.nodes:
        assert vpc.guests[node.name].routes() == {str(one) for one in vpc.ranges(node)}
        node.place.ip("rule add to 192.0.2.0/24 lookup 52 priority 100")
    notes = ["guest agent:" in one for one in (" ".join(checked(node).lines) for node in vpc.nodes)]
    assert notes == [True, False]
    (unlucky, *_), (lucky, *_) = telling.pods, overriding.pods
    with pytest.raises(ConnectionRefusedError):
        traffic.seen_by_tcp(vpc.outside, unlucky.place, unlucky.addresses[0])
    assert traffic.seen_by_tcp(vpc.outside, lucky.place, lucky.addresses[0]) == OUTSIDE
    assert traffic.seen_by_tcp(lucky.place, vpc.outside, OUTSIDE) == lucky.addresses[0]

    def findings(node: Node) -> list[str]:
        return [one["msg"] for one in node.status()["problems"] if one["kind"] == "host"]

    eventually("the finding", lambda: any("the kernel says local" in one for one in findings(telling)))
    assert findings(overriding) == []
    for node in vpc.nodes:
        assert vpc.guests[node.name].routes() == {str(one) for one in vpc.ranges(node)}
    # What the rule has parted stays so; without the routes all is well again.
    for one in vpc.guests[telling.name].routes():
        telling.place.ip(f"route del local {one} dev ens4 table local proto 66")
    assert traffic.seen_by_tcp(vpc.outside, unlucky.place, unlucky.addresses[0]) == OUTSIDE


def test_status_metrics_and_check(vpc: Vpc) -> None:
    """Ranges, calls by action, and nothing that is wrong."""
    node = vpc.nodes[1]
    eventually("nothing is under way", lambda: at_rest(vpc, node))
    status = node.status()
    assert set(status["gcp"]["ranges"].values()) == {RANGE}
    assert "of 150 alias ranges" in node.ctl("status")
    metrics = node.metrics()
    assert 'routable_cloud_calls_total{action="instances.updateNetworkInterface",error=""}' in metrics
    assert f"routable_gcp_ranges {len(vpc.ranges(node))}.0" in metrics
    found = checked(node)
    assert (found.wrong, found.code) == ([], 0)
    assert any(line.startswith(f"ok metadata: {node.name} in europe-west1-b") for line in found.lines)
    assert any(line.startswith("ok uplink: ens4, nic0") for line in found.lines)
    assert any(line.startswith("ok library: google-cloud-compute ") for line in found.lines)


def test_the_agent_is_no_larger_than_others(vpc: Vpc) -> None:
    """Nothing of Google's library is in it; the worker is gone when it is not needed."""
    for node in vpc.nodes:
        assert node.agent is not None
        maps = Path(f"/proc/{node.agent.pid}/maps").read_text()
        assert not [one for one in ("grpc", "protobuf", "google") if one in maps]


def test_a_burst_of_pods_is_met_with_one_change(vpc: Vpc) -> None:
    """A hundred at once: they wait for one PATCH, or two, and all are served; then the ranges go back."""
    node = vpc.nodes[1]
    eventually("nothing is under way", lambda: at_rest(vpc, node))
    before = vpc.project.calls["instances.updateNetworkInterface", ""]
    vpc.project.operations.running = 4.0  # as long as the slowest machine takes to have a hundred ask
    with ThreadPoolExecutor(100) as pool:
        pods = list(pool.map(lambda _: node.add(), range(100)))
    vpc.project.operations.running = 0.0
    assert len({pod.addresses[0] for pod in pods}) == 100
    assert vpc.project.calls["instances.updateNetworkInterface", ""] - before <= 3
    assert traffic.seen_by_tcp(vpc.outside, pods[-1].place, pods[-1].addresses[0]) == OUTSIDE
    with ThreadPoolExecutor(25) as pool:
        list(pool.map(node.delete, pods))
    eventually("they are given back", lambda: len(vpc.ranges(node)) <= 2)
    eventually("nothing is under way", lambda: at_rest(vpc, node))


def test_a_range_taken_by_hand_is_told_with_its_pods(vpc: Vpc) -> None:
    """In status, with what to do; a new pod gets an address that is delivered."""
    node = vpc.nodes[1]
    pod = node.add()
    (block,) = [one for one in vpc.ranges(node) if pod.addresses[0] in one]
    Hands(vpc.project).take(node.name, block)

    def told() -> list[str]:
        return [one["msg"] for one in node.status()["problems"] if one["kind"] == "undelivered"]

    (message,) = eventually("it is told", told, patience=90.0)
    assert pod.addresses[0] in message
    other = node.add()
    assert traffic.seen_by_tcp(vpc.outside, other.place, other.addresses[0]) == OUTSIDE
    for one in list(node.pods):
        node.delete(one)


def test_a_full_range_is_told_to_the_pod() -> None:
    """Which range, and how many are left of it; the node is well all the same."""
    with built(nodes=1, settings=chosen(), pods="10.64.0.0/27") as vpc:
        (node,) = vpc.nodes
        for _ in range(32):
            node.add()
        eventually("that is known", lambda: "no /28 is left" in node.ctl("status"))
        with pytest.raises(Refused, match="no /28 is left in secondary range pods") as caught:
            node.add()
        assert "(10.64.0.0/27, 32 addresses, of which 0 are free)" in str(caught.value)
        assert caught.value.code == 100
        node.runtime.call("STATUS")


def test_fixed_ranges_need_neither_library_nor_api() -> None:
    """The metadata server alone; a range that others add is used as soon as that tells. What is left of the agent is
    removed by uninstall, and the guest agent's routes stay."""


    def settings(where: Where) -> Mapping[str, Any]:
        return {"gcp": {"fixed": True, "guest_routes": "override"}}

    def prepare(project: Project) -> None:
        Hands(project).add("node-a", 30, RANGE)

    with built(nodes=1, settings=settings, prepare=prepare) as vpc:
        (node,) = vpc.nodes
        pods = [node.add() for _ in range(4)]
        Hands(vpc.project).add(node.name, 28, RANGE)
        pods.append(eventually("there are more", lambda: added(node)))
        for pod in pods:
            assert traffic.seen_by_tcp(vpc.outside, pod.place, pod.addresses[0]) == OUTSIDE
        assert not vpc.project.calls
        node.stop()
        assert "removed" in node.ctl("uninstall", "--yes")
        node.pods.clear()
        assert "proto 82" not in node.place.ip("route show table all")
        assert vpc.guests[node.name].routes() == {str(one) for one in vpc.ranges(node)}


def added(node: Node) -> Pod | None:
    """A pod, if there is an address."""
    try:
        return node.add()
    except Refused:
        return None


def workers(node: Node) -> list[int]:
    """The processes that the agent has started."""
    assert node.agent is not None
    children = Path(f"/proc/{node.agent.pid}/task/{node.agent.pid}/children").read_text()
    threads = Path(f"/proc/{node.agent.pid}/task").iterdir()
    return [int(one) for path in threads for one in (path / "children").read_text().split()] or list(
        map(int, children.split())
    )


@pytest.mark.parametrize("whom", ["agent", "worker"])
def test_killed_when_a_change_was_made(whom: str) -> None:
    """SIGKILL before its answer has come, to the agent or to its worker: what comes after makes it good, and nothing is
    leaked or doubled. (Every other moment is tried on a virtual clock.)"""
    with built(nodes=1, settings=chosen(), is_started=False) as vpc:
        (node,) = vpc.nodes
        killed = threading.Event()

        def on_call(has_been_done: bool) -> None:
            is_change = vpc.project.doing[1] == "instances.updateNetworkInterface"
            if killed.is_set() or not has_been_done or not is_change or node.agent is None:
                return
            killed.set()
            for pid in [node.agent.pid] if whom == "agent" else workers(node):
                os.kill(pid, signal.SIGKILL)
            raise NoAnswer

        vpc.project.on_call = on_call
        node.write_config()
        node.launch()
        with ThreadPoolExecutor(8) as pool:
            done = list(pool.map(lambda _: added(node), range(8)))
        assert killed.wait(60)
        if whom == "agent":
            assert node.agent is not None
            node.agent.wait(60)
            node.launch()
            node.await_ready()
        eventually("Google and the agent agree", lambda: at_rest(vpc, node))
        assert len(vpc.ranges(node)) <= 2
        for pod in [one for one in done if one is not None]:
            assert traffic.seen_by_tcp(vpc.outside, pod.place, pod.addresses[0]) == OUTSIDE
