"""What a pass does before what, and what it leaves alone because something else could not be done."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from agent.keep.limiter import AGAIN, BURST
from backends import nodeplan
from cni.errors import KernelRefused
from cni.spec import Attachment
from dataplane.diff import Change, apply, diff, standing
from dataplane.items import HOST, POD_GROUP, Addr, Item, Key, Nexthop, NftTable, Route, Sysctl, needs, nexthop_key, plan
from dataplane.links import VXLAN_LINK, Port, Veth, Vxlan
from dataplane.observe import Settings
from tests.fakes.kernel import FakeKernel
from tests.fakes.world import HERE, OTHER, THIRD, World

NETNS = "/run/netns/a"


def test_older_links_are_put_into_the_group_before_the_table_is_written(tmp_path: Path) -> None:
    """Or their pods' sources would be checked by neither the old rules nor the new ones for a while."""
    world = World(tmp_path)
    world.kernel.add_netns(NETNS)
    world.add(Attachment("pods", "c1", "eth0"), NETNS)
    (link,) = [item for item in world.kernel.ours().values() if isinstance(item, Veth)]
    table = next(item for item in world.kernel.ours().values() if isinstance(item, NftTable))
    world.kernel.drift(link.key, replace(link, group=0))
    world.kernel.drift(table.key, table._replace(text="an older one"))
    seen: list[tuple[int, str]] = []

    def look() -> None:
        now = world.kernel.ours()
        veth, nft = now[link.key], now[table.key]
        assert isinstance(veth, Veth)
        assert isinstance(nft, NftTable)
        seen.append((veth.group, nft.text))

    world.kernel.between = look
    world.restart()
    look()
    assert (0, table.text) not in seen
    assert seen[-1] == (POD_GROUP, table.text)
    world.close()


def test_one_that_is_refused_keeps_no_other_from_being_made_or_told_wrongly(tmp_path: Path) -> None:
    """A foreign route in the way is named, and nothing else; the rest is there."""
    world = World(tmp_path, nodes=(HERE, OTHER, THIRD))
    cidr = str(OTHER.pod_cidrs[0])
    world.kernel.drift(Key(HOST, "route", cidr), None)
    world.kernel.add_foreign(Route(HOST, cidr, "eth0"))
    world.kernel.drift(Key(HOST, "route", str(THIRD.pod_cidrs[0])), None)
    world.reconcile()
    assert list(world.repair.diary.failing) == [f"route {cidr} nhid {nodeplan.nexthop_id(OTHER.name, 4)}"]
    assert Key(HOST, "route", str(THIRD.pod_cidrs[0])) in world.kernel.ours()
    world.close()


def test_what_was_refused_of_a_node_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    """Clusters that grow and shrink have new nodes without end."""
    world = World(tmp_path, nodes=(HERE, OTHER, THIRD))
    cidr = str(OTHER.pod_cidrs[0])
    world.kernel.drift(Key(HOST, "route", cidr), None)
    world.kernel.add_foreign(Route(HOST, cidr, "eth0"))
    world.reconcile()
    assert (world.repair.is_refused, len(world.repair._refused)) == (True, 1)
    world.nodes.set(HERE, THIRD)
    world.reconcile()
    assert (world.repair.is_refused, len(world.repair._refused)) == (False, 0)
    world.close()


def test_a_taken_nexthop_id_is_given_way_to_and_kept_through_a_restart(tmp_path: Path) -> None:
    """No route of ours leads through another's object, and a restart takes the peer's routes away for no moment."""
    world = World(tmp_path, nodes=(HERE, OTHER, THIRD))
    number = nodeplan.nexthop_id(OTHER.name, 4)
    route = Key(HOST, "route", str(OTHER.pod_cidrs[0]))
    world.kernel.drift(route, None)
    world.kernel.drift(nexthop_key(number), None)
    world.kernel.add_foreign(Nexthop(number, "192.0.2.99", "eth0"))
    world.reconcile()
    assert route not in world.kernel.ours()
    world.reconcile()
    chosen = world.kernel.ours()[route]
    assert isinstance(chosen, Route)
    assert chosen.nhid == number + 1

    def look() -> None:
        assert world.kernel.ours()[route] == chosen

    world.kernel.between = look
    world.restart()
    world.reconcile()
    world.nodes.set(HERE, OTHER)
    world.reconcile()
    look()
    assert world.problems() == []
    world.close()


