"""What an operator may choose or get wrong, each on nodes of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from demo import show, traffic
from demo.lab import Family, Lab, Node, built, eventually
from demo.runtime import Refused


@pytest.mark.parametrize("backend", ["static", "vxlan"])
def test_masquerade_takes_the_nodes_address_beyond_the_routable_ranges_alone(backend: str) -> None:
    """The outside machine, which is not routable, sees the node; pods, nodes and everything within still see the pod;
    and the outside still reaches pods by their own address."""
    masquerade = {"enabled": True, "routable": ["10.244.0.0/16", "192.0.2.0/27", "2001:db8::/34"]}
    with built(nodes=2, backend=backend, family="dual", settings={"masquerade": masquerade}) as lab:
        first, last = lab.nodes
        pod, other = first.add(), last.add()
        for family in (4, 6):
            outside = lab.outside_address(family)
            for seen_by in (traffic.seen_by_tcp, traffic.seen_by_udp):
                seen = seen_by(pod.place, lab.outside, outside)
                # 2001:db8:ffff:: is beyond 2001:db8::/34, 192.0.2.100 beyond 192.0.2.0/27.
                assert seen == first.address(family)
                assert seen_by(pod.place, other.place, other.address(family)) == pod.address(family)
                assert seen_by(lab.outside, pod.place, pod.address(family)) == outside
        assert traffic.seen_by_tcp(pod.place, last.place, last.address(4)) == pod.address(4)


def test_static_says_which_peers_it_cannot_reach() -> None:
    """On nodes with a router in between: no wrong route, but status, metrics and log that name the peer. STATUS
    succeeds: the list is the same everywhere, and pods are no better off on another node."""
    with built(nodes=2, backend="static", is_routed=True) as lab:
        first, last = lab.nodes
        pod = first.add()
        first.runtime.call("STATUS")
        (problem,) = first.status()["problems"]
        assert (problem["code"], problem["by_status"], problem["count"]) == (51, False, 1)
        assert "node-b" in problem["msg"]
        assert "not on-link at eth0" in problem["details"]
        assert "use backend vxlan" in problem["details"]
        assert last.pod_cidrs[0] not in first.place.ip("route show")
        assert first.place.ip("nexthop show") == ""
        (peer,) = first.status()["peers"]
        assert peer["unserved"]
        assert "routable_peers_unserved 1.0" in first.metrics()
        assert 'routable_problems{kind="peers"} 1.0' in first.metrics()
        assert "a peer cannot be reached" in first.tail()
        assert "node-b" in first.ctl("status")
        first.runtime.check(pod)


def test_a_full_pool_is_told_before_and_while_it_is_full() -> None:
    """Six addresses: the seventh ADD is refused with the numbers, and so say status and /readyz; STATUS succeeds, or
    the six would be evicted; and after a DEL and the cool-down there is one again."""
    with built(nodes=1, settings={"ipam": {"cooldown": 2.0}}, is_started=False) as lab:
        (node,) = lab.nodes
        node.pod_cidrs = ["10.244.1.0/29"]
        lab.write_nodes()
        node.start()
        pods = [node.add() for _ in range(6)]
        place = node.pod_place()
        try:
            with pytest.raises(Refused) as caught:
                node.runtime.add("seventh", place)
            assert caught.value.code == 100
            assert "6 of 6 addresses in use in 10.244.1.0/29" in str(caught.value)
            assert "eth0" not in place.ip("link show")
            node.runtime.call("STATUS")
            (problem,) = node.status()["problems"]
            assert (problem["code"], problem["by_status"]) == (100, False)
            assert "6 of 6 in use" in problem["msg"]
            assert node.probe("/readyz").startswith("HTTP/1.0 503")
            assert "6 of 6 in use" in node.probe("/readyz")
            assert "CNI STATUS succeeds" in node.ctl("status")
            freed = pods[0].addresses
            node.delete(pods[0])
            with pytest.raises(Refused) as caught:
                node.runtime.add("seventh", place)
            assert caught.value.code == 11
            assert "1 cooling down" in str(caught.value)
            node.runtime.call("STATUS")
            eventually("the cool-down ends", lambda: node.status()["pool"][0]["free"])
            node.runtime.call("STATUS")
            assert node.runtime.add("seventh", place).addresses == freed
        finally:
            place.remove()


@pytest.mark.parametrize("backend", ["static", "vxlan"])
def test_pod_cidrs_of_one_or_two_addresses_work(backend: str) -> None:
    """Every address is a pod's and is reached, from pods and from the other node; one more is refused clearly."""
    with built(nodes=2, backend=backend, family="dual", is_started=False) as lab:
        node, other = lab.nodes
        node.pod_cidrs = ["10.244.1.0/31", "10.244.1.5/32", "2001:db8:1::/127", "2001:db8:1::5/128"]
        lab.write_nodes()
        for one in lab.nodes:
            one.start()
        far = other.add()
        pods = [node.add() for _ in range(3)]
        assert len({address for pod in pods for address in pod.addresses}) == 6
        for pod in pods:
            for family in (4, 6):
                assert traffic.seen_by_tcp(far.place, pod.place, pod.address(family)) == far.address(family)
                assert traffic.seen_by_tcp(other.place, pod.place, pod.address(family))
            node.runtime.check(pod)
        with pytest.raises(Refused, match="addresses in use") as caught:
            node.add()
        assert caught.value.code == 100
        assert node.status()["repairs"] == {}


