"""A node's agent over time: restarts, the list of nodes, what drifts, what runs out, what the machine lacks."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dataplane.items import PROTOCOL
from demo import traffic
from demo.lab import Lab, Node, built, eventually
from demo.runtime import Pod, Refused
from demo.stream import Datagrams
from tests.pace import Stopwatch, within

STEP = 0.3
SOON = 20.0
"""Seconds, on a machine however busy, and sooner than the next whole pass."""


@pytest.fixture(scope="module", params=["static", "vxlan"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Two dual-stack nodes with a pod each."""
    with built(nodes=2, backend=request.param, family="dual") as lab:
        for node in lab.nodes:
            node.add()
        yield lab


def ends(lab: Lab) -> tuple[Node, Pod, Node, Pod]:
    (first, pod), (last, other) = lab.pods[0], lab.pods[-1]
    return first, pod, last, other


def is_reached(sender: Pod, receiver: Pod, family: int = 4, patience: float = traffic.PATIENCE) -> bool:
    """Whether a packet gets there and back."""
    try:
        seen = traffic.seen_by_udp(sender.place, receiver.place, receiver.address(family), patience=patience)
        return seen == sender.address(family)
    except OSError:
        return False


def do_meet(pod: Pod, other: Pod) -> bool:
    """Whether packets flow, of either family: looked at in steps that are small against the two seconds promised."""
    return is_reached(pod, other, 4, STEP) and is_reached(other, pod, 6, STEP)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_pods_lose_no_packet_while_the_agent_is_away(lab: Lab, number: signal.Signals) -> None:
    """It ends and starts again under a stream of packets; SIGTERM is answered with exit code 0."""
    node, pod, _, other = ends(lab)
    with Datagrams(pod, other) as stream:
        for _ in range(5):  # at once after the start, too
            code = node.stop(number)
            assert code == (0 if number == signal.SIGTERM else -signal.SIGKILL)
            assert is_reached(pod, other)
            node.start()
        assert is_reached(other, pod, 6)
    assert stream.sent > 100
    assert stream.lost == 0, stream.losses()


HARMS = [
    "route del {cidr}",
    "-6 route del {cidr6}",
    "nexthop flush proto {protocol}",
    "route del unreachable {own}",
    "route del {v4}/32",
    "-6 route del {v6}/128",
    "neigh del {v4} dev {link}",
    "link set {link} down",
    "link set {link} mtu 1300",
    "link set {link} alias changed",
    "link set {link} address 0a:58:00:00:00:01",
    "link del {link}",
    "[pod] link del eth0",
    "[nft] flush chain inet routable source",
    "[nft] delete table inet routable",
    "[sysctl] net/ipv4/ip_forward 0",
    "[sysctl] net/ipv6/conf/all/forwarding 0",
]
VXLAN_HARMS = [
    "link set routable-vxlan down",
    "link del routable-vxlan",
    "neigh flush dev routable-vxlan nud permanent",
    "address flush dev routable-vxlan",
    "link set routable-vxlan mtu 1300",
    "[fdb]",
    "[sysctl] net/ipv4/conf/routable-vxlan/rp_filter 1",
]


@pytest.mark.parametrize("words", HARMS)
def test_what_drifts_is_mended_within_two_seconds(lab: Lab, words: str) -> None:
    """Whatever of ours somebody changes on the host, or takes away from it by the pod's end: it is as it was, packets
    flow again, and status says what it was."""
    mended(lab, words)


OWN = [
    "address flush dev eth0 scope global",
    "route flush table main",
    "-6 route del default",
    "neigh flush nud permanent",
    "link set eth0 name renamed0",
]