def test_nothing_hangs_on_a_strangers_link_however_often_ours_was_refused(tmp_path: Path) -> None:
    """When it is not even tried any more for a while, a peer that comes then waits for it, too."""
    world = World(tmp_path, nodes=(HERE,))
    stranger = Vxlan(VXLAN_LINK, 7, 4790, "192.0.2.1", "0a:00:00:00:00:02", 1450, alias="")
    world.kernel.add_foreign(stranger)
    world.switch.ask("vxlan", world.survey.now, is_dry=False, is_forced=True)
    world.switch.advance()
    tried = 0
    for _ in range(BURST + 1):
        before = world.kernel.calls
        world.reconcile()
        tried += world.kernel.calls > before
    assert 0 < tried < BURST
    world.nodes.set(HERE, OTHER)
    world.reconcile()
    assert [item for item in world.kernel.ours().values() if item.link == VXLAN_LINK] == []
    world.kernel.remove_foreign(stranger.key)
    world.now += AGAIN
    world.reconcile()
    assert world.problems() == []
    world.close()


def test_a_link_that_comes_late_has_its_settings_at_once(tmp_path: Path) -> None:
    """However long it was away, so that the passes of each second found none of them."""
    world = World(tmp_path)
    world.configured = "vxlan"
    world.restart()
    overlay = next(item for item in world.kernel.ours().values() if isinstance(item, Vxlan))
    assert world.survey.now is not None
    every = world.survey.now.wired.plan.values()
    wanted = [one for one in every if isinstance(one, Sysctl) and one.link == overlay.name]
    settings = Settings(tuple(one.path for one in wanted))
    assert world.kernel.observe([settings]) == plan(*wanted)
    world.kernel.drift(overlay.key, None)
    assert world.kernel.observe([settings]) == {}
    for _ in range(2 * BURST):
        world.now += 1.0
        world.repair.quick()
    world.reconcile()
    assert world.kernel.observe([settings]) == plan(*wanted)
    assert world.repair.diary.failing == {}
    world.close()


def test_what_was_refused_for_long_comes_soon_after_the_reason_went(tmp_path: Path) -> None:
    """Not a minute later, as what others undo: nobody undid it, though every event had it tried."""
    world = World(tmp_path, nodes=(HERE, OTHER, THIRD))
    cidr = str(OTHER.pod_cidrs[0])
    key = Key(HOST, "route", cidr)
    world.kernel.drift(key, None)
    world.kernel.add_foreign(Route(HOST, cidr, "eth0"))
    for _ in range(2 * BURST):
        world.now += 0.1
        world.reconcile()
    assert "the kernel refused" in "".join(map(str, world.repair.diary.failing.values()))
    soon = [world.repair.is_refused]
    world.kernel.remove_foreign(key)
    world.now += AGAIN
    world.reconcile()
    assert key in world.kernel.ours()
    soon.append(world.repair.is_refused)
    assert soon == [True, False]  # whether the next pass comes soon
    assert world.repair.diary.failing == {}
    world.reconcile()
    assert world.problems() == []
    world.close()


def test_what_hangs_on_a_link_comes_with_it(tmp_path: Path) -> None:
    """However long another's link stood in its place: the overlay's device came without its address."""
    world = World(tmp_path)
    world.configured = "vxlan"
    world.restart()
    before = world.kernel.ours()
    overlay = next(item for item in before.values() if isinstance(item, Vxlan))
    world.kernel.drift(overlay.key, None)
    world.kernel.add_foreign(Port(HOST, overlay.name, 1500, "0a:00:00:00:00:01"))
    for _ in range(2 * BURST):
        world.now += 0.1
        world.reconcile()
    world.kernel.remove_foreign(overlay.key)
    world.now += AGAIN
    world.reconcile()
    assert world.kernel.ours() == before
    assert world.repair.diary.failing == {}
    world.close()


def test_a_pod_that_is_refused_for_long_comes_soon_after_the_reason_went(tmp_path: Path) -> None:
    """It says all the while what the kernel refused, and not that somebody fought over it."""
    world = World(tmp_path)
    world.kernel.add_netns(NETNS)
    who = Attachment("pods", "c1", "eth0")
    world.add(who, NETNS)
    (link,) = [item for item in world.kernel.ours().values() if isinstance(item, Veth)]
    world.kernel.drift(link.key, None)
    port = Port(NETNS, "eth0", 1500, "0a:58:00:00:00:01")
    world.kernel.add_foreign(port)
    for _ in range(2 * BURST):
        world.now += 0.1
        world.reconcile()
        assert "the kernel refused" in str(world.repair.diary.failing[f"pod {who}"])
    world.kernel.remove_foreign(port.key)
    world.now += AGAIN
    world.reconcile()
    assert link.key in world.kernel.ours()
    assert world.repair.diary.failing == {}
    world.close()