def test_the_cool_down_outlives_the_agent() -> None:
    """An address that was released is not given to the next pod after a restart either."""
    with built(nodes=1, settings={"ipam": {"cooldown": 60.0}}, is_started=False) as lab:
        (node,) = lab.nodes
        node.pod_cidrs = ["10.244.1.0/30"]
        lab.write_nodes()
        node.start()
        pod = node.add()
        released = pod.addresses
        node.delete(pod)
        node.stop()
        node.start()
        assert node.status()["pool"][0]["cooling"] == 1
        assert node.add().addresses != released
        with pytest.raises(Refused) as caught:
            node.add()
        assert caught.value.code == 11


@pytest.mark.parametrize("family", ["v4", "v6"])
def test_a_single_family_leaves_the_other_alone(family: Family) -> None:
    """IPv6 alone needs no IPv4 anywhere, and the other way round: no forwarding, no routes, no addresses."""
    with built(nodes=2, backend="vxlan", family=family) as lab:
        for node in lab.nodes:
            node.add()
        (number,) = lab.families
        assert [one.fault for one in show.reachability(lab, number)] == [""] * (2 * 1 + 2 * 2 + 2)
        node = lab.nodes[0]
        other = {4: "net/ipv6/conf/all/forwarding", 6: "net/ipv4/ip_forward"}[number]
        assert node.place.run("cat", f"/proc/sys/{other}").strip() == "0"
        assert len(node.pods[0].result["ips"]) == 1
        assert "proto 82" not in node.place.ip(f"-{10 - number} route show")


@contextmanager
def without_its_journal(node: Node) -> Iterator[None]:
    """As if somebody had taken it away; it is back afterwards."""
    path = Path(node.settings["paths"]["state"])
    aside = path.rename(path.with_name("aside"))
    yield
    for file in path.parent.glob(f"{path.name}*"):
        if not file.name.endswith(".lock"):
            file.unlink()
    aside.rename(path)


def test_uninstall_refuses_while_pods_have_addresses_and_then_removes_everything() -> None:
    """Nothing of ours is left in the kernel, and an agent that starts afterwards finds a clean node."""
    with built(nodes=1, backend="vxlan", family="dual", is_started=False) as lab:
        (node,) = lab.nodes
        before = show.census(node)
        node.start()
        pod = node.add()
        node.runtime.add(pod.container, pod.place, ifname="net1", config={"name": "second"})
        assert "from all" in pod.place.ip("rule show") and "8200:" in pod.place.ip("rule show")
        node.place.ip("route add 203.0.113.0/24 via 192.0.2.77")
        with pytest.raises(Exception, match="an agent runs on this node"):
            node.ctl("uninstall")
        node.stop()
        with pytest.raises(Exception, match="2 pods on this node have addresses"):
            node.ctl("uninstall")
        with without_its_journal(node):
            with pytest.raises(Exception, match="2 pods on this node have addresses"):
                node.ctl("uninstall")
            Path(node.settings["paths"]["state"]).write_text("leases:\n")
            with pytest.raises(Exception, match="nothing was removed; start the agent once"):
                node.ctl("uninstall", "--yes")
        assert "removed" in node.ctl("uninstall", "--yes")
        assert [pod.place.ip(f"-{family} rule show").count("8200:") for family in (4, 6)] == [0, 0]
        assert "203.0.113.0/24" in node.place.ip("route show")
        node.place.ip("route del 203.0.113.0/24")
        assert show.census(node) == before
        assert "eth0" not in pod.place.ip("link show")
        assert "removed 0 objects" in node.ctl("uninstall")
        node.start()
        assert node.status()["leases"] == []


