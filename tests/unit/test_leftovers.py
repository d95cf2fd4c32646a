"""Links that earlier requests or processes left behind."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from agent.keep.limiter import Limiter
from agent.keep.podlinks import PodLinks
from agent.node.node import Node
from agent.tell.metrics import Metrics
from backends.podlink import link_name
from cni.errors import KernelRefused, TryAgain
from cni.spec import Attachment
from dataplane.diff import diff
from dataplane.items import HOST, Item, Key, Route, plan
from dataplane.links import Veth
from tests.fakes.world import World

POD, LOST, NETNS = Attachment("pods", "c1", "eth0"), Attachment("pods", "c2", "eth1"), "/run/netns/a"
LEFT = Key(HOST, "link", link_name(LOST))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A node with a pod, and the link of another attachment, in the same namespace, that has no lease."""
    made = World(tmp_path)
    made.kernel.add_netns(NETNS)
    record = made.add(POD, NETNS)
    wiring = made.node.wiring
    assert wiring is not None
    left = replace(record, lease=replace(record.lease, who=LOST))
    veths = [item for item in wiring.pod(left).values() if isinstance(item, Veth)]
    made.kernel.apply(diff({}, {item.key: item for item in veths}))
    yield made
    made.close()


def test_a_link_without_a_lease_is_removed_and_told(world: World) -> None:
    """It says whose it is, and that attachment has none."""
    assert LEFT in world.kernel.ours()
    world.reconcile()
    assert LEFT not in world.kernel.ours()
    assert world.problems() == []
    assert any(one.text.startswith("removed what belongs to no lease: ") for one in world.repair.diary.entries)


def test_one_that_cannot_be_removed_is_told_until_it_can(world: World) -> None:
    """And keeps nothing else from being mended."""
    refused = KernelRefused("the kernel refused: - link", "Operation not permitted (EPERM)", errno.EPERM)
    world.kernel.fail_at(1, refused)
    world.reconcile()
    assert [str(one) for one in world.repair.diary.failing.values()] == [str(refused)]
    world.reconcile()
    assert dict(world.repair.diary.failing) == {}
    assert LEFT not in world.kernel.ours()


def test_an_add_that_finds_its_own_link_left_over_replaces_it(world: World) -> None:
    """Its other end is not where the pod is: something went wrong long ago."""
    elsewhere = "/run/netns/b"
    world.kernel.add_netns(elsewhere)
    world.add(LOST, elsewhere)
    world.reconcile()
    assert world.problems() == []


def test_a_check_before_the_wiring_is_known(world: World) -> None:
    """It is to be tried again: nothing is known of how it should be."""
    node = Node(world.node.ledger, world.kernel, Metrics(CollectorRegistry()))
    with pytest.raises(TryAgain, match="the agent is starting"):
        node.check(POD, NETNS, "", 0)


def on_host(world: World) -> dict[Key, Item]:
    """What a look at the host finds."""
    return {key: item for key, item in world.kernel.ours().items() if key.place == HOST}


def links(world: World, node: Node) -> PodLinks:
    return PodLinks(node, world.kernel, world.repair.diary, Limiter(10, 60.0, 5.0), lambda: world.now, float)


def test_one_that_is_an_attachments_again_stays(world: World) -> None:
    """Its ADD came between the look at the leases and the removal."""
    links(world, world.node).among(on_host(world), {})
    assert link_name(POD) in {key.name for key in on_host(world)}
    assert LEFT not in on_host(world)
    world.reconcile()
    assert world.problems() == []


def test_one_that_went_during_the_look_is_left_alone(world: World) -> None:
    """Something still names it, and that goes with it."""
    seen = {**on_host(world), **plan(Route(HOST, "10.1.1.99/32", link_name(LOST)))}
    del seen[LEFT]
    links(world, world.node).among(seen, world.node.ledger.records())
    assert LEFT in on_host(world)
    assert dict(world.repair.diary.failing) == {}


def test_nothing_is_compared_before_the_wiring_is_known(world: World) -> None:
    """Nor removed."""
    node = Node(world.node.ledger, world.kernel, Metrics(CollectorRegistry()))
    links(world, node).among(on_host(world), world.node.ledger.records())
    assert LEFT in on_host(world)
