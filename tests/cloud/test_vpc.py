"""Real agents on a VPC of namespaces, with EC2 and the metadata over HTTP: packets, repair, waiting, death."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from agent import commands
from demo import traffic
from demo.lab import PATIENCE, Node, eventually
from demo.runtime import Pod, Refused
from demo.vpc import OUTSIDE, Vpc, built, nodeport
from tests.cloud.region import NoAnswer
from tests.netns.test_check import checked
from tests.pace import within

AWS = {"mode": "address", "minimum_addresses": 8, "shrink_delay": 1.0}
SINGLE = {"aws": AWS, "ipam": {"cooldown": 1.0}}
"""A t3.medium has five addresses for pods per interface: eight are on two."""
SIZE = 200_000
DATAGRAM = 8000
"""Bytes: what goes through at the VPC's MTU of 9001 in one packet."""


@pytest.fixture(scope="module")
def vpc() -> Iterator[Vpc]:
    """Two nodes with eight pods each, on two interfaces."""
    with built(settings=SINGLE) as found:
        for node in found.nodes:
            for _ in range(8):
                node.add()
        yield found


def by_interface(vpc: Vpc, node: Node) -> dict[int, Pod]:
    """A pod on each interface of the node."""
    found: dict[int, Pod] = {}
    for nic in vpc.region.attached(vpc.instances[node.name]):
        held = {str(block.ip) for block in nic.blocks}
        for pod in node.pods:
            if nic.attachment and pod.addresses[0] in held:
                found[nic.attachment.index] = pod
    assert sorted(found) == [0, 1]
    return found


def test_pods_reach_each_other_across_nodes_and_interfaces(vpc: Vpc) -> None:
    """Every pair, both ways, by TCP and UDP at full size: the receiver sees the pod's own address, and the VPC drops
    nothing for its source."""
    before = vpc.router.dropped()
    pods = [pod for node in vpc.nodes for pod in by_interface(vpc, node).values()]
    assert len(pods) == 4
    for one, other in itertools.permutations(pods, 2):
        seen = traffic.seen_by_tcp(one.place, other.place, other.addresses[0], size=SIZE)
        assert seen == one.addresses[0]
        assert traffic.seen_by_udp(one.place, other.place, other.addresses[0], size=DATAGRAM) == one.addresses[0]
    assert vpc.router.dropped() == before


def test_pods_of_one_node_reach_each_other_within_it(vpc: Vpc) -> None:
    """The packets of pods on different interfaces do not leave the node: its routes to pods come before anything."""
    node = vpc.nodes[0]
    one, other = by_interface(vpc, node).values()
    sent = [_sent(node, device) for device in ("ens5", "ens6")]
    assert traffic.seen_by_tcp(one.place, other.place, other.addresses[0], size=SIZE) == one.addresses[0]
    assert sum(_sent(node, device) for device in ("ens5", "ens6")) - sum(sent) < SIZE // 10


def _sent(node: Node, device: str) -> int:
    (link,) = json.loads(node.place.ip(f"-s -j link show {device}"))
    return int(link["stats64"]["tx"]["bytes"])


def test_the_outside_and_the_nodes_reach_pods_directly(vpc: Vpc) -> None:
    """No translation in either direction, on either interface."""
    for node in vpc.nodes:
        for pod in by_interface(vpc, node).values():
            address = pod.addresses[0]
            for see in (traffic.seen_by_tcp, traffic.seen_by_udp):
                assert see(vpc.outside, pod.place, address) == OUTSIDE
                assert see(pod.place, vpc.outside, OUTSIDE) == address
                other = next(one for one in vpc.nodes if one is not node)
                assert see(node.place, pod.place, address) == str(vpc.nic(node, 0).address)
                assert see(other.place, pod.place, address) == str(vpc.nic(other, 0).address)


