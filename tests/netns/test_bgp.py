"""Backend bgp with real BIRDs: on the nodes, started by their agents, and as the router above them."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from demo import show
from demo.lab import Lab, Node, eventually
from demo.speaking import Router, are_up, mesh, pid_of, rack, sessions, socket_of
from demo.stream import Datagrams
from tests.pace import within

PATIENCE = 60.0
BFD = {"bfd": "graceful"}
SAID = """
protocol static { ipv4;
    route 0.0.0.0/0 unreachable;
    route 10.244.1.128/25 unreachable;
    route 172.16.0.0/12 unreachable;
    route 10.244.200.0/24 unreachable;
}
protocol static same { disabled; ipv4;
    route 10.244.201.0/24 unreachable { bgp_path.prepend(64512); };
}
"""
"""What the router announces besides: a default route, a part of a node's own pods, what nobody is to believe, and pods
of another cluster."""


def begun(lab: Lab) -> Lab:
    """All sessions of a *lab* are up, its pods are reached, and each node has one."""
    for node in lab.nodes:
        node.add()
    for node in lab.nodes:
        eventually(f"{node.name} has its sessions", lambda node=node: has_all(lab, node), PATIENCE)
    for node in lab.nodes:
        eventually(f"{node.name} has routes", lambda node=node: routes(node) == of_others(lab, node), PATIENCE)
    return lab


def has_all(lab: Lab, node: Node) -> bool:
    """Whether the sessions of a *node* of a mesh are up."""
    return are_up(socket_of(node), len(lab.families) * (len(lab.nodes) - 1))


def is_waiting(node: Node) -> bool:
    """Whether a neighbour of its restarts."""
    return any(one.is_restarting for one in sessions(socket_of(node)).values())


def routes(node: Node) -> set[str]:
    """What BIRD has in the kernel of *node*."""
    found = (line.split() for family in (4, 6) for line in node.place.ip(f"-{family} route show proto 12").splitlines())
    return {words[0] for words in found if words}


def of_others(lab: Lab, node: Node) -> set[str]:
    """The pods' ranges of the other nodes."""
    return {cidr for other in lab.nodes if other is not node for cidr in other.pod_cidrs}


@pytest.fixture(scope="module")
def meshed() -> Iterator[Lab]:
    """Two dual-stack nodes on one segment that speak with each other, with BFD."""
    with mesh("dual", 2, BFD) as lab:
        yield begun(lab)


@pytest.fixture(scope="module")
def racked() -> Iterator[tuple[Lab, Router]]:
    """Two dual-stack nodes below one router, which they tell of their pods and which tells them of each other's."""
    with rack("dual", 2, said=SAID) as (lab, router):
        for node in lab.nodes:
            node.write_config()
            node.launch()
        for node in lab.nodes:
            node.await_ready()
            node.add()
        for node in lab.nodes:
            eventually(f"{node.name} has routes", lambda node=node: routes(node) >= of_others(lab, node), PATIENCE)
        yield lab, router


@contextmanager
def flowing(lab: Lab) -> Iterator[None]:
    """A thousand datagrams a second both ways between two pods, in both families: none is lost. No restart of a test
    before is under way when they begin."""
    for node in lab.nodes:
        eventually("no restart is under way", lambda node=node: not is_waiting(node), PATIENCE)
    first, last = lab.pods[0][1], lab.pods[-1][1]
    with ExitStack() as running:
        streams = [running.enter_context(Datagrams(first, last, family)) for family in lab.families]
        yield
    assert [stream.losses() for stream in streams if stream.lost] == []
    assert all(stream.sent > 1000 for stream in streams)


def shown(node: Node) -> list[dict[str, Any]]:
    """The sessions in its status."""
    found: list[dict[str, Any]] = node.status().get("bgp", {}).get("sessions", [])
    return found


def told(node: Node, kind: str) -> str:
    """What is wrong by that kind; '' for nothing."""
    return "\n".join(f"{one['msg']}: {one['details']}" for one in node.status()["problems"] if one["kind"] == kind)


def test_pods_of_a_mesh_reach_each_other(meshed: Lab) -> None:
    """By routes of BIRD's alone, whose number and metric are its own, in both families; what is ours collides with
    none."""
    for family in meshed.families:
        for reach in show.reachability(meshed, family):
            assert not reach.fault, reach
    node = meshed.nodes[0]
    (line,) = node.place.ip("-4 route show proto 12").splitlines()
    assert line.split() == ["10.244.2.0/24", "via", "192.0.2.2", "dev", "eth0", "metric", "8282"]
    assert "unreachable 10.244.1.0/24" in node.place.ip("route show proto 82")


