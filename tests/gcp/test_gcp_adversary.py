"""The fabric of ``gcp-alias`` against all unkindness of the emulated Compute Engine at once, and strangers beside."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import replace

import pytest

from backends.gcp.options import AliasOptions
from ipam.warmpool import Targets
from tests.fakes.kernel import Killed
from tests.fakes.living import Clock, together
from tests.gcp.node import AGENT, AliasNode
from tests.gcp.project import Project
from tests.gcp.ranges import Exhausted
from tests.gcp.strangers import Hands
from tests.gcp.unkindness import KIND, worst

REST = 1800.0
"""Seconds after which everything that is under way has ended, and what is spare was given back."""
OPTIONS = AliasOptions(range="pods", warm=Targets(delay=60.0, largest_size=256))


SLOW = {"running": (0.0, 120.0), "get_lag": (0.0, 50.0)}
"""Operations that take minutes, and answers that are nearly a minute old."""


class Watched(AliasNode):
    """Looks after every step whether anything of somebody else's, one of *foreign*, was taken away."""

    def __init__(self, project: Project, clock: Clock, instance: str, seed: int = 0) -> None:
        super().__init__(project, clock, instance, OPTIONS, seed)
        self.foreign = set(project.truth(instance))
        self._judged = len(project.log)

    def check(self) -> None:
        super().check()
        for change in self.project.log[self._judged :]:
            if change.instance == self.instance and change.who == AGENT:
                assert not self.foreign.intersection(change.lost), change
        self._judged = len(self.project.log)


class Walk:
    """Two nodes of a project whose unkindness is of *seed*; some switches are otherwise."""

    def __init__(self, seed: int, **switches: object) -> None:
        self.chance = random.Random(seed)
        self.clock = Clock()
        self.project = Project(self.clock, replace(worst(seed), **switches))  # type: ignore[arg-type]
        self.project.add_subnetwork("nodes", "10.0.0.0/20", pods="10.1.0.0/21")
        self.hands = Hands(self.project)
        self.nodes = []
        for number, name in enumerate(("node-a", "node-b")):
            self.project.run_instance(name, "nodes", [("/32", "")])
            self.nodes.append(Watched(self.project, self.clock, name, seed * 2 + number))

    def run(self, seconds: float) -> None:
        """Time passes for both; whose process dies has another one."""
        end = self.clock.now + seconds
        while self.clock.now < end:
            try:
                together(self.nodes, end - self.clock.now, self.clock)
            except Killed:
                for node in self.nodes:
                    if node.blows.is_dead:
                        node.crash()
        for node in self.nodes:
            with suppress(Killed):
                node.offer()

    def step(self) -> None:
        """Something happens."""
        node, roll = self.chance.choice(self.nodes), self.chance.random()
        if roll < 0.35:
            node.add(self.chance.randrange(1, 60))
        elif roll < 0.65:
            node.delete(self.chance.randrange(1, 60))
        elif roll < 0.7:
            node.delete(len(node.pods))
        elif roll < 0.8:
            node.blows.nth = node.blows.count + self.chance.randrange(1, 6)
            node.blows.is_after = self.chance.random() < 0.5
        elif roll < 0.85:
            node.crash()
        elif roll < 0.9:
            with suppress(Exhausted):
                node.foreign.add(self.hands.add(node.instance, 32))
        elif roll < 0.95:
            self.hands.touch(node.instance)
        else:
            kind = self.chance.choice(["throttle", "error500", "lost_before", "lost_after", "html502_after", "half"])
            self.project.fail("*", self.chance.randrange(1, 4), kind)
        self.run(self.chance.random() * self.chance.choice((2, 20, 120)))


@pytest.mark.parametrize("switches", [{}, SLOW], ids=["worst", "slow"])
@pytest.mark.parametrize("seed", [0, 1, 2, 5, 7, 9])
def test_no_pod_loses_its_address_and_all_comes_to_rest(seed: int, switches: dict[str, object]) -> None:
    """Whatever fails, dies, lags or is changed by others beside: by our own hand no address of a pod goes, nothing of
    somebody else's, and no pod has an address that the machine has not. When Google is kind again, all is well."""
    walk = Walk(seed, **switches)
    for _ in range(60):
        walk.step()
        for node in walk.nodes:
            assert node.unserved() == set()
    walk.project.set_unkind(KIND)
    walk.project.faults.clear()
    for node in walk.nodes:
        node.blows.nth = 0
    walk.run(REST)
    for node in walk.nodes:
        well(node)
        spare = sum(block.size for block in node.fabric.holding.blocks) - len(node.pods)
        assert spare <= 2 * 256, (spare, node.fabric.holding.blocks)