@pytest.mark.parametrize("words", OWN)
def test_what_a_pod_does_in_its_own_namespace_stays(lab: Lab, words: str) -> None:
    """A sandbox takes the address away and answers by itself, a VPN the default route: passes and a restart of the
    agent leave it so, and nobody is alarmed. CHECK tells."""
    node, _, _, _ = ends(lab)
    pod = node.add()
    try:
        pod.place.ip(words)
        harmed = _inside(pod)
        for _ in range(2):
            node.place.ip(f"route del {pod.address(4)}/32")  # a pass comes at once, and looks at this pod
            eventually("a pass went by", lambda: f"{pod.address(4)} " in node.place.ip("route show"))
            node.stop()
            node.start()
        with pytest.raises(Refused):
            node.runtime.check(pod)
        assert _inside(pod) == harmed
        assert not [one for one in node.status()["problems"] if pod.container in one["msg"]]
    finally:
        node.delete(pod)


def _inside(pod: Pod) -> str:
    asked = ("-brief address", "route", "-6 route show proto 82", "neigh show nud permanent")
    return "".join(pod.place.ip(words) for words in asked)


@pytest.mark.parametrize("lab", ["vxlan"], indirect=True)
@pytest.mark.parametrize("words", VXLAN_HARMS)
def test_an_overlay_that_drifts_is_mended_within_two_seconds(lab: Lab, words: str) -> None:
    """The same for what the overlay is made of."""
    mended(lab, words)


def mended(lab: Lab, words: str) -> None:
    """Do the harm to a new pod and its node, and see it mended."""
    node, _, last, other = ends(lab)
    pod = node.add()
    try:
        before = sum(node.status()["repairs"].values())
        _harm(node, pod, last, words)
        with Stopwatch() as watch:
            eventually("something is mended", lambda: sum(node.status()["repairs"].values()) > before)
            eventually("packets flow", lambda: do_meet(pod, other))
        assert watch.seconds < 2.0
        eventually("CHECK and STATUS find nothing", lambda: _is_well(node, pod), SOON)
        assert "mended" in node.status()["events"][-1]["text"]
    finally:
        node.delete(pod)


def _harm(node: Node, pod: Pod, last: Node, words: str) -> None:
    values = {
        "cidr": last.pod_cidrs[0],
        "cidr6": last.pod_cidrs[1],
        "own": node.pod_cidrs[0],
        "v4": pod.address(4),
        "v6": pod.address(6),
        "link": pod.result["interfaces"][0]["name"],
        "protocol": PROTOCOL,
    }
    where, _, rest = words.rpartition("] ") if words.startswith("[") else ("", "", words)
    rest = rest.format(**values)
    if words == "[fdb]":
        for line in node.place.run("bridge", "fdb", "show", "dev", "routable-vxlan").splitlines():
            mac, _, _ = line.partition(" ")
            node.place.run("bridge", "fdb", "del", mac, "dev", "routable-vxlan", "dst", last.addresses[0])
    elif where == "[pod":
        pod.place.ip(rest)
    elif where == "[nft":
        node.place.run("nft", *rest.split())
    elif where.startswith("[sysctl"):
        node.place.sysctl(*rest.split())
    else:
        node.place.ip(rest)


def _is_well(node: Node, pod: Pod) -> bool:
    try:
        node.runtime.check(pod)
        node.runtime.call("STATUS")
    except Refused:
        return False
    return True


def test_what_is_not_ours_is_left_alone(lab: Lab) -> None:
    """Routes, neighbours, links and tables of others are there after passes, whatever their names."""
    node, pod, _, _ = ends(lab)
    place = node.place
    place.ip("link add rtfoo type bridge")
    place.ip("link set rtfoo up")
    place.ip("route add 203.0.113.0/24 dev rtfoo")
    place.ip("route add 203.0.113.128/25 via 192.0.2.77 proto 83")
    place.ip("nexthop add id 77 via 192.0.2.77 dev eth0 proto 83")
    place.ip("neigh add 192.0.2.77 lladdr 0a:00:00:00:00:77 dev eth0 nud permanent")
    place.run("nft", "add", "table", "inet", "others")
    try:
        place.ip(f"route del {pod.address(4)}/32")
        eventually("a pass went by", lambda: f"{pod.address(4)} " in place.ip("route show"))
        node.stop()
        node.start()
        assert "203.0.113.0/24" in place.ip("route show")
        assert "203.0.113.128/25" in place.ip("route show")
        assert "id 77" in place.ip("nexthop show")
        assert "192.0.2.77" in place.ip("neigh show nud permanent")
        assert "inet others" in place.run("nft", "list", "tables")
        assert "rtfoo" in place.ip("link show")
    finally:
        place.ip("link del rtfoo")
        place.ip("route del 203.0.113.128/25")
        place.ip("nexthop del id 77")
        place.ip("neigh del 192.0.2.77 dev eth0")
        place.run("nft", "delete", "table", "inet", "others")


