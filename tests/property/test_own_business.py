"""What is in a pod's namespace is the pod's own business once its ADD was served; the host's side is ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.podlink import link_name
from cni.errors import Drifted, KernelRefused
from cni.spec import Attachment
from dataplane.items import HOST, Key, Route
from dataplane.links import Port
from tests.fakes.world import World

POD = Attachment("pods", "a", "eth0")
OTHER = Attachment("pods", "b", "eth0")
NETNS, OTHER_NETNS = "/run/netns/a", "/run/netns/b"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """One with two pods."""
    world = World(tmp_path)
    for who, netns in ((POD, NETNS), (OTHER, OTHER_NETNS)):
        world.kernel.add_netns(netns)
        world.add(who, netns)
    yield world
    world.close()


def inside(world: World) -> list[Key]:
    return sorted(key for key, item in world.kernel.ours().items() if key.place == NETNS and not isinstance(item, Port))


def test_what_a_sandbox_or_a_pod_takes_away_stays_away(world: World) -> None:
    """Address, neighbour, default route, each alone and all together: passes and a restart leave it so, nothing is
    counted as mended, nobody is alarmed. CHECK tells, and DEL removes the rest."""
    for key in inside(world):
        world.kernel.drift(key, None)
        for _ in range(3):
            world.now += 61
            world.reconcile()
        with pytest.raises(Drifted):
            world.node.check(POD, NETNS, "", 0)
    world.restart()
    world.reconcile()
    assert inside(world) == []
    assert world.problems(on_host=True) == []
    assert dict(world.repair.diary.counts) == {}
    assert dict(world.repair.diary.failing) == {}
    world.node.check(OTHER, OTHER_NETNS, "", 0)
    world.node.delete(POD)
    assert world.problems() == []


def test_a_default_route_of_the_pods_own_stays(world: World) -> None:
    """As a VPN's: it is neither replaced nor fought over."""
    ours = world.kernel.ours()
    key = next(key for key, item in ours.items() if key.place == NETNS and isinstance(item, Route))
    world.kernel.drift(key, None)
    vpn = Route(NETNS, key.name, "wg0")
    world.kernel.add_foreign(vpn)
    for _ in range(20):
        world.reconcile()
    world.restart()
    assert vpn in world.kernel.foreign().values()
    assert dict(world.repair.diary.failing) == {}


def test_a_pods_link_that_is_renamed_or_down_is_its_own(world: World) -> None:
    """Its end is not looked for."""
    port = world.kernel.ours()[Key(NETNS, "link", "eth0")]
    assert isinstance(port, Port)
    world.kernel.drift(port.key, Port(NETNS, "eth0", 1280, port.mac, up=False))
    world.reconcile()
    assert world.kernel.ours()[port.key] == Port(NETNS, "eth0", 1280, port.mac, up=False)
    world.kernel.drift(port.key, None)
    world.reconcile()
    assert world.problems(on_host=True) == []
    assert dict(world.repair.diary.failing) == {}


def test_the_host_follows_the_pods_hardware_address(world: World) -> None:
    """A plugin that is chained after us may change it, and the host has to send to it."""
    port = world.kernel.ours()[Key(NETNS, "link", "eth0")]
    assert isinstance(port, Port)
    world.kernel.drift(port.key, Port(NETNS, "eth0", port.mtu, "0a:58:00:00:00:42"))
    world.reconcile()
    assert world.problems() == []
    record = world.node.ledger.record(POD)
    assert record is not None
    assert record.mac == "0a:58:00:00:00:42"


def test_the_hosts_end_is_made_again_with_its_pod(world: World) -> None:
    """Who removes it takes the pod's end along; where that is gone for good, so is the lease."""
    world.kernel.drift(Key(HOST, "link", link_name(POD)), None)
    world.reconcile()
    assert world.problems() == []
    world.kernel.remove_netns(NETNS)
    world.reconcile()
    assert set(world.node.ledger.records()) == {OTHER}
    assert world.problems() == []


def test_an_interface_of_the_pods_own_in_the_links_place(world: World) -> None:
    """It is left alone, told for that pod, and asked for no more than ten times a minute; the others are mended."""
    world.kernel.drift(Key(HOST, "link", link_name(POD)), None)
    own = Port(NETNS, "eth0", 1500, "0a:00:00:00:00:07")
    world.kernel.add_foreign(own)
    world.kernel.drift(Key(HOST, "link", link_name(OTHER)), None)
    world.reconcile()
    assert list(world.repair.diary.failing) == [f"pod {POD}"]
    assert isinstance(world.repair.diary.failing[f"pod {POD}"], KernelRefused)
    assert own in world.kernel.foreign().values()
    world.node.check(OTHER, OTHER_NETNS, "", 0)