def well(node: Watched) -> None:
    """All is as it must be when nothing is under way."""
    assert node.differences() == []
    assert node.fabric.holding.intents == ()
    assert node.unserved() == set()
    assert not node.parked


def lone(**switches: object) -> Watched:
    """A node of a project that is kind but for that."""
    clock = Clock()
    project = Project(clock, replace(KIND, **switches))  # type: ignore[arg-type]
    project.operations.running = 2.0
    project.add_subnetwork("nodes", "10.0.0.0/20", pods="10.1.0.0/21")
    project.run_instance("node-a", "nodes")
    return Watched(project, clock, "node-a")


def test_what_an_operation_did_before_it_failed_is_looked_up() -> None:
    """An internal error does not say whether it was done: ranges that went are not offered again, those that came
    are used."""
    node = lone(failing_done=1.0)
    node.run(30)
    node.add(60)
    node.run(30)
    assert len(node.pods) == 60
    node.delete(60)
    while not any(change.lost for change in node.project.log):
        node.run(2)
    for _ in range(20):
        node.add(5)
        node.run(5)
        assert node.unserved() == set()
    node.run(REST)
    well(node)
    assert len(node.pods) == 100


def test_an_operation_that_failed_and_did_nothing_is_told_and_tried_again() -> None:
    """Not all the time; pods wait for it meanwhile, and what was to go is offered again."""
    node = lone(failing_inside=1.0)
    node.add(10)
    node.run(200)
    assert any("INTERNAL_ERROR" in one for one in node.fabric.report().obstacles)
    assert node.project.calls["instances.updateNetworkInterface", ""] < 10
    node.project.set_unkind(KIND)
    node.add(90)
    node.run(REST)
    assert len(node.pods) == 100
    node.project.become(failing_inside=1.0)
    node.delete(100)
    before = node.project.truth("node-a")
    node.run(REST)
    node.add(100)
    node.run(120)
    assert len(node.pods) == 100
    assert node.project.truth("node-a") == before


def test_a_limit_that_nobody_told_is_found_by_asking_for_fewer() -> None:
    """An older project allows fewer ranges than are configured: as many as there can be are taken, and status says what
    Google says."""
    node = lone()
    node.project.most_ranges = 6
    node.add(200)
    node.run(REST)
    assert len(node.project.truth("node-a")) == 6
    assert len(node.pods) == 6 * 16
    assert any("limit 6" in one for one in node.fabric.report().obstacles)


def test_what_others_did_is_found_though_the_first_answers_are_of_before() -> None:
    """The metadata shows it sooner than the API: that is asked again, and not for ever."""
    node = lone()
    node.run(400)
    node.project.become(get_lag=(100.0, 100.0))
    new = Hands(node.project).add("node-a", 28, "pods")
    node.run(400)
    assert new in node.fabric.holding.ranges
    node.project.become(get_lag=(100_000.0, 100_000.0))
    Hands(node.project).add("node-a", 32)
    asked = node.project.calls["instances.get", ""]
    node.run(REST)
    assert node.project.calls["instances.get", ""] - asked < 8


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        ("denied", "deploy/gcp-alias-role.yaml"),
        ("narrow", "access scope cloud-platform"),
        ("disabled", "enable compute.googleapis.com"),
        ("unauthenticated", "the VM's service account"),
    ],
)
def test_whoever_must_act_is_told_what_to_do(kind: str, remedy: str) -> None:
    """A missing permission, a machine's access scopes, an API that is off, and credentials are four things."""
    node = lone()
    for nth in range(1, 40):
        node.project.fail("instances.get", nth, kind)
    node.add()
    node.run(20)
    (obstacle,) = node.fabric.report().obstacles
    assert remedy in obstacle