def test_a_pod_that_is_fought_over_is_told_as_a_pod_and_only_while_it_is_there(tmp_path: Path) -> None:
    """One that somebody breaks over and over: it is no object of the node's, and its end is the end of that."""
    world = World(tmp_path)
    world.kernel.add_netns(NETNS)
    who = Attachment("pods", "c1", "eth0")
    world.add(who, NETNS)
    (link,) = [item for item in world.kernel.ours().values() if isinstance(item, Veth)]
    for _ in range(BURST + 1):
        world.now += 1.0
        world.kernel.drift(link.key, replace(link, mtu=1000))
        world.reconcile()
    assert list(world.repair.diary.failing) == [f"pod {who}"]
    assert "is fought over" in str(world.repair.diary.failing[f"pod {who}"])
    world.node.delete(who)
    world.reconcile()
    assert world.repair.diary.failing == {}
    world.close()


ITEMS: Sequence[Item] = (
    Veth("rt0123456789a", "routable a b c", 1500, "ee:ee:ee:ee:ee:ee"),
    Sysctl(HOST, "net/ipv4/conf/rt0123456789a/rp_filter", "2"),
    Addr(HOST, "rt0123456789a", "10.0.0.1/32"),
    Nexthop(1 << 30, "192.0.2.1", "eth0"),
    Nexthop((1 << 30) + 1, "192.0.2.2", "eth0"),
    Route(HOST, "10.0.0.2/32", "rt0123456789a"),
    Route(HOST, "10.1.0.0/24", nhid=1 << 30),
    Route(HOST, "10.1.0.0/24", nhid=(1 << 30) + 1),
    Port("/run/netns/a", "eth0", 1500, "0a:58:00:00:00:01"),
)


KEYS = {item.key for item in ITEMS}
PLANS = st.lists(st.sampled_from(ITEMS), unique_by=lambda item: item.key).filter(
    lambda items: all(key in plan(*items) for item in items for key in needs(item) if key in KEYS)
)


@given(have=PLANS, want=PLANS, refused=st.sets(st.integers(0, 10)))
def test_nothing_stands_on_what_is_not_there(have: list[Item], want: list[Item], refused: set[int]) -> None:
    """Whatever is refused: what could not be made has nothing on it, and what is gone had nothing on it any more."""
    asked = iter(range(100))
    state = plan(*have)
    for change in standing(diff(state, plan(*want)), lambda change: next(asked) not in refused):
        state = apply(state, [change])
        for item in state.values():
            assert all(key in state for key in needs(item) if key in KEYS)


def test_the_fake_lets_no_route_lead_through_anothers_object() -> None:
    """As the real one, which looks before it asks the kernel."""
    fake = FakeKernel()
    fake.add_foreign(Nexthop(1 << 30, "192.0.2.1", "eth0"))
    try:
        fake.apply([Change(None, Route(HOST, "10.1.0.0/24", nhid=1 << 30))])
    except KernelRefused as error:
        assert error.errno == errno.EEXIST
    else:
        raise AssertionError("it was made")


def test_a_bug_that_one_pod_brings_out_stays_that_pods(tmp_path: Path) -> None:
    """It is told, the other pods are mended in the same pass, and the process does not end over it again and again."""
    world = World(tmp_path)
    for name in ("a", "b"):
        world.kernel.add_netns(f"/run/netns/{name}")
        record = world.add(Attachment("pods", name, "eth0"), f"/run/netns/{name}")
        world.kernel.drift(Key(HOST, "route", f"{record.lease.addresses[0]}/32"), None)
    world.kernel.fail_at(1, ZeroDivisionError("a bug"))
    world.repair.whole()
    assert world.kernel.consumed
    assert [str(failure) for failure in world.repair.diary.failing.values()] == [
        "the agent has a bug: ZeroDivisionError: a bug; the agent's log has the traceback; please report it"
    ]
    assert len([text for text in world.problems() if text.startswith("missing")]) == 1
    world.reconcile()
    assert world.problems() == []
    assert not world.repair.diary.failing
    world.close()