def test_status_and_metrics_show_sessions(meshed: Lab) -> None:
    """Since when, and how many prefixes each way; and that BIRD can be restarted."""
    node = meshed.nodes[0]

    def whole() -> list[dict[str, Any]]:
        found = shown(node)
        return found if all(one["up"] and one["received"] == one["announced"] for one in found) else []

    (four, six) = eventually("status knows, and all were heard", whole)
    assert (four["peer"], four["address"], four["received"], four["announced"]) == (
        "node-b", "192.0.2.2", {"ipv4": 1}, {"ipv4": 1},
    )  # fmt: skip
    assert six["since"] > 1_700_000_000
    assert "BGP SESSIONS (2)" in node.ctl("status")
    assert 'routable_bgp_session_up{session="node-b.v4"} 1.0' in node.metrics()
    assert "good: BIRD can be restarted under running pods" in node.ctl("bgp", "check")


def test_what_the_kernel_lost_comes_back(meshed: Lab) -> None:
    """Within two seconds, though nobody told BIRD."""
    node = meshed.nodes[0]
    for family in (4, 6):
        node.place.ip(f"-{family} route flush proto 12")
    assert routes(node) == set()
    within(2.5, "the routes are back", lambda: routes(node) == of_others(meshed, node))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_an_agent_that_ends_leaves_bird_alone(meshed: Lab, number: signal.Signals) -> None:
    """Its sessions go on, not a packet is lost, and the next agent knows it again."""
    node = meshed.nodes[0]
    before, since = pid_of(socket_of(node)), sessions(socket_of(node))["node-b.v4"].since
    with flowing(meshed):
        node.stop(number)
        node.start()
        eventually("status knows", lambda: node.status().get("bgp", {}).get("pid") == before)
    assert sessions(socket_of(node))["node-b.v4"].since == since
    assert told(node, "speaker") == ""


def test_a_bird_that_is_killed_is_started_again_and_nothing_is_lost(meshed: Lab) -> None:
    """With BFD: both ends take its end for a restart."""
    node = meshed.nodes[0]
    before = pid_of(socket_of(node))
    with flowing(meshed):
        os.kill(before, signal.SIGKILL)
        eventually("another BIRD has its sessions", lambda: are_up(socket_of(node), 2), PATIENCE)
    assert pid_of(socket_of(node)) != before
    eventually("status knows", lambda: node.status()["bgp"]["pid"] == pid_of(socket_of(node)))


def test_a_bird_that_hangs_is_started_again(meshed: Lab) -> None:
    """It lives and does not answer: it is told meanwhile, then ended; pods go on all the time."""
    node = meshed.nodes[1]
    before = pid_of(socket_of(node))
    with flowing(meshed):
        os.kill(before, signal.SIGSTOP)
        eventually("it is told", lambda: "does not answer" in told(node, "speaker"), PATIENCE)
        eventually("another BIRD has its sessions", lambda: are_up(socket_of(node), 2), PATIENCE)
    assert pid_of(socket_of(node)) != before


def test_bird_may_be_started_by_another(meshed: Lab) -> None:
    """As in a container of its own, beside the agent's: it is told what the agent says; ended, it is not told to end,
    so that its neighbours wait for the next one, and not a packet is lost."""
    node = meshed.nodes[1]
    node.stop()
    node.settings["bgp"]["start_bird"] = False
    node.start()
    with flowing(meshed):
        os.kill(pid_of(socket_of(node)), signal.SIGKILL)
        eventually("it is missed", lambda: "started elsewhere" in told(node, "speaker"), PATIENCE)
        for _ in range(2):
            beside = node.ctl_begun("bgp", "run")
            eventually("it has its sessions", lambda: has_all(meshed, node), PATIENCE)
            eventually("status knows", lambda: not told(node, "speaker"), PATIENCE)
            # One that is ended again before it has said all takes its routes along, by the book (RFC 4724, 4.2).
            eventually("the other has heard all", lambda: not is_waiting(meshed.nodes[0]), PATIENCE)
            beside.terminate()
            beside.communicate()
            assert beside.returncode == 0
        node.settings["bgp"]["start_bird"] = True
        node.stop()
        node.start()
        eventually("the agent has started one", lambda: has_all(meshed, node), PATIENCE)


