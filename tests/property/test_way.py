"""A change of backend on the fake kernel: it dies anywhere, peers fall silent, it turns round; and always ends well."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from netaddr import IPAddress, IPNetwork

from agent.switch.switch import AT_ONCE
from agent.switch.way import State, restored
from cluster.peers import Peer
from cni.errors import ConfigInvalid, StateCorrupt
from cni.spec import Attachment
from dataplane.items import Nexthop
from dataplane.links import VXLAN_LINK
from demo.lab import eventually
from ipam.store import Store
from tests.fakes.kernel import Killed
from tests.fakes.world import HERE, OTHER, THIRD, World
from tests.property.test_crash import Deadly

POD = Attachment("pods", "a", "eth0")
NETNS = "/run/netns/a"
MANY = 300


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Worlds with one pod and two peers, at rest with the static backend."""
    made: list[World] = []

    def make(wrap: Callable[[Store], Store] = lambda store: store) -> World:
        directory = tmp_path / str(len(made))
        directory.mkdir()
        one = World(directory, wrap)
        made.append(one)
        one.nodes.set(HERE, OTHER, THIRD)
        one.kernel.add_netns(NETNS)
        one.add(POD, NETNS)
        one.reconcile()
        return one

    yield make
    for one in made:
        one.close()


def ask(world: World, backend: str) -> None:
    world.switch.ask(backend, world.survey.now, is_dry=False, is_forced=False)


def there_and_back(world: World) -> None:
    for backend in ("vxlan", "static"):
        ask(world, backend)
        world.switch.advance()


def ways(world: World) -> set[str]:
    """The links that the peers are reached by."""
    return {item.dev for item in world.kernel.ours().values() if isinstance(item, Nexthop)}


def arrived(world: World, backend: str) -> None:
    assert world.problems() == []
    assert world.switch.progress()["phase"] == "at rest"
    assert world.switch.backend == backend
    assert ways(world) == {VXLAN_LINK if backend == "vxlan" else "eth0"}


def test_there_and_back(world: Callable[..., World]) -> None:
    """In one round each, with peers that answer; what was mended is not said to have drifted."""
    one = world()
    before = one.kernel.ours()
    ask(one, "vxlan")
    one.switch.advance()
    arrived(one, "vxlan")
    ask(one, "static")
    one.switch.advance()
    arrived(one, "static")
    assert one.kernel.ours() == before
    assert one.repair.diary.counts == {}
    assert list(one.repair.diary.entries) == []


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_death_at_every_change_of_the_kernel(world: Callable[..., World], after: bool) -> None:
    """The next process goes on; every peer has a way at every moment, and in the end all is as asked."""
    for number in range(1, MANY):
        one = world()
        one.kernel.fail_at(number, Killed(), after=after)
        try:
            there_and_back(one)
        except Killed:
            assert one.kernel.consumed
            one.restart()
            assert one.problems() == []
            goal = one.way.state.wanted
            one.switch.advance()
            arrived(one, goal)
            continue
        assert not one.kernel.consumed
        assert number > 20
        return
    raise AssertionError(f"more than {MANY} changes")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_death_at_every_write_of_the_journal(world: Callable[..., World], after: bool) -> None:
    """The same."""
    for number in range(1, MANY):
        fault: list[int] = []
        one = world(lambda store, fault=fault: Deadly(store, fault, after=after))
        fault.append(number)
        try:
            there_and_back(one)
        except Killed:
            one.restart()
            goal = one.way.state.wanted
            one.switch.advance()
            arrived(one, goal)
            continue
        assert fault != []
        assert number > 4
        return
    raise AssertionError(f"more than {MANY} writes")


