"""Nodes change to backend bgp and from it under running pods: nothing is lost, whoever has changed and whoever not."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from agent.commands import NOT_READY
from demo.lab import Lab, Node, eventually
from demo.speaking import mesh, socket_of
from demo.stream import Datagrams

PATIENCE = 120.0


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two dual-stack nodes with a pod each, which could speak BGP, at rest with static before each test."""
    with mesh("dual", 2, backend="static") as lab:
        for node in lab.nodes:
            node.add()
            node.add()
        yield lab


@contextmanager
def flowing(lab: Lab) -> Iterator[None]:
    """A thousand datagrams a second both ways between every two pods, small and large, in both families: none is
    lost."""
    pods = [pod for node in lab.nodes for pod in node.pods]
    sizes = itertools.cycle([(4, 1400), (6, 1300), (4, 100)])
    with ExitStack() as running:
        streams = [
            running.enter_context(Datagrams(sender, receiver, family, size))
            for (sender, receiver), (family, size) in zip(itertools.combinations(pods, 2), sizes, strict=False)
        ]
        yield
    assert [stream.losses() for stream in streams if stream.lost] == []
    assert all(stream.sent > 1000 for stream in streams)


def switched(node: Node, backend: str) -> None:
    """It is on its way there."""
    begun = node.ctl_begun("switch", backend)
    _, complaint = begun.communicate()
    assert begun.returncode in (0, NOT_READY), complaint


def is_at(node: Node, backend: str) -> bool:
    """Whether it has arrived."""
    status = node.status()
    return (status["switch"]["phase"], status["backend"]) == ("at rest", backend)


def learned(node: Node) -> list[str]:
    """The routes of BIRD's in the kernel, in all tables."""
    shown = (node.place.ip(f"-{family} route show table all proto 12") for family in (4, 6))
    return [line for text in shown for line in text.splitlines()]


def test_one_that_speaks_alone_stays_where_it_was(lab: Lab) -> None:
    """Nobody announces anything to it: it says whom it waits for, and turns round."""
    node = lab.nodes[0]
    with flowing(lab):
        switched(node, "bgp")
        assert set(node.status()["switch"]["waiting"]) == {"node-b"}
        switched(node, "static")
        eventually("it has turned round", lambda: is_at(node, "static"), PATIENCE)


def test_there_and_back_by_all_ways(lab: Lab) -> None:
    """From static to bgp, to vxlan, to bgp, and to static. A node that has left bgp goes on announcing its pods as long
    as another is reached so, also after a restart; in the end nothing of BIRD is left."""
    first, last = lab.nodes
    eventually("BIRD has ended", lambda: not socket_of(first).exists(), PATIENCE)
    before = [node.place.ip("route show table all") + node.place.ip("rule show") for node in lab.nodes]
    with flowing(lab):
        for backend in ("bgp", "vxlan", "bgp"):
            for node in lab.nodes:
                switched(node, backend)
            for node in lab.nodes:
                eventually(f"{node.name} is at {backend}", lambda node=node, to=backend: is_at(node, to), PATIENCE)
        switched(first, "static")
        eventually("the first is at static", lambda: is_at(first, "static"), PATIENCE)
        first.stop()
        first.start()
        eventually("status says so", lambda: first.status().get("bgp", {}).get("leaving"), PATIENCE)
        assert "BIRD goes on for nodes that are reached by BGP still" in first.ctl("status")
        assert any("10.244.1.0/24" in line for line in learned(last))
        switched(last, "static")
        for node in lab.nodes:
            eventually(f"{node.name} is at static", lambda node=node: is_at(node, "static"), PATIENCE)
            eventually(f"BIRD of {node.name} has ended", lambda node=node: not socket_of(node).exists(), PATIENCE)
    for node in lab.nodes:
        eventually(f"{node.name} has no route of BIRD's", lambda node=node: not learned(node))
    assert [node.place.ip("route show table all") + node.place.ip("rule show") for node in lab.nodes] == before