def test_the_file_is_for_root_alone(meshed: Lab) -> None:
    """What BIRD is told may have passwords in it."""
    directory = Path(meshed.nodes[0].settings["bgp"]["directory"])
    assert stat.S_IMODE((directory / "bird.conf").stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_drained_node_is_announced_no_more(meshed: Lab) -> None:
    """The sessions stay; an agent's restart leaves it so; it can be taken back."""
    node, other = meshed.nodes
    assert "nothing is announced any more" in node.ctl("drain")
    assert routes(other) == set()
    node.stop()
    node.start()
    eventually("status knows", lambda: node.status().get("bgp", {}).get("drained"))
    assert are_up(socket_of(node), 2)
    node.ctl("drain", "--undo")
    eventually("the routes are back", lambda: routes(other) == of_others(meshed, other))


def test_what_is_accepted_may_change(meshed: Lab) -> None:
    """What a neighbour had said before, and was not taken, is, in the same session."""
    node, other = meshed.nodes
    other.stop()
    other.settings["bgp"]["announce"] = ["10.99.0.0/24"]
    other.start()
    eventually("it is refused", lambda: sessions(socket_of(node))["node-b.v4"].channel(4).filtered == 1)
    since = sessions(socket_of(node))["node-b.v4"].since
    node.stop()
    node.settings["bgp"]["accept"] = [*node.settings["bgp"]["accept"], "10.99.0.0/16"]
    node.start()
    eventually("it is taken", lambda: routes(node) == {*of_others(meshed, node), "10.99.0.0/24"})
    assert sessions(socket_of(node))["node-b.v4"].since == since


def test_pods_below_a_router_reach_each_other(racked: tuple[Lab, Router]) -> None:
    """The router knows their pods by BGP alone."""
    lab, _ = racked
    for family in lab.families:
        for reach in show.reachability(lab, family):
            assert not reach.fault, reach
    assert {line.split()[0] for line in lab.fabric.ip("-4 route show proto 12").splitlines()} == {
        "10.244.1.0/24",
        "10.244.2.0/24",
    }


def test_what_a_router_must_not_announce_is_not_taken(racked: tuple[Lab, Router]) -> None:
    """Taken are pods of other clusters and a default route, after the host's own; not what lies elsewhere, and never a
    part of the node's own range, which is told with whom it was heard of."""
    lab, _ = racked
    node, other = lab.nodes
    eventually("the default route is there", lambda: "default" in routes(node), PATIENCE)
    assert routes(node) == {*of_others(lab, node), "default", "10.244.200.0/24"}
    assert routes(other) == {*of_others(lab, other), "default", "10.244.200.0/24", "10.244.1.128/25"}
    assert node.place.ip("-4 route show default").splitlines()[0].split()[:3] == ["default", "via", "198.51.1.1"]
    eventually("it is told", lambda: "10.244.1.128/25 (by 198.51.1.1)" in told(node, "prefixes"), PATIENCE)
    assert shown(node)[0]["filtered"] == {"ipv4": 2}


def test_a_cluster_with_the_same_number_is_told(racked: tuple[Lab, Router]) -> None:
    """Its pods' ranges are taken for what came back from here, and are named; those of this cluster are not."""
    lab, router = racked
    node = lab.nodes[0]
    node.stop()
    node.settings["bgp"]["accept_own_asn"] = False
    node.start()
    router.ask("enable same")
    words = "by paths with this node's own AS number come, and are not taken: 10.244.201.0/24 (by 198.51.1.1): has"
    eventually("it is told", lambda: words in told(node, "prefixes"))
    eventually("the others' are left", lambda: routes(node) == {"default", "10.244.200.0/24"})


def test_uninstall_takes_bird_and_its_routes_away(racked: tuple[Lab, Router]) -> None:
    """The router hears of it at once, and forgets the node's pods."""
    lab, _ = racked
    node = lab.nodes[1]
    path = socket_of(node)
    pid = pid_of(path)
    for pod in list(node.pods):
        node.delete(pod)
    node.stop()
    said = node.ctl("uninstall")
    assert f"ended BIRD, process {pid}" in said
    assert routes(node) == set()
    assert not path.exists()
    fabric = lab.fabric
    eventually("the router forgets it", lambda: "10.244.2.0/24" not in fabric.ip("route show proto 12"), PATIENCE)


def test_one_that_hangs_is_uninstalled_too(racked: tuple[Lab, Router]) -> None:
    """And another's BIRD at the same place is left alone."""
    lab, _ = racked
    node = lab.nodes[1]
    node.start()
    eventually("it speaks", lambda: routes(node), PATIENCE)
    os.kill(pid_of(socket_of(node)), signal.SIGSTOP)
    node.stop()
    assert "removed" in node.ctl("uninstall")
    assert routes(node) == set()
    stranger = Router(node.place, lab.directory / "stranger", Path(node.settings["bgp"]["bird"]))
    try:
        stranger.start("router id 1.1.1.1; protocol device { }")
        socket_of(node).unlink(missing_ok=True)
        socket_of(node).symlink_to(stranger.socket)
        assert "left alone: at" in node.ctl("uninstall")
        node.start()
        eventually("it is told", lambda: "it was left alone" in told(node, "speaker"), PATIENCE)
        assert stranger.process is not None
        assert stranger.process.poll() is None
    finally:
        stranger.end()
        node.stop()