def test_no_peer_is_moved_and_nothing_ended_on_a_pass_that_failed(world: Callable[..., World]) -> None:
    """Whichever it is of those that a change waits for: it pauses, says so, and goes on from there."""
    for number in range(1, MANY):
        one = world()
        one.unsettled = number
        ask(one, "vxlan")
        one.switch.advance()
        if one.settles < number:
            assert number > 4
            return
        now = one.switch.progress()
        assert "a pass failed" in now["waiting"]["this node"]
        assert now["phase"] != "at rest"
        if number == 1:
            assert (now["moved"], ways(one)) == (0, {"eth0"})
        one.switch.advance()
        arrived(one, "vxlan")
        assert one.switch.progress()["waiting"] == {}
    raise AssertionError(f"more than {MANY} passes")


@settings(max_examples=60, deadline=None)
@given(chance=st.randoms(use_true_random=False))
def test_peers_fall_silent_and_minds_change(tmp_path_factory: pytest.TempPathFactory, chance: Random) -> None:
    """Whatever answers and whatever is asked, kernel and leases are as the state says; with all answering again the
    change ends."""
    world = World(tmp_path_factory.mktemp("silent"))
    seeded = Random(chance.random())
    try:
        world.nodes.set(HERE, OTHER, THIRD)
        is_deaf = False

        def silence(source: str, target: str, answerers: Collection[str], patience: float, device: str) -> str:
            return "no answer" if is_deaf and seeded.random() < 0.5 else ""

        world.is_silent = silence
        world.restart()
        for _ in range(seeded.randint(1, 6)):
            is_deaf = seeded.random() < 0.7
            if seeded.random() < 0.5:
                ask(world, seeded.choice(["static", "vxlan"]))
            if seeded.random() < 0.5:
                world.restart()
            world.switch.advance()
            assert world.problems() == []
        is_deaf = False
        for _ in range(2):
            world.switch.advance()
        arrived(world, world.way.state.wanted)
    finally:
        world.close()


def test_a_peer_that_falls_silent_when_it_was_moved_is_put_back(world: Callable[..., World]) -> None:
    """It answered when it was tried, and no more by the new way: it is reached by the old one, and tried again."""
    one = world()
    answers = itertools.chain([""] * 4, ["no answer"], itertools.repeat(""))
    one.is_silent = lambda *_: next(answers)
    one.restart()
    ask(one, "vxlan")
    one.switch.advance()
    assert one.switch.progress()["moved"] == 1
    assert ways(one) == {"eth0", VXLAN_LINK}
    one.switch.advance()
    arrived(one, "vxlan")


class Peers:
    """What answers a node's probes: not those of *unheard*, and those of *once* the first time only. Each is an address
    and the device that the answer is to come by, '' for any."""

    def __init__(self) -> None:
        self.unheard: set[tuple[str, str]] = set()
        self.once: set[tuple[str, str]] = set()
        self.asked: list[tuple[str, str]] = []

    def silence(self, source: str, target: str, answerers: Collection[str], patience: float, device: str) -> str:
        """See `dataplane.probe.silence`."""
        aim = target, device
        is_late = aim in self.once and aim in self.asked
        self.asked.append(aim)
        return "no answer" if aim in self.unheard or is_late else ""


@pytest.fixture
def peers(world: Callable[..., World]) -> tuple[World, Peers]:
    """A world on its way to vxlan, all of whose peers have moved, while the other one has not moved this node yet."""
    one, peers = world(), Peers()
    one.is_silent = peers.silence
    one.restart()
    peers.unheard = {("10.1.2.0", VXLAN_LINK)}
    ask(one, "vxlan")
    one.switch.advance()
    assert one.switch.progress()["moved"] == 2
    assert one.switch.progress()["waiting"].keys() == {"node-b"}
    return one, peers


def test_a_peer_that_turned_round_is_put_back_later_too(peers: tuple[World, Peers]) -> None:
    """It had moved, and does not take what comes by the new way any more: it answers by the old one."""
    one, answers = peers
    answers.unheard |= {("10.1.2.0", "")}
    one.switch.advance()
    assert one.switch.progress()["moved"] == 1
    assert one.switch.progress()["waiting"] == {"node-b": "no answer"}
    answers.unheard = set()
    one.switch.advance()
    arrived(one, "vxlan")