@pytest.mark.parametrize("target", [0, 1], ids=["to-primary-pod", "to-secondary-pod"])
@pytest.mark.parametrize("entry", [0, 1], ids=["by-primary", "by-secondary"])
def test_what_comes_in_by_a_nodeport_goes_back_the_same_way(vpc: Vpc, entry: int, target: int) -> None:
    """An address of the node, translated to a pod's on the same or another interface: TCP and UDP work, and the VPC,
    which checks the sources, drops nothing."""
    node = vpc.nodes[0]
    pod = by_interface(vpc, node)[target]
    before = vpc.router.dropped()
    with nodeport(vpc, node, entry, f"{pod.addresses[0]}:8080") as entrance:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            assert traffic.answered(vpc.outside, pod.place, entrance, 8080, kind) == OUTSIDE
    assert vpc.router.dropped() == before


def test_a_nodeport_of_a_pod_on_the_host_network(vpc: Vpc) -> None:
    """The node answers from its primary address, and still by the interface that the question came in on."""
    node = vpc.nodes[0]
    own = str(vpc.nic(node, 0).address)
    before = vpc.router.dropped()
    with nodeport(vpc, node, 1, f"{own}:8080") as entrance:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            assert traffic.answered(vpc.outside, node.place, entrance, 8080, kind, bound=own) == OUTSIDE
    assert vpc.router.dropped() == before


def test_the_node_itself_answers_on_every_interface(vpc: Vpc) -> None:
    """By the interface that the question came in on; and what it asks itself, by the one that has its address."""
    node = vpc.nodes[0]
    before = vpc.router.dropped()
    for index in (0, 1):
        address = str(vpc.nic(node, index).address)
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            assert traffic.answered(vpc.outside, node.place, (address, 9090), 9090, kind, bound=address) == OUTSIDE
        for see in (traffic.seen_by_tcp, traffic.seen_by_udp):
            assert see(node.place, vpc.outside, OUTSIDE, source=address) == address
    assert vpc.router.dropped() == before


def test_the_vpc_checks_sources(vpc: Vpc) -> None:
    """What the wiring must get right is really checked: a pod's address on the wrong interface is dropped and counted;
    and a pod that forges an address gets no packet out of its node."""
    node = vpc.nodes[0]
    pods = by_interface(vpc, node)
    before = vpc.router.dropped()
    node.place.ip("rule add priority 1 from all to 203.0.113.9 lookup main")
    try:
        with pytest.raises(OSError, match="timed out"):
            traffic.seen_by_udp(pods[1].place, vpc.outside, OUTSIDE, patience=1.0)
    finally:
        node.place.ip("rule del priority 1")
    assert vpc.router.dropped() > before
    before = vpc.router.dropped()
    forged = pods[0].addresses[0]
    pods[1].place.ip(f"address add {forged}/32 dev eth0")
    try:
        with pytest.raises(OSError, match="timed out"):
            traffic.seen_by_udp(pods[1].place, vpc.outside, OUTSIDE, source=forged, patience=1.0)
    finally:
        pods[1].place.ip(f"address del {forged}/32 dev eth0")
    assert vpc.router.dropped() == before


def test_a_default_route_of_another_interface_takes_nothing(vpc: Vpc) -> None:
    """As a distribution makes it that configures every interface: pods of each, and the node's answers, leave by the
    one that has their address, and the VPC drops nothing."""
    node, far = vpc.nodes[0], vpc.nodes[1].pods[0]
    own, before = str(vpc.nic(node, 1).address), vpc.router.dropped()
    node.place.ip(f"route replace default via 10.0.0.1 dev ens6 src {own} onlink")
    try:
        for pod in by_interface(vpc, node).values():
            address = pod.addresses[0]
            for see in (traffic.seen_by_tcp, traffic.seen_by_udp):
                assert see(pod.place, vpc.outside, OUTSIDE) == address
                assert see(pod.place, far.place, far.addresses[0]) == address
                assert see(vpc.outside, pod.place, address) == OUTSIDE
        primary = str(vpc.nic(node, 0).address)
        assert traffic.answered(vpc.outside, node.place, (primary, 9090), 9090, socket.SOCK_STREAM) == OUTSIDE
        assert vpc.router.dropped() == before
    finally:
        node.place.ip("route replace default via 10.0.0.1 dev ens5")


