"""Two nodes that reflect routes to the others, and what becomes of pods when one of them dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from demo import show
from demo.lab import Lab, Node, eventually
from demo.speaking import are_up, mesh, pid_of, socket_of
from demo.stream import RATE, Datagrams

PATIENCE = 60.0
REFLECTORS = {"topology": "reflectors", "reflectors": ["node-a", "node-b"], "bfd": "graceful", "restart_time": 4}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two reflectors and two other nodes, which have no session with each other."""
    with mesh("v4", 4, REFLECTORS) as made:
        for node, number in zip(made.nodes, (3, 3, 2, 2), strict=True):
            node.add()
            eventually(f"{node.name} has its sessions", lambda n=node, k=number: are_up(socket_of(n), k), PATIENCE)
        for node in made.nodes:
            eventually(f"{node.name} has routes", lambda node=node: len(routes(node)) == 3, PATIENCE)
        yield made


def routes(node: Node) -> list[str]:
    """What BIRD has in the kernel of *node*: to whom, and by whom."""
    words = (line.split() for line in node.place.ip("route show proto 12").splitlines())
    return [f"{one[0]} {one[2]}" for one in words]


def test_pods_reach_each_other(lab: Lab) -> None:
    """Directly: a reflector tells of routes, and is in nobody's way."""
    for reach in show.reachability(lab, 4):
        assert not reach.fault, reach
    last = lab.nodes[3]
    assert sorted(routes(last)) == [f"10.244.{number}.0/24 192.0.2.{number}" for number in (1, 2, 3)]


def test_a_reflector_dies(lab: Lab) -> None:
    """Whole, with its link: it may be a restart, so for a while its routes stay, then its own pods are forgotten. Of
    what others send each other nothing is lost, and what they say later goes by the reflector that is left."""
    dead, left, third, last = lab.nodes
    with Datagrams(third.pods[0], last.pods[0]) as stream:
        dead.stop(signal.SIGKILL)
        os.kill(pid_of(socket_of(dead)), signal.SIGKILL)
        dead.place.ip("link set eth0 down")
        for node in (left, third, last):
            forgotten = f"{node.name} has forgotten its pods"
            eventually(forgotten, lambda node=node: "10.244.1.0/24 192.0.2.1" not in routes(node), PATIENCE)
        sent = stream.sent
        eventually("packets go on", lambda: stream.sent > sent + RATE)
    assert stream.lost == 0, stream.losses()
    third.ctl("drain")
    eventually("the last forgets it", lambda: "10.244.3.0/24 192.0.2.3" not in routes(last), PATIENCE)
    third.ctl("drain", "--undo")
    eventually("the last hears of it", lambda: "10.244.3.0/24 192.0.2.3" in routes(last), PATIENCE)