def test_the_list_of_nodes_is_followed(lab: Lab) -> None:
    """A peer that goes loses its routes and nothing else; it comes back; a bad list changes nothing and is told."""
    node, pod, last, other = ends(lab)
    assert is_reached(pod, other)
    lab.write_nodes([node])
    eventually("the peer's routes are gone", lambda: last.pod_cidrs[0] not in node.place.ip("route show"))
    assert last.pod_cidrs[1] not in node.place.ip("-6 route show")
    assert node.place.ip("nexthop show") == ""
    lab.write_nodes()
    eventually("the peer is reached again", lambda: do_meet(pod, other))
    whole = (lab.directory / "nodes.toml").read_text()
    (lab.directory / "nodes.toml").write_text(whole.replace(last.pod_cidrs[0], node.pod_cidrs[0]))
    stale = eventually("the bad list is noticed", lambda: node.status()["nodes_error"])
    assert "nodes.toml, line" in stale
    assert "routable_nodes_stale 1.0" in node.metrics()
    assert is_reached(pod, other)
    lab.write_nodes()
    eventually("the good list is back", lambda: not node.status()["nodes_error"])


def test_the_uplink_may_lose_its_carrier_and_its_address(lab: Lab) -> None:
    """The kernel forgets nexthops and routes when a link goes; they come back with it, within two seconds."""
    node, pod, _, other = ends(lab)
    node.place.ip("link set eth0 down")
    assert not is_reached(pod, other, patience=1.0)
    node.place.ip("link set eth0 up")
    for address in ("192.0.2.1/24", "2001:db8:ffff::1/64"):  # an IPv6 address does not survive the link's going down
        if address.partition("/")[0] not in node.place.ip("address show eth0"):
            node.place.ip(f"address add {address} dev eth0 nodad")
    within(5.0, "packets flow again", lambda: do_meet(pod, other))
    eventually("all is well", lambda: _is_well(node, pod), SOON)


def _counted(node: Node) -> list[str]:
    """What status says of the first block, and metrics do not: addresses may have cooled down between the two."""
    pool, page = node.status()["pool"][0], node.metrics()
    names = {what: f'routable_addresses_{what}{{block="10.244.1.0/24",owner="node-a"}}' for what in ("free", "cooling")}
    return [what for what, name in names.items() if f"{name} {pool[what]}.0" not in page]


def test_metrics_and_probes(lab: Lab) -> None:
    """What an operator's dashboards need, under the names that the documentation gives."""
    node, _, _, _ = ends(lab)
    node.delete(node.add())
    eventually("the pool is the same in both", lambda: _counted(node) == [])
    page = node.metrics()
    for line in (
        'routable_results_total{code="0",verb="ADD"}',
        'routable_phase_seconds_count{phase="apply",verb="ADD"}',
        'routable_request_seconds_bucket{le="0.005",verb="ADD"}',
        "routable_leases 1.0",
        "routable_peers 1.0",
        "routable_peers_unserved 0.0",
        "routable_pass_age_seconds ",
        "process_start_time_seconds ",
    ):
        assert line in page
    manual = (Path(__file__).parents[2] / "docs/monitoring.md").read_text()
    listed = set(re.findall(r"^\| `(routable_\w+)`", manual, re.MULTILINE))
    assert {name for name in listed if f"\n# TYPE {name.removesuffix('_total')}" not in page} == {
        name for name in listed if name.startswith(("routable_cloud_", "routable_gcp_", "routable_bgp_"))
    }
    with closing(node.place.socket(socket.AF_INET, socket.SOCK_STREAM)) as stream:
        stream.connect(("127.0.0.1", 9472))
        stream.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
        assert b" 200 " in stream.recv(1 << 16)


