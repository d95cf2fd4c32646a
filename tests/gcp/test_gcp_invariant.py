"""Whatever Google, others and death do: no address of a living pod leaves by our own hand, and in the end what the
agent knows is what there is."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from netaddr import IPNetwork

from backends.gcp.options import AliasOptions
from ipam.warmpool import Targets
from tests.fakes.kernel import Killed
from tests.fakes.living import Clock
from tests.gcp.node import AGENT, AliasNode, ranges
from tests.gcp.project import Project
from tests.gcp.strangers import Hands
from tests.gcp.unkindness import KIND, Unkind, worst

REST = 4000.0
"""Seconds after which everything has ended, all pauses, too."""


@dataclass(slots=True)
class Walk:
    """Nodes on one project, and what happens to them, drawn from *seed*."""

    seed: int
    unkind: Unkind
    has_strangers: bool = False

    def run(self, steps: int, nodes: int = 2) -> list[AliasNode]:
        """So many things happen; then it is kind, and all comes to rest."""
        draw = random.Random(self.seed)
        clock = Clock()
        project = Project(clock, self.unkind)
        project.add_subnetwork("nodes", "10.0.0.0/20", pods="10.4.0.0/22")
        hands = Hands(project)
        made = []
        for number in range(nodes):
            project.run_instance(f"node-{number + 1}", "nodes")
            chosen = AliasOptions(range="pods", warm=Targets(delay=draw.choice((5.0, 60.0)), largest_size=64))
            made.append(AliasNode(project, clock, f"node-{number + 1}", chosen, seed=self.seed + number))
        for _ in range(steps):
            self._step(draw, draw.choice(made), hands)
        project.set_unkind(KIND)
        for node in made:
            node.is_told = True
            self._living(node, REST)
        return made

    def _step(self, draw: random.Random, node: AliasNode, hands: Hands) -> None:
        what = draw.random()
        if what < 0.35:
            node.add(draw.choice((1, 3, 20, 50)))
        elif what < 0.65:
            node.delete(draw.choice((1, 5, 60)))
        elif what < 0.75:
            node.blows.nth, node.blows.is_after, node.blows.count = draw.randint(1, 6), draw.random() < 0.5, 0
        elif what < 0.8:
            node.crash()
        elif what < 0.9 and self.has_strangers:
            hands.meddle(node.instance, "pods")
        self._living(node, draw.choice((0.5, 3.0, 20.0, 90.0)))

    @staticmethod
    def _living(node: AliasNode, seconds: float) -> None:
        """So much time passes for it, however often it dies meanwhile."""
        end = node.clock.now + seconds
        while node.clock.now < end:
            try:
                node.run(end - node.clock.now)
            except Killed:
                node.crash()


def well(node: AliasNode) -> None:
    """The cloud's ledger is the agent's, and the journal is empty."""
    assert node.differences() == []
    assert node.unserved() == set()
    assert node.fabric.holding.intents == ()
    assert node.fabric.holding.doubted == frozenset()


@settings(max_examples=12, deadline=None, derandomize=True)
@given(seed=st.integers(0, 100_000))
def test_the_ledger_of_the_cloud_is_the_agents(seed: int) -> None:
    """After a random walk through everything that Google may do and every death; no other's hands."""
    for node in Walk(seed, worst(seed)).run(40):
        well(node)
        assert not node.parked
        # What a pod's address is in is the policy's: nothing is leaked.
        targets = node.options.warm
        spare = sum(block.size for block in ranges(node)) - len(node.addresses())
        assert spare <= 16 * len(node.addresses()) + targets.largest_size + targets.prefix_size


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 100_000))
def test_others_on_the_same_interface(seed: int) -> None:
    """They add, take, move and touch; what they took from under pods is told, and nothing else is missing."""
    for node in Walk(seed, worst(seed), has_strangers=True).run(40):
        truth = ranges(node)
        assert set(node.fabric.holding.ranges) == truth
        assert set(map(str, node.unserved())) == set(node.fabric.report().undelivered)
        assert node.fabric.holding.intents == ()


@pytest.mark.parametrize("seed", range(4))
def test_two_writers_on_one_interface(seed: int) -> None:
    """A second agent with a journal of its own, for other pods: neither takes away what the other's pods use while it
    does not know of them... which it cannot, so both keep to ranges of their own."""
    clock = Clock()
    project = Project(clock, Unkind(seed=seed, stale_inside=0.5, running=(0.0, 5.0)))
    project.add_subnetwork("nodes", "10.0.0.0/20", pods="10.4.0.0/22", others="10.5.0.0/22")
    project.run_instance("node-1", "nodes")
    pair = [AliasNode(project, clock, "node-1", AliasOptions(range=name), seed) for name in ("pods", "others")]
    for _ in range(30):
        for node in pair:
            node.add(7)
            node.run(9)
            node.delete(3)
    for node in pair:
        node.run(300)
        node.run(300)
        assert node.unserved() == set()
        assert not node.parked
    assert {one.who for one in project.log if one.lost} <= {AGENT}
    for node in pair:
        assert all(block in IPNetwork("10.4.0.0/22") for block in node.fabric.holding.blocks) == (node is pair[0])