# --- repair ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "breaks",
    [
        "ip rule flush",
        "ip route flush table 8201",
        "ip link set ens6 down",
        "ip address flush dev ens6",
        "nft delete table inet routable",
        "sh -c 'echo 1 > /proc/sys/net/ipv4/conf/ens6/rp_filter'",
    ],
)
def test_what_somebody_broke_is_mended_within_two_seconds(vpc: Vpc, breaks: str) -> None:
    """Rules, the tables of interfaces, the interfaces themselves, their addresses and settings; and it is counted."""
    node = vpc.nodes[0]
    before = _shape(node)
    count = sum(node.status()["repairs"].values())
    node.place.run("sh", "-c", breaks)
    if "rule flush" in breaks:
        node.place.ip("rule add priority 0 lookup local")
        node.place.ip("rule add priority 32766 lookup main")
    within(2.0, "the node is as it was", lambda: _shape(node) == before)
    within(2.0, "it is counted", lambda: sum(node.status()["repairs"].values()) > count)
    pod = by_interface(vpc, node)[1]
    assert traffic.seen_by_tcp(vpc.outside, pod.place, pod.addresses[0]) == OUTSIDE


def _shape(node: Node) -> list[str]:
    lines = [line for line in node.place.ip("rule").splitlines() if "proto 82" in line]
    lines += node.place.ip("route show table 8201").splitlines() if "8201" in "".join(lines) else []
    lines += [line for line in node.place.ip("-o link show ens6").splitlines() if "state UP" in line]
    lines += node.place.ip("-o -4 address show ens6").splitlines()
    lines += node.place.run("nft", "list", "tables").splitlines()
    return [*sorted(lines), node.place.run("cat", "/proc/sys/net/ipv4/conf/ens6/rp_filter")]


def test_status_and_metrics_tell_of_the_cloud(vpc: Vpc) -> None:
    """Blocks by interface, calls by action, and nothing that is wrong."""
    node = vpc.nodes[0]
    status = node.status()
    owners = {one["owner"] for one in status["pool"]}
    assert owners == {nic.id for nic in vpc.region.attached(vpc.instances[node.name])}
    metrics = node.metrics()
    assert 'routable_cloud_calls_total{action="AssignPrivateIpAddresses",error=""}' in metrics
    assert 'routable_cloud_throttled_total{action="AssignPrivateIpAddresses"} 0.0' in metrics
    assert "routable_cloud_interfaces 2.0" in metrics
    assert "routable_cloud_obstacles 0.0" in metrics
    assert "EC2: 2 of 3 interfaces" in node.ctl("status")


# --- translation, IPv6 ----------------------------------------------------------------------------------------


def test_packets_to_outside_of_the_vpc_take_the_nodes_address() -> None:
    """With snat = "external": not within the VPC, not to excluded ranges, and not what answers the outside."""
    settings = {"aws": {**AWS, "snat": "external", "snat_exclude": ["198.51.100.0/24"]}}
    with built(nodes=1, settings=settings) as vpc:
        vpc.outside.ip("address add 198.51.100.9/32 dev eth0")
        vpc.router.place.ip("route add 198.51.100.9/32 dev out")
        (node,) = vpc.nodes
        for _ in range(8):
            node.add()
        vpc.follow()
        primary = str(vpc.nic(node, 0).address)
        for pod in by_interface(vpc, node).values():
            own = pod.addresses[0]
            for see in (traffic.seen_by_tcp, traffic.seen_by_udp):
                assert see(pod.place, vpc.outside, OUTSIDE) == primary
                assert see(pod.place, vpc.outside, "198.51.100.9") == own
                assert see(pod.place, node.place, primary) == own
                assert see(vpc.outside, pod.place, own) == OUTSIDE
        assert vpc.router.dropped() == 0


def test_pods_with_both_families() -> None:
    """An IPv6 prefix beside the IPv4 prefix: every pod is reached by both from everywhere."""
    with built(settings={"aws": {"ipv6": True}}) as vpc:
        one, other = (node.add() for node in vpc.nodes)
        vpc.follow()
        assert [":" in address for address in one.addresses] == [False, True]
        for address in other.addresses:
            source = one.address(6 if ":" in address else 4)
            assert traffic.seen_by_tcp(one.place, other.place, address, size=SIZE) == source
            assert traffic.seen_by_udp(vpc.outside, other.place, address) in (OUTSIDE, "2001:db8:ffff::9")
        assert vpc.router.dropped() == 0
        vpc.nodes[0].runtime.check(one)