@pytest.mark.parametrize("has_list", [True, False], ids=["", "and-without-a-list-of-nodes"])
def test_a_machine_without_nft_is_told_so_at_the_start(tmp_path: Path, has_list: bool) -> None:
    """By name, with the remedy, and before anything is changed; also if it is not known yet what else is needed."""
    with built(nodes=1, is_started=False) as lab:
        (node,) = lab.nodes
        if not has_list:
            (lab.directory / "nodes.toml").unlink()
        before = show.census(node)
        done = _started(lab, {**os.environ, "PATH": str(tmp_path)})
        assert done.returncode == 1
        assert "the program nft is missing" in done.stderr
        assert "install the package nftables" in done.stderr
        assert "Traceback" not in done.stderr
        assert show.census(node) == before


def test_a_start_without_the_list_of_nodes_waits_for_it() -> None:
    """The agent says what it waits for, answers STATUS 50 and ADD 11, and serves as soon as the list is there."""
    with built(nodes=2, is_started=False) as lab:
        node, other = lab.nodes
        (lab.directory / "nodes.toml").unlink()
        node.start()
        place = node.pod_place()
        try:
            with pytest.raises(Refused, match="cannot be read") as caught:
                node.runtime.call("STATUS")
            assert caught.value.code == 50
            with pytest.raises(Refused, match="cannot be read"):
                node.runtime.add("early", place)
            lab.write_nodes([other])
            eventually(
                "the list without this node is read",
                lambda: "no node is named node-a" in str(node.status()["problems"]),
            )
            lab.write_nodes()
            eventually("the agent serves", lambda: _is_ready(lab))
            assert node.runtime.add("now", place).addresses
        finally:
            place.remove()


def test_a_restart_while_the_list_is_bad_goes_on_with_the_last_good_one() -> None:
    """One entry twice must not leave every node that restarts without a network: ADD and STATUS succeed, status and
    metrics tell it, until the list is mended."""
    with built(nodes=2) as lab:
        node, other = lab.nodes
        pod, far = node.add(), other.add()
        path = lab.directory / "nodes.toml"
        good = path.read_text()
        path.write_text(good + good)
        node.stop()
        node.start()
        assert node.add().addresses
        node.runtime.call("STATUS")
        assert traffic.seen_by_tcp(pod.place, far.place, far.address(4)) == pod.address(4)
        (problem,) = node.status()["problems"]
        assert (problem["kind"], problem["by_status"]) == ("nodes", False)
        assert "is used, the last good list" in problem["details"]
        assert 'routable_problems{kind="nodes"} 1.0' in node.metrics()
        lab.write_nodes()
        eventually("the list is good again", lambda: not node.status()["problems"])


def _is_ready(lab: Lab) -> bool:
    try:
        lab.nodes[0].runtime.call("STATUS")
    except Refused:
        return False
    return True


def test_a_wrong_configuration_is_told_with_line_and_remedy() -> None:
    """Exit code 1 and one sentence, no traceback."""
    with built(nodes=1, is_started=False, settings={"uplink": "eth7"}) as lab:
        (node,) = lab.nodes
        node.start()
        with pytest.raises(Refused, match="uplink is eth7, but there is no such link"):
            node.runtime.call("STATUS")
        node.stop()
        node.config.write_text(node.config.read_text() + "\ncooldwn = 3\n")
        done = _started(lab, dict(os.environ))
        assert done.returncode == 1
        assert f"{node.config}, line" in done.stderr
        assert "Traceback" not in done.stderr


def _started(lab: Lab, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The agent of the first node, run to its end."""
    node = lab.nodes[0]
    if not node.config.exists():
        node.write_config()
    root = Path(__file__).parents[2]
    line = node.place.enter(sys.executable, "-m", "agent.main", "--config", str(node.config))
    line[0] = str(shutil.which(line[0]))
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=30, env=environment, cwd=root)
