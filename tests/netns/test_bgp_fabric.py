"""Nodes in two racks of a data centre: real FRRs and BIRDs as its routers, links that are cut, speakers that are
killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from backends.bgp.control import Conversation
from demo import show
from demo.fabric import Fabric, fabric
from demo.lab import Node, eventually
from demo.speaking import are_up, pid_of, socket_of
from demo.stream import RATE, Datagrams
from tests.pace import Stopwatch

PATIENCE = 60.0
MOVED = 1.0
"""Seconds within which traffic has moved when a link is cut."""


@pytest.fixture(scope="module")
def here() -> Iterator[Fabric]:
    """The data centre, with pods that reach each other; node-b believes nobody who says that he is the way to all."""
    with fabric({"b": {"accept_default": False}}) as made:
        nodes = made.lab.nodes
        for node in nodes:
            node.start()
            node.add()
        for node in nodes:
            eventually(f"{node.name} has routes", lambda node=node: others(made, node) <= routes(node), PATIENCE)
        eventually("the spine has two ways to node-c", lambda: len(ways(made)) == 2, PATIENCE)
        eventually("node-c has two ways to all", lambda: has_both(nodes[2]), PATIENCE)
        yield made


def routes(node: Node) -> set[str]:
    """What BIRD has in the kernel of *node*."""
    return {line.split()[0] for line in node.place.ip("route show proto 12").splitlines() if line[0] != "\t"}


def others(here: Fabric, node: Node) -> set[str]:
    """The ranges of the other nodes' pods."""
    return {one.pod_cidrs[0] for one in here.lab.nodes if one is not node}


def ways(here: Fabric) -> list[str]:
    """By which the spine reaches the pods of node-c."""
    return [one for one in here.spine.place.ip("route show 10.244.3.0/24").split() if one.startswith("198.51.10")]


def has_both(node: Node) -> bool:
    """Whether it has two default routes in one."""
    return node.place.ip("route show default proto 12").count("nexthop via 198.51.") == 2


def has_bfd(here: Fabric, node: Node) -> bool:
    """Whether the FRR above *node* hears of it by BFD."""
    return bool(here.tor1.sessions()[node.addresses[0]].get("peerBfdInfo", {}).get("status") == "Up")


def has_its_bfd(node: Node) -> bool:
    """Whether the node's own BIRD hears of both routers by BFD."""
    with Conversation(str(socket_of(node))) as bird:
        return sum(" Up " in f"{one.text} " for one in bird.ask("show bfd sessions")) == 2


def way_out(node: Node) -> str:
    """The link by which a packet of its pod's goes to the outside machine."""
    pod = node.pods[0]
    link = pod.result["interfaces"][0]["name"]
    words = node.place.ip(f"route get 203.0.113.9 from {pod.address(4)} iif {link}").split()
    return words[words.index("dev") + 1]


def told(node: Node, kind: str) -> str:
    """What is wrong by that kind; '' for nothing."""
    return "\n".join(f"{one['msg']}: {one['details']}" for one in node.status()["problems"] if one["kind"] == kind)


def test_pods_of_two_racks_and_the_outside_reach_each_other(here: Fabric) -> None:
    """By their own addresses, over routers of two makes; who has two uplinks has two ways to everywhere."""
    for reach in show.reachability(here.lab, 4):
        assert not reach.fault, reach
    eventually("it has", lambda: has_both(here.lab.nodes[2]), PATIENCE)


def test_what_one_said_itself_is_no_overlap(here: Fabric) -> None:
    """FRR sends a route back to whom it has it from where others are told the same: nobody else has these pods."""
    node = here.lab.nodes[0]
    eventually("status knows", lambda: node.status()["bgp"]["sessions"])
    here.tor1.ask("clear bgp ipv4 unicast * soft out")  # now that both are told the same
    eventually("it was sent back", lambda: node.status()["bgp"]["sessions"][0]["filtered"].get("ipv4"))
    assert told(node, "prefixes") == ""
    assert told(here.lab.nodes[2], "prefixes") == ""


def test_what_a_router_must_not_announce(here: Fabric) -> None:
    """Neither half of the Internet nor a default route, where none is wanted, nor a part of the node's own range is
    taken; the last is told, with whom it was heard of."""
    node = here.lab.nodes[1]
    assert routes(node) == others(here, node)
    eventually("it is told", lambda: "10.244.2.128/25 (by 198.51.2.1)" in told(node, "prefixes"))
    assert "10.244.2.0/24" not in told(node, "prefixes")
    assert "default" in routes(here.lab.nodes[2])


def test_a_link_that_is_cut(here: Fabric) -> None:
    """BFD finds it at both ends, and traffic goes by the other uplink within a second; it comes back with the link."""
    node = here.lab.nodes[2]
    eventually("BFD is up on both", lambda: has_both(node) and has_its_bfd(node), PATIENCE)
    with Stopwatch() as watch, Datagrams(node.pods[0], here.outside) as stream:
        time.sleep(0.2)
        link = way_out(node)
        here.cut(link)
        eventually("its packets go by the other link", lambda: way_out(node) != link, PATIENCE)
        eventually("the spine goes by the other", lambda: len(ways(here)) == 1, PATIENCE)
        back = stream.back
        eventually("packets arrive", lambda: stream.back > back + RATE)
    assert 0 < stream.lost < RATE * (MOVED + watch.withheld), stream.losses()
    here.mend()
    eventually("it has two ways", lambda: has_both(node), PATIENCE)
    eventually("the spine has two", lambda: len(ways(here)) == 2, PATIENCE)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hangs"])
def test_a_bird_that_ends_below_frr_with_bfd(here: Fabric, number: signal.Signals) -> None:
    """FRR takes its end for a restart, although BFD ends with it, even where its connection does not; and when the
    agent is killed besides not a packet is lost."""
    node = here.lab.nodes[0]
    before = pid_of(socket_of(node))
    first, last, _ = (one.pods[0] for one in here.lab.nodes)
    eventually("BFD is up", lambda: has_bfd(here, node), PATIENCE)
    with Datagrams(first, last) as stream:
        os.kill(before, number)
        eventually("another BIRD has its session", lambda: are_up(socket_of(node), 1), PATIENCE)
        assert pid_of(socket_of(node)) != before
        node.stop(signal.SIGKILL)
        node.start()
        sent = stream.sent
        eventually("packets go on", lambda: stream.sent > sent + RATE)
    assert stream.lost == 0, stream.losses()
    said = node.ctl("bgp", "check")
    assert "ok    router.198.51.1.1: IPv4: both ends" in said
    assert "FRR: bfd check-control-plane-failure" in said


def test_a_router_with_another_password(here: Fabric) -> None:
    """The session ends, and is told with the router's name and what the kernel knows; then it comes back."""
    node = here.lab.nodes[0]
    here.tor1.configure("router bgp 65001", "neighbor 198.51.1.2 password other")
    eventually("it is told", lambda: "198.51.1.1" in told(node, "sessions"), PATIENCE)
    eventually("and why", lambda: "the other end has a password, this one none" in told(node, "sessions"), PATIENCE)
    here.tor1.configure("router bgp 65001", "no neighbor 198.51.1.2 password")
    eventually("it is back", lambda: are_up(socket_of(node), 1), PATIENCE)
