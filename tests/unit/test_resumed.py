"""An ADD of what was added already, and whose runtime may never have had the answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import pytest
from netaddr import IPAddress

from agent.node.ledger import Asked
from cni.errors import InterfaceExists
from cni.spec import Attachment
from dataplane.items import MAIN, Item, Route
from dataplane.links import Port
from tests.fakes.world import World, lived_in

WHO = Attachment("pods", "c1", "eth0")
NETNS = "/run/netns/a"
WANTED = IPAddress("10.1.1.7")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A node that was started anew after an ADD."""
    with lived_in(tmp_path, WHO, NETNS) as made:
        made.restart()
        yield made


def macs(world: World) -> list[str]:
    """The hardware addresses of pods' ends, as the kernel has them."""
    return [item.mac for item in world.kernel.ours().values() if isinstance(item, Port)]


def test_what_it_asks_for_now_counts(world: World) -> None:
    """Another address and another hardware address than the ADD before it got."""
    before = world.node.ledger.records()[WHO]
    record = world.node.add(WHO, Asked(NETNS, (WANTED,), "0a:58:01:02:03:04"))
    assert WANTED in record.lease.addresses
    assert WANTED not in before.lease.addresses
    assert record.mac == "0a:58:01:02:03:04"
    assert macs(world) == ["0a:58:01:02:03:04"]
    assert world.problems() == []


def test_another_hardware_address_alone_leaves_the_lease(world: World) -> None:
    """The link is made anew, and the journal knows."""
    before = world.node.ledger.records()[WHO]
    record = world.node.add(WHO, Asked(NETNS, before.lease.addresses, "0a:58:01:02:03:04"))
    assert record.lease == before.lease
    assert macs(world) == ["0a:58:01:02:03:04"]
    assert world.problems() == []
    world.restart()
    assert world.node.ledger.records()[WHO].mac == "0a:58:01:02:03:04"


def test_one_that_asks_for_no_default_route_now_has_none(world: World) -> None:
    """Nor does one beside another network's; with the lease that it had."""
    before = world.node.ledger.records()[WHO]
    record = world.node.add(WHO, Asked(NETNS, beside=frozenset((4,))))
    assert (record.lease, record.beside) == (before.lease, (4,))
    assert [item.dst for item in world.kernel.ours().values() if is_default(item)] == ["::/0"]
    assert world.problems() == []
    world.restart()
    assert world.node.ledger.records()[WHO].beside == (4,)
    assert world.node.add(WHO, Asked(NETNS)).beside == ()
    assert [item.dst for item in world.kernel.ours().values() if is_default(item)] == ["0.0.0.0/0", "::/0"]
    assert world.problems() == []


def is_default(item: Item) -> TypeGuard[Route]:
    """Whether it is a default route of a pod's."""
    return isinstance(item, Route) and item.place == NETNS and item.dst.endswith("/0") and item.table == MAIN


def test_one_that_asks_for_nothing_gets_what_there_is(world: World) -> None:
    """The same result as the first time, and no change."""
    before = world.node.ledger.records()[WHO]
    assert world.node.add(WHO, Asked(NETNS)) == before


def test_one_that_was_answered_is_refused_whatever_it_asks_for(world: World) -> None:
    """DEL comes before another ADD."""
    world.node.ledger.answered(WHO)
    with pytest.raises(InterfaceExists):
        world.node.add(WHO, Asked(NETNS, (WANTED,)))
