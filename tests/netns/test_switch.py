"""The backend changes under running pods: nothing is lost, nothing breaks, whoever has switched and whoever has not."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from subprocess import Popen

import pytest

from demo.lab import Lab, Node, built, eventually
from demo.stream import Datagrams, Transfer

WAYS = [("static", "vxlan"), ("vxlan", "static")]
NOT_READY = 3
PATIENCE = 180.0
"""Seconds for what takes a few on a machine that has time; how many is no promise."""


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Three dual-stack nodes with a pod each, with the backend that the test names."""
    with built(nodes=3, backend=getattr(request, "param", "static"), family="dual") as lab:
        for node in lab.nodes:
            node.add()
        yield lab


@contextmanager
def traffic(lab: Lab) -> Iterator[None]:
    """A thousand datagrams a second both ways between every two pods, small and as large as the old way takes, in both
    families, and one long TCP transfer: none is lost, it does not break."""
    pods = [pod for _, pod in lab.pods]
    with ExitStack() as running:
        streams = [
            running.enter_context(Datagrams(sender, receiver, family, size))
            for (sender, receiver), (family, size) in zip(
                itertools.combinations(pods, 2), itertools.cycle([(4, 1472), (6, 1452), (4, 100)]), strict=False
            )
        ]
        transfer = running.enter_context(Transfer(pods[0], pods[-1]))
        yield
    assert [stream.losses() for stream in streams if stream.lost] == []
    assert all(stream.sent > 1000 for stream in streams)
    assert transfer.fault == ""
    assert transfer.sent > 1 << 20


def phase(node: Node) -> str:
    """Where the node is on its way."""
    return str(node.status()["switch"]["phase"])


def switch(node: Node, backend: str) -> str:
    """``routablectl switch``, however far it gets."""
    return ended(node.ctl_begun("switch", backend))


def ended(begun: Popen[str]) -> str:
    """What it said until its end, which is no refusal."""
    said, complaint = begun.communicate()
    assert begun.returncode in (0, NOT_READY), complaint
    return said


def rest(lab: Lab, backend: str) -> None:
    """All nodes have arrived."""
    for node in lab.nodes:
        eventually(f"{node.name} has switched", lambda node=node: phase(node) == "at rest", PATIENCE)
        assert node.status()["backend"] == backend


def test_node_after_node_there_and_back(lab: Lab) -> None:
    """Under traffic between all pods, of every size, no packet is lost and no connection breaks; addresses stay."""
    addresses = [pod.addresses for _, pod in lab.pods]
    before = lab.nodes[0].place.ip("-4 route show") + lab.nodes[0].place.ip("-6 route show")
    with traffic(lab):
        for backend in ("vxlan", "static"):
            for node in lab.nodes:
                switch(node, backend)
            rest(lab, backend)
    assert [record["addresses"] for node in lab.nodes for record in node.status()["leases"]] == addresses
    assert lab.nodes[0].place.ip("-4 route show") + lab.nodes[0].place.ip("-6 route show") == before
    assert "routable-vxlan" not in lab.nodes[0].place.ip("link show")


def test_all_nodes_at_once_there_and_back(lab: Lab) -> None:
    """The same, whoever is first: one that has arrived takes nothing away by which another still sends."""
    with traffic(lab):
        for backend in ("vxlan", "static"):
            begun = [node.ctl_begun("switch", backend) for node in lab.nodes]
            for one in begun:
                ended(one)
            rest(lab, backend)


@pytest.mark.parametrize(("lab", "wanted"), WAYS, indirect=["lab"])
def test_one_that_has_switched_and_one_that_has_not_understand_each_other(lab: Lab, wanted: str) -> None:
    """A switched node stays between the two for as long as the others have not followed: it says whom it waits for."""
    node = lab.nodes[0]
    with traffic(lab):
        said = switch(node, wanted)
        assert "Both ways stay programmed" in said
        assert phase(node) == "waiting for peers"
        assert set(node.status()["switch"]["waiting"]) == {"node-b", "node-c"}
        assert "waiting for peers" in node.ctl("status")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_an_agent_that_ends_on_the_way_goes_on(lab: Lab, number: signal.Signals) -> None:
    """The journal knows how far it was; the configuration, which still names the old one, does not turn it back."""
    first, *others = lab.nodes
    with traffic(lab):
        for node in lab.nodes:
            begun = node.ctl_begun("switch", "vxlan")
            assert begun.stdout is not None
            begun.stdout.readline()  # it is on its way
            node.stop(number)
            begun.communicate()
            node.start()
            switch(node, "vxlan")  # it may not have been heard before the end
        rest(lab, "vxlan")
        first.stop(number)
        first.start()
        assert first.status()["backend"] == "vxlan"
    assert "the configuration still says static: set backend to vxlan there" in first.ctl("status")
    first.settings["backend"] = "vxlan"
    first.stop()
    first.start()
    assert "still says" not in first.ctl("status")
    assert len(others) == 2


def test_turning_round_on_the_way(lab: Lab) -> None:
    """Who has moved comes back, peer by peer; in the end all is as it was."""
    first, second, _ = lab.nodes
    before = first.place.ip("nexthop show")
    with traffic(lab):
        switch(first, "vxlan")
        switch(second, "vxlan")
        eventually("one peer has moved", lambda: first.status()["switch"]["moved"] == 1, PATIENCE)
        switch(first, "static")
        switch(second, "static")
        rest(lab, "static")
    assert first.place.ip("nexthop show") == before


def test_a_changed_configuration_is_a_change_of_backend(lab: Lab) -> None:
    """A new process goes the same way, with the same care."""
    with traffic(lab):
        for node in lab.nodes:
            node.settings["backend"] = "vxlan"
            node.stop()
            node.start()
        rest(lab, "vxlan")


def test_a_dry_run_changes_nothing_and_says_what_would(lab: Lab) -> None:
    """Every object, and the MTU."""
    node = lab.nodes[0]
    before = [node.place.ip(words) for words in ("link show", "nexthop show", "route show")]
    said = node.ctl("switch", "vxlan", "--dry-run")
    assert "+ link routable-vxlan vxlan id 4096 local 192.0.2.1" in said
    assert "MTU of new pods 1450 instead of 1500" in said
    assert [node.place.ip(words) for words in ("link show", "nexthop show", "route show")] == before
    assert phase(node) == "at rest"


def test_what_cannot_be_had_is_refused_before_anything_is_done(lab: Lab) -> None:
    """Peers off the segment cannot be reached by static routes: named, with the reason."""
    node = lab.nodes[0]
    for one in lab.nodes:
        switch(one, "vxlan")
    rest(lab, "vxlan")
    lab.nodes[2].addresses = ["198.51.100.3"]
    lab.write_nodes()
    eventually("the list is read", lambda: "198.51.100.3" in str(node.status()["peers"]))
    begun = node.ctl_begun("switch", "static")
    _, complaint = begun.communicate()
    assert begun.returncode == 1
    assert "static cannot reach node-c: node-c (198.51.100.3) is not on-link" in complaint
    assert phase(node) == "at rest"
