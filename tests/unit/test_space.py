"""A pod's network namespace is the one that it was added in, not whatever its path names later."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent.node.ledger import Asked
from backends.podlink import alias, link_name, parse_alias, place
from cni.errors import Drifted, InterfaceExists
from cni.spec import Attachment, Identity
from dataplane.items import HOST, Item, Key, Space
from ipam.store import Record
from tests.fakes.world import World

POD = Attachment("pods", "a", "eth0")
LINK = Key(HOST, "link", link_name(POD))
NETNS = "/run/netns/a"
LONG = "/run/netns/" + "n" * 240


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    for path in (NETNS, LONG):
        world.kernel.add_netns(path)
    return world


def inside(world: World, path: str) -> list[Item]:
    return [item for key, item in world.kernel.ours().items() if key.place == path]


def forget(world: World) -> Record:
    """What an earlier agent knew of a pod: its path."""
    (record,) = world.node.ledger.records().values()
    forgotten = replace(record, space=None)
    world.node.ledger.replace(forgotten)
    return forgotten


def test_no_path_is_the_hosts() -> None:
    """Nor is none: what is to be in an unknown place can never come to be on the node itself."""
    for path in ("", "host", "Here.HOST", Space("", Identity(0, 0, 0))):
        assert Key(HOST, "link", "eth0") != Key(path, "link", "eth0")


def test_a_new_namespace_under_an_old_path_is_another(world: World) -> None:
    """It may even have the same inode: the dead pod's lease ends, and nothing of it comes to be in the new one."""
    old = world.add(POD, NETNS)
    world.kernel.remove_netns(NETNS)
    world.kernel.add_netns(NETNS)
    new = world.kernel.identity(NETNS)
    assert old.space is not None
    assert new is not None
    assert new != old.space
    assert new[:2] == old.space[:2]
    world.reconcile()
    assert inside(world, NETNS) == []
    assert world.node.ledger.records() == {}
    assert world.problems() == []


def test_an_add_in_a_new_namespace_is_a_new_one(world: World) -> None:
    """Of the same attachment, whose DEL never came, too."""
    old = world.add(POD, NETNS)
    world.kernel.remove_netns(NETNS)
    world.kernel.add_netns(NETNS)
    new = world.add(POD, NETNS)
    assert new.space != old.space
    world.reconcile()
    assert world.problems() == []


def test_a_link_that_was_removed_is_made_again_in_the_pods_own_namespace(world: World) -> None:
    """What tells the namespace from others is kept, over a restart, too."""
    world.add(POD, NETNS)
    world.restart()
    world.kernel.drift(LINK, None)
    world.reconcile()
    assert world.problems() == []
    assert inside(world, NETNS)


def test_where_the_kernel_has_no_cookies_a_pod_without_its_link_is_gone(world: World) -> None:
    """Before Linux 5.14 nothing tells its namespace from the next one of that inode, so nothing is made there."""
    world.kernel.has_cookies = False
    world.add(POD, NETNS)
    world.reconcile()
    assert world.problems() == []
    world.kernel.drift(LINK, None)
    world.reconcile()
    assert world.node.ledger.records() == {}
    assert inside(world, NETNS) == []


def test_what_an_earlier_agent_knew_is_completed_by_the_pods_link(world: World) -> None:
    """It leads to the namespace that is at the path, so that is the pod's."""
    before = world.add(POD, NETNS)
    forget(world)
    world.reconcile()
    assert world.node.ledger.records() == {POD: before}
    assert world.problems() == []


@pytest.mark.parametrize("does_check", [False, True])
def test_a_path_to_where_the_link_does_not_lead_is_not_the_pods(world: World, does_check: bool) -> None:
    """Nothing is done there; the host's part is kept as it should be, for the pod lives elsewhere."""
    world.add(POD, NETNS)
    wrong = replace(forget(world), netns=LONG)
    world.node.ledger.replace(wrong)
    world.kernel.drift(Key(HOST, "route", f"{wrong.lease.addresses[0]}/32"), None)
    world.reconcile()
    assert inside(world, LONG) == []
    assert Key(HOST, "route", f"{wrong.lease.addresses[0]}/32") in world.kernel.ours()
    assert world.node.ledger.records()[POD].space is None
    if does_check:
        with pytest.raises(Drifted, match=f"is not in {LONG}"):
            world.node.check(POD, LONG, "", 0)
    with pytest.raises(InterfaceExists):
        world.add(POD, LONG)
    world.node.check(POD, NETNS, "", 0)
    known = world.node.ledger.records()[POD]
    assert (known.netns, known.space) == (NETNS, world.kernel.identity(NETNS))


def test_a_pod_whose_path_nobody_knows_keeps_its_address_and_the_node_gets_none(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """The journal is lost and the path was too long for the link's alias: that is told, and nothing is put into any
    place but the host's end; a CHECK, which names the path, makes it whole."""
    before = world.add(POD, LONG)
    world.lose_store()
    world.restart()
    (record,) = world.node.ledger.records().values()
    assert (record.netns, record.space, record.lease.addresses) == ("", None, before.lease.addresses)
    assert place(record) is None
    told = [vars(one) for one in caplog.records if "namespace is not known" in one.getMessage()]
    assert [one["attachment"] for one in told] == [str(POD)]
    world.reconcile()
    ours = world.kernel.ours()
    assert LINK in ours
    assert not [key for key in ours if key.place is HOST and ("eth0" in key.name or key.name.startswith("0.0.0.0"))]
    world.node.check(POD, LONG, "", 0)
    assert world.node.ledger.records()[POD].space == before.space
    world.reconcile()
    assert world.problems() == []


def test_a_lease_whose_path_nobody_knows_ends_with_its_link(world: World) -> None:
    """Then its pod is gone."""
    world.add(POD, LONG)
    world.lose_store()
    world.restart()
    world.kernel.remove_netns(LONG)
    world.reconcile()
    assert world.node.ledger.records() == {}
    assert world.problems() == []


def test_adds_together_know_their_namespaces_too(world: World) -> None:
    """And where one names none, all are served alone."""
    done = world.node.begin_addition({POD: Asked(NETNS)})()
    assert done[POD].space == world.kernel.identity(NETNS)
    assert world.node.begin_addition({Attachment("pods", "b", "eth0"): Asked("/run/netns/none")})() == {}


def test_an_alias_that_is_too_long_says_less_and_nothing_wrong() -> None:
    """First the path goes; where even the names are too long, what is left is no attachment of that link's."""
    assert parse_alias(alias(POD, LONG)) == (POD, "")
    endless = Attachment("n" * 200, "c" * 200, "eth0")
    text = alias(endless, NETNS)
    assert len(text) <= 255
    named = parse_alias(text)
    assert named is None or link_name(named.who) != link_name(endless)