# --- waiting, limits ------------------------------------------------------------------------------------------


def test_a_burst_waits_for_an_interface_and_is_served() -> None:
    """Fifteen pods at once on a node that has one address: nobody is refused, though interfaces must come first."""
    settings = {"aws": {"mode": "address", "warm_addresses": 1}}
    with built(nodes=1, settings=settings) as vpc:
        (node,) = vpc.nodes
        with ThreadPoolExecutor(15) as pool:
            pods = list(pool.map(lambda _: node.add(), range(15)))
        assert len({pod.addresses[0] for pod in pods}) == 15
        assert vpc.region.calls["CreateNetworkInterface", ""] == 2
        full = "15 of 15 addresses in use, 15 of 15 slots taken, 3 of 3 interfaces attached"
        with pytest.raises(Refused, match=full) as caught:
            node.add()
        assert caught.value.code == 100
        node.runtime.call("STATUS")  # a full node is well: its pods shall not be evicted
        (problem,) = node.status()["problems"]
        assert (problem["kind"], problem["code"]) == ("pool", 100)
        assert full in problem["msg"]
        node.delete(pods[0])
        with pytest.raises(Refused) as caught:
            node.add()  # it cools down
        assert caught.value.code in (11, 100)


def test_a_pod_that_waits_keeps_nobody_from_being_served() -> None:
    """While EC2 is slow, more ADDs wait than there are threads; DEL and the status are answered at once; who hangs up
    is forgotten."""
    with built(nodes=1, settings={"aws": {"mode": "address", "warm_addresses": 1}}) as vpc:
        (node,) = vpc.nodes
        first = node.add()
        vpc.ec2[0].delay = 3.0
        with ThreadPoolExecutor(12) as pool:
            waiting = [pool.submit(node.add) for _ in range(10)]
            eventually("they wait", lambda: node.status()["waiting"] >= 8)
            node.delete(first)
            assert len(node.status()["leases"]) <= 2
            vpc.ec2[0].delay = 0.0
            assert len({pod.result().addresses[0] for pod in waiting}) == 10
        eventually("nobody waits", lambda: node.status()["waiting"] == 0)


# --- EC2 out of order, death ------------------------------------------------------------------------------------


def test_a_check_looks_at_the_metadata(vpc: Vpc) -> None:
    """What the instance is, and which link is its primary interface; the agent goes on as if nobody had looked."""
    node = vpc.nodes[0]
    before = node.status()["leases"]
    found = checked(node)
    assert (found.wrong, found.code) == ([], 0)
    instance = vpc.instances[node.name]
    assert any(line.startswith(f"ok metadata: {instance}, t3.medium in ") for line in found.lines)
    assert any(line.startswith("ok uplink: ens5, the primary interface eni-") for line in found.lines)
    assert any("runs here: backend aws-eni, 8 leases" in line for line in found.lines)
    assert node.status()["leases"] == before


def test_a_start_without_ec2() -> None:
    """The metadata is enough: pods go on, and new ones get what is free."""
    with built(nodes=1, settings=SINGLE) as vpc:
        (node,) = vpc.nodes
        pods = [node.add() for _ in range(6)]
        eventually("all are there", lambda: sum(one["total"] for one in node.status()["pool"]) == 8)
        for nth in range(1, 10_000):
            vpc.region.fail("*", nth, "error500")
        node.stop(signal.SIGKILL)
        node.launch()
        node.await_ready()
        more = node.add()
        for pod in (*pods, more):
            assert traffic.seen_by_tcp(vpc.outside, pod.place, pod.addresses[0]) == OUTSIDE
        vpc.region.faults.clear()