def test_a_peer_that_answers_by_neither_way_is_not_put_back(peers: tuple[World, Peers]) -> None:
    """It may be down, or have left the old way already, which it does when it has heard us by the new one."""
    one, answers = peers
    answers.unheard |= {("10.1.2.0", ""), ("10.1.2.15", "")}
    one.switch.advance()
    assert one.switch.progress()["moved"] == 2
    assert one.switch.progress()["phase"] == "waiting for peers"
    answers.unheard = set()
    one.switch.advance()
    arrived(one, "vxlan")


def test_the_old_way_stays_until_what_was_sent_by_it_has_arrived(peers: tuple[World, Peers]) -> None:
    """Peers are heard by the new way, and must still be when the time for that is over; an agent that ends meanwhile
    takes nothing away, and the next one goes on."""
    one, answers = peers
    one.drain = 3600.0
    one.restart()
    answers.unheard, answers.asked = set(), []
    one.switch.start()
    eventually("the peers are heard", lambda: ("2001:db8:3::", VXLAN_LINK) in answers.asked)
    one.switch.stop()
    assert answers.asked.count(("2001:db8:3::", VXLAN_LINK)) == 1
    assert one.switch.backend == "static"
    assert one.problems() == []
    one.drain = 0.0
    one.restart()
    one.switch.advance()
    arrived(one, "vxlan")


def test_a_peer_that_turns_round_in_that_time_is_waited_for(peers: tuple[World, Peers]) -> None:
    """It was heard by the new way, and is no more."""
    one, answers = peers
    answers.unheard, answers.once, answers.asked = set(), {("10.1.3.0", VXLAN_LINK)}, []
    one.switch.advance()
    assert one.switch.progress()["waiting"].keys() == {"node-c"}
    assert one.switch.backend == "static"
    assert one.problems() == []


def test_nodes_begin_with_different_peers(tmp_path: Path) -> None:
    """Each with those that follow it by name: thousands that change at once do not all ask the same."""
    names = [f"node-{number:02}" for number in range(AT_ONCE + 8)]
    nodes = [
        Peer(name, (IPAddress(f"192.0.2.{number}"),), (IPNetwork(f"10.1.{number}.0/28"),))
        for number, name in enumerate(names, 1)
    ]
    here = nodes[20]
    answers = Peers()
    world = World(tmp_path, nodes=[here, *nodes[:20], *nodes[21:]], is_silent=answers.silence)
    try:
        ask(world, "vxlan")
        world.switch.advance()
    finally:
        world.close()
    first = [*nodes[21:], *nodes[:20]][:AT_ONCE]
    asked = {target for target, _ in answers.asked[:AT_ONCE]}
    assert asked == {str(IPAddress(peer.pod_cidrs[0].last)) for peer in first}


def test_new_pods_on_the_way_get_what_both_can_carry(world: Callable[..., World]) -> None:
    """Their routes say the smaller MTU until the change is over."""
    one = world()
    one.is_silent = lambda *_: "no answer"
    one.restart()
    ask(one, "vxlan")
    one.switch.advance()
    one.kernel.add_netns("/run/netns/b")
    record = one.add(Attachment("pods", "b", "eth0"), "/run/netns/b")
    assert record.mtu == 1450
    assert one.problems() == []


STATES = st.builds(
    State,
    st.sampled_from(["a", "b"]),
    st.sampled_from(["a", "b"]),
    st.sampled_from(["a", "b", "c"]),
    st.frozensets(st.sampled_from("xyz")),
    st.booleans(),
)


@given(state=STATES, peers=st.sets(st.sampled_from("xyz")))
def test_a_state_moves_and_puts_back(state: State, peers: set[str]) -> None:
    """Exactly those, whatever way round it is; to turn round changes for no peer how it is reached."""
    moved = state.moving(peers)
    assert all(moved.has_moved(one) == (one in peers or state.has_moved(one)) for one in "xyz")
    back = state.moving(peers, back=True)
    assert all(back.has_moved(one) == (one not in peers and state.has_moved(one)) for one in "xyz")
    if not state.is_resting:
        turned = state.towards(state.active)
        assert (turned.active, turned.wanted) == (state.wanted, state.active)
        assert all(turned.has_moved(one) != state.has_moved(one) for one in "xyz")
        assert turned.towards(state.wanted) == state