def test_every_line_of_a_request_carries_its_pod(lab: Lab) -> None:
    """The attachment, and the pod's name from CNI_ARGS: in the log, in the status and in the address's history."""
    node, _, _, _ = ends(lab)
    arguments = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=1"
    pod = node.add(arguments=arguments)
    try:
        logged = eventually(  # it comes after the answer
            "the ADD is logged",
            lambda: [line for line in node.tail().splitlines() if "attached" in line and pod.container in line],
        )
        (line,) = logged
        assert f"attachment=pods/{pod.container}/eth0" in line
        assert "pod=shop/web-0" in line
        assert "verb=ADD" in line
        assert "shop/web-0" in [lease["pod"] for lease in node.status()["leases"]]
        assert "shop/web-0" in node.ctl("ip", pod.address(4))
        assert pod.address(4) in node.ctl("ip", "shop/web-0")
        assert "1" in [lease["uid"] for lease in node.status()["leases"]]
    finally:
        node.delete(pod)


def test_a_second_agent_says_that_there_is_one(lab: Lab) -> None:
    """And the first goes on."""
    node, pod, _, _ = ends(lab)
    done = subprocess.run(
        node.place.enter(sys.executable, "-m", "agent.main", "--config", str(node.config)),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 1
    assert "an agent runs on this node" in done.stderr
    assert "Traceback" not in done.stderr
    assert _is_well(node, pod)


def test_a_restart_leaves_the_nft_table_as_it_is(lab: Lab) -> None:
    """Not only its content: it is the very same, so nothing of the kernel's has to be made anew. What another program
    changed meanwhile is put right."""
    node, *_ = ends(lab)

    def table() -> str:
        return node.place.run("nft", "--handle", "list", "table", "inet", "routable")

    before = table()
    assert "handle" in before
    node.stop()
    node.start()
    assert table() == before
    assert node.status()["repairs"] == {}
    node.stop()
    node.place.run("nft", "flush", "chain", "inet", "routable", "source")
    node.start()
    assert node.place.run("nft", "list", "table", "inet", "routable").count("drop") == before.count("drop") > 0


def test_the_log_tells_once_that_a_pod_was_detached() -> None:
    """Whenever the runtime asks, and however often: kubelet does at least twice. What was not attached is not told of,
    and the leases that an agent is ready with are those that are left after the spool was served."""
    with built(nodes=1) as lab:
        (node,) = lab.nodes
        pods = [node.add() for _ in range(3)]
        for _ in range(2):
            node.runtime.delete(pods[0])
        node.runtime.call("DEL", "never-was", "")
        node.stop()
        for pod in (*pods[:2], *pods[:2]):
            node.runtime.delete(pod)
        node.start()
        eventually("it says that it is ready", lambda: node.log.read_text().count(" info ready ") == 2)
        told = [line.split(" ", 1)[1] for line in node.log.read_text().splitlines()]
        detached = [line for line in told if "detached" in line]
        assert len(detached) == 2
        assert pods[0].container in detached[0]
        assert pods[1].container in detached[1]
        assert "leases=1 " in next(line for line in reversed(told) if line.startswith("info ready"))


def test_a_reader_of_the_status_that_goes_is_no_error(lab: Lab) -> None:
    """``routablectl status | head -1``."""
    node, *_ = ends(lab)
    reader = node.ctl_begun("status")
    assert reader.stdout is not None
    reader.stdout.close()
    _, told = reader.communicate(timeout=30)
    assert (reader.returncode, told) == (0, "")