def agrees(vpc: Vpc, node: Node) -> bool:
    """Whether the agent offers what EC2 has, everything that is there is somebody's, and nothing is under way."""
    attached = vpc.region.attached(vpc.instances[node.name])
    status = node.status()
    offered = {(one["owner"], one["block"]) for one in status["pool"]}
    true = {(nic.id, str(block)) for nic in attached for block in nic.blocks}
    is_whole = len(vpc.region.nics) == len(attached)
    bound = all(nic.attachment is not None and nic.attachment.goes for nic in attached)
    return offered == true and is_whole and bound and not status["cloud"]["under_way"]


@pytest.mark.parametrize("nth", range(1, 11))
def test_the_process_is_killed_at_every_call(nth: int) -> None:
    """SIGKILL when its n-th call arrives at EC2, before it is done or after: a new process makes it good. Both at once,
    each in a VPC of its own, since most of it is waiting until what EC2 says can be believed."""
    with ThreadPoolExecutor(2) as both:
        for done in [both.submit(_killed_at, nth, is_after) for is_after in (False, True)]:
            done.result()


def _killed_at(nth: int, is_after: bool) -> None:
    with built(nodes=1, settings=SINGLE, is_started=False) as vpc:
        (node,) = vpc.nodes
        node.write_config()
        node.launch()
        killed = threading.Event()
        _kill_at(vpc, node, nth, is_after, killed)
        with ThreadPoolExecutor(8) as pool:
            adds = [pool.submit(_tried, node) for _ in range(8)]
            eventually("it is killed, or has served", lambda: killed.is_set() or all(add.done() for add in adds))
            if not killed.is_set():
                for pod in list(node.pods):
                    node.delete(pod)
                assert killed.wait(75), "the scenario has fewer calls than that"
            assert node.agent is not None
            node.agent.wait(PATIENCE)
            node.launch()  # who still waits for an agent is served by this one
            node.await_ready()
            done = [add.result() for add in adds]
        eventually("EC2 and the agent agree", lambda: agrees(vpc, node))
        for pod in [one for one in done if one is not None and one in node.pods]:
            assert traffic.seen_by_tcp(vpc.outside, pod.place, pod.addresses[0]) == OUTSIDE


def _tried(node: Node) -> Pod | None:
    try:
        return node.add()
    except Refused:
        return None


def _kill_at(vpc: Vpc, node: Node, nth: int, is_after: bool, killed: threading.Event) -> None:
    counts = {False: itertools.count(1), True: itertools.count(1)}

    def on_call(has_been_done: bool) -> None:
        agent = node.agent
        if next(counts[has_been_done]) == nth and has_been_done == is_after and agent is not None:
            os.kill(agent.pid, signal.SIGKILL)
            agent.wait(PATIENCE)
            killed.set()
            raise NoAnswer

    vpc.region.on_call = on_call


def test_commands_know_nothing_of_another_cloud(vpc: Vpc) -> None:
    """A node cannot be switched to a backend whose addresses come from elsewhere, and is told why."""
    from cni.errors import Failure

    with pytest.raises(Failure, match="static has its addresses from elsewhere than aws-eni"):
        commands.ask(str(vpc.nodes[0].runtime.socket), commands.SWITCH, {"backend": "static"})


def test_uninstall_leaves_nothing_on_the_interfaces() -> None:
    """Their own addresses, rules and tables go with the rest; an address that somebody else put there stays."""
    with built(nodes=1, settings=SINGLE) as vpc:
        node = vpc.nodes[0]
        for _ in range(8):
            node.add()
        uplink = node.status()["site"]["uplink"]
        (device,) = {line.split()[1] for line in _addresses(node)} - {"lo", uplink}
        node.place.ip(f"address add 203.0.113.9/32 dev {device}")
        node.stop()
        assert "removed" in node.ctl("uninstall", "--yes")
        node.pods.clear()
        assert [line.split()[3] for line in _addresses(node) if f" {device} " in line] == ["203.0.113.9/32"]
        assert "820" not in node.place.ip("rule show")
        assert "removed 0 objects" in node.ctl("uninstall")


def _addresses(node: Node) -> list[str]:
    return [line for line in node.place.ip("-o -4 address show").splitlines() if " rt" not in line]