@given(state=STATES)
def test_a_journal_is_what_it_was(state: State) -> None:
    """With the same configuration and boot; after a reboot nothing is programmed, so nothing is on its way."""
    assert restored(state.text("boot"), state.configured, "boot") == state
    rebooted = restored(state.text("boot"), state.configured, "another")
    assert rebooted == State(state.wanted, state.wanted, state.configured)


def test_what_a_newer_agent_kept_is_understood_or_told() -> None:
    """One can be gone back to: what it keeps besides is left out. What is no state at all names the remedy."""
    state = State("static", "vxlan", "static", frozenset({"x"}))
    newer = json.dumps({**json.loads(state.text("boot")), "paused": True})
    assert restored(newer, "static", "boot") == state
    for text in ("", "{", "7", "[]", '{"active": "static"}'):
        with pytest.raises(StateCorrupt, match=r"the backend in use cannot be read: .* move paths\.state away"):
            restored(text, "static", "boot")


def test_the_configuration_outweighs_what_was_asked_before_it_changed() -> None:
    """And a third backend in the middle of a change is refused in words."""
    asked = State("static", "vxlan", "static", frozenset({"x"}))
    assert restored(asked.text("boot"), "vxlan", "boot") == asked._replace(configured="vxlan")
    with pytest.raises(ConfigInvalid, match="on its way from static to vxlan"):
        restored(asked.text("boot"), "bgp", "boot")
    done = State("vxlan", "vxlan", "static")
    assert restored(done.text("boot"), "static", "boot") == done
    assert restored(None, "static", "boot") == State("static", "static", "static")
    assert json.loads(done.text("boot"))["boot"] == "boot"


def test_a_mind_that_changes_at_any_moment(world: Callable[..., World]) -> None:
    """Whichever answer of a peer it comes with: nobody is moved on by the old word, and the new one is what is reached
    in the end."""
    names = [f"node-{number:02}" for number in range(AT_ONCE + 2)]
    nodes = [
        Peer(name, (IPAddress(f"192.0.2.{number + 1}"),), (IPNetwork(f"10.1.{number}.0/24"),))
        for number, name in enumerate(names)
    ]
    first = 3 * AT_ONCE  # the first round of probes is of no interest: all of them are alike
    for number in range(1, MANY):
        one, asked = world(), itertools.count(1)

        def changing(*_: object, one: World = one, asked: Iterator[int] = asked, number: int = number) -> str:
            if next(asked) == number * 7:
                ask(one, "static")
            return ""

        one.nodes.set(HERE, *[node for node in nodes if not set(node.addresses) & set(HERE.addresses)])
        one.is_silent = changing
        one.restart()
        ask(one, "vxlan")
        one.switch.advance()
        if one.way.state.wanted == "vxlan":
            assert number * 7 > first
            arrived(one, "vxlan")
            return
        for _ in range(3):
            one.switch.advance()
        arrived(one, "static")
    raise AssertionError(f"more than {MANY} answers")


def test_backends_with_other_addresses_have_no_way_between_them() -> None:
    """What the journal says of the one is nothing to the other: no pods are left."""
    asked = State("static", "vxlan", "static")
    assert restored(asked.text("boot"), "aws-eni", "boot") == State("aws-eni", "aws-eni", "aws-eni")


def test_without_a_change_under_way_a_round_changes_nothing(world: Callable[..., World]) -> None:
    """The survey wires by one backend still: the next round is after the pass that wires by both."""
    one = world()
    ask(one, "vxlan")
    one.switch._settle = lambda: None
    one.switch.advance()
    assert (one.switch.progress()["moved"], ways(one)) == (0, {"eth0"})
