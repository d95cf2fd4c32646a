"""The speaker: what it makes of a BIRD in any state, whoever made it so, on a virtual clock."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from netaddr import IPAddress, IPNetwork

from backends.bgp import conf
from backends.bgp.check import verdicts
from backends.bgp.control import Line
from backends.bgp.drain import left
from backends.bgp.replies import Abilities, Channel, Heard, Shown
from backends.bgp.seen import Md5, Seen
from backends.bgp.sessions import speech
from backends.bgp.speaker import AGAIN_MAX, GIVEN_UP, HUNG, LINGER, STEADY, Speaker
from backends.bgp.table import BgpTable, RouterTable
from backends.bgp.told import PATIENCE, show, told
from backends.descriptor import Around
from backends.site import Options, Site
from cluster.peers import Peer
from cni.errors import ConfigInvalid, TryAgain
from dataplane.uplink import Uplink


def node(number: int) -> Peer:
    """A node on one segment."""
    return Peer(f"node-{number}", (IPAddress(f"192.0.2.{number}"),), (IPNetwork(f"10.244.{number}.0/24"),))


TABLE = BgpTable(asn=64512, accept=(IPNetwork("10.244.0.0/16"),))
SITE = Site(node(1), Uplink("eth0", 1500, (IPNetwork("192.0.2.1/24"),)), Options())
PEERS = frozenset({node(1), node(2)})
SPOKEN = """\
1002-node-2.v4  BGP        ---        up     1795713048    Established
1006-  BGP state:          Established
1006-  Channel ipv4
1006-    Routes:         1 imported, 0 filtered, 1 exported, 1 preferred"""


@dataclass
class FakeBird:
    """`backends.bgp.speaker.Engine`: a BIRD that does what one may do. *said* is what it shows of its routes."""

    file: str = ""
    mark_: str = ""
    lives: bool = False
    answers: bool = True
    refuses: str = ""
    whose: str = "node-1"
    routes: list[str] = field(default_factory=list)
    did: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    pid: int = 7
    dies: bool = False
    spoken: str = SPOKEN

    def mark(self) -> str:
        if not self.lives or not self.answers:
            raise TryAgain("BIRD does not answer", "is it running?")
        if self.whose != "node-1":
            raise ConfigInvalid("it is another's")
        return self.mark_

    def has_ended(self) -> bool:
        return not self.lives

    def ask(self, *commands: str) -> list[Sequence[Line]]:
        self.mark()
        self.asked += commands
        answers: list[Sequence[Line]] = []
        for command in commands:
            if command.startswith("enable"):
                self.did.append(command)
            lines = [Line(int(one[:4]), one[5:]) for one in self.spoken.splitlines()]
            if command.startswith("show route"):
                shown = self.routes if "filtered" not in command else []
                still = [one for one in shown if "8282" not in command or "leaving" not in one]
                lines = [Line(1007, f"{one.split()[0]}  unicast [node-2.v4 1795713048] * (100)") for one in still]
            answers.append([*lines, Line(0, "")])
        return answers

    def last_words(self) -> str:
        return "no memory"

    def write(self, text: str) -> None:
        if self.refuses:
            raise ConfigInvalid(self.refuses)
        self.file = text

    def configure(self) -> None:
        self.did.append("configure")
        self.mark_ = conf.mark_of(self.file)

    def start(self, *, is_restart: bool) -> None:
        self.did.append("restart" if is_restart else "start")
        self.lives, self.answers = not self.dies, True
        self.mark_ = conf.mark_of(self.file) if self.file else ""

    def stop(self) -> None:
        self.did.append("stop")
        self.lives = False

    def kill(self) -> None:
        self.did.append("kill")
        self.lives = False


@dataclass
class FakeRoutes:
    """`backends.bgp.speaker.Kernel`."""

    held: list[str] = field(default_factory=list)

    def networks(self) -> Collection[str]:
        return self.held

    def forget(self) -> int:
        gone, self.held = len(self.held), []
        return gone


@dataclass
class World:
    """A speaker and all that is around it. *now* counts seconds."""

    bird: FakeBird = field(default_factory=FakeBird)
    kernel: FakeRoutes = field(default_factory=FakeRoutes)
    around: Around | None = field(default_factory=lambda: Around(SITE, PEERS, frozenset({"bgp"})))
    is_drained: bool = False
    now: float = 100.0
    died: list[str] = field(default_factory=list)

    def speaker(self, table: BgpTable = TABLE) -> Speaker:
        return Speaker(
            backend="bgp",
            table=table,
            bird=self.bird,
            kernel=self.kernel,
            around=lambda: self.around,
            pods=lambda: (),
            is_drained=lambda: self.is_drained,
            md5=Md5,
            on_death=lambda name, error: self.died.append(f"{name}: {error!r}"),
            clock=lambda: self.now,
        )

    def pass_by(self, speaker: Speaker, rounds: int = 1, until: Callable[[], bool] = lambda: False) -> None:
        for _ in range(rounds):
            self.now += 1.0
            speaker.advance()
            if until():
                return


def test_a_bird_is_started_and_looked_at() -> None:
    """As a new one where nothing of it is in the kernel; what it says is told."""
    world = World()
    speaker = world.speaker()
    world.pass_by(speaker, 2)
    assert world.bird.did == ["start"]
    assert speaker.seen.sessions["node-2.v4"].is_up
    assert speaker.seen.problem is None


def test_one_that_died_is_started_so_that_its_routes_stay() -> None:
    """With -R, since there are some."""
    world = World(kernel=FakeRoutes(["10.244.2.0/24"]))
    speaker = world.speaker()
    world.pass_by(speaker, 2)
    world.bird.lives = False
    world.pass_by(speaker, 2)
    assert world.bird.did == ["restart", "restart"]


def test_one_that_is_there_is_left_alone() -> None:
    """Neither started nor told anew, if it was told the same; else told anew, once."""
    world = World()
    world.pass_by(world.speaker(), 2)
    world.pass_by(world.speaker(), 3)
    assert world.bird.did == ["start"]
    world.around = Around(SITE, frozenset({*PEERS, node(3)}), frozenset({"bgp"}))
    world.pass_by(world.speaker(), 3)
    assert world.bird.did == ["start", "configure"]


def test_one_that_does_not_answer_is_ended_and_started_again() -> None:
    """After a while in which that is told; not before."""
    world = World()
    speaker = world.speaker()
    world.pass_by(speaker, 2)
    world.bird.answers = False
    world.pass_by(speaker, int(HUNG))
    assert world.bird.did == ["start"]
    assert "does not answer" in str(speaker.seen.problem)
    world.pass_by(speaker, 2)
    assert world.bird.did == ["start", "kill", "start"]
    world.pass_by(speaker, 1)
    assert speaker.seen.problem is None


def test_sessions_that_bird_gave_up_are_tried_again() -> None:
    """Every few seconds, as long as it does; it would not by itself. Others are not touched."""
    world = World()
    speaker = world.speaker()
    world.bird.spoken = """\
1002-node-2.v4  BGP        ---        down   1795713048    Error: No listening socket
1006-  BGP state:          Down
1006-    Last error:       Error: No listening socket
1002-node-3.v4  BGP        ---        start  1795713048    Active
1006-  BGP state:          Active
1006-    Last error:       Socket: Connection refused"""
    world.pass_by(speaker, 1 + int(3 * GIVEN_UP))
    assert world.bird.did == ["start", *3 * ["enable 'node-2.v4'"]]
    assert "TCP port 179 is another's" in str(told(TABLE, speaker.seen, 100.0).complaints["sessions"][0].failure)
    world.bird.spoken = SPOKEN
    world.pass_by(speaker, int(3 * GIVEN_UP))
    assert len(world.bird.did) == 4


def test_silence_counts_from_when_it_was_asked() -> None:
    """An agent that waited for its list, or whose machine slept, has not asked: one answer that is late is no end."""
    world = World(bird=FakeBird(lives=True), around=None)
    speaker = world.speaker()
    world.pass_by(speaker, int(HUNG) + 5)
    world.around, world.bird.answers = Around(SITE, PEERS, frozenset({"bgp"})), False
    world.pass_by(speaker, 1)
    assert world.bird.did == []
    world.bird.answers = True
    world.pass_by(speaker, 2)
    assert world.bird.did == ["configure"]
    world.now += 100 * HUNG
    world.bird.answers = False
    world.pass_by(speaker, 1)
    assert world.bird.did == ["configure"]
    world.pass_by(speaker, int(HUNG) + 1)
    assert world.bird.did == ["configure", "kill", "start"]


def test_why_it_could_not_be_told_is_why_it_is_not_there() -> None:
    """What follows from that is not told instead: a BIRD without a configuration does not answer."""
    world = World(bird=FakeBird(dies=True, refuses="no password can be read in /p"))
    speaker = world.speaker()
    world.pass_by(speaker, 3)
    assert str(speaker.seen.problem) == "no password can be read in /p"


def test_one_that_ends_as_soon_as_it_is_started_is_started_ever_more_rarely() -> None:
    """And what it said last is told."""
    world = World(bird=FakeBird(dies=True))
    speaker = world.speaker()
    world.pass_by(speaker, 120)
    assert 5 <= len(world.bird.did) <= 10
    assert "BIRD ends as soon as it is started: no memory" in str(speaker.seen.problem)
    world.bird.dies = False
    world.pass_by(speaker, int(AGAIN_MAX) + 2)
    assert speaker.seen.problem is None
    world.now += STEADY
    world.bird.lives = False
    world.pass_by(speaker, 2)
    assert world.bird.lives


def test_what_bird_refuses_changes_nothing() -> None:
    """The one that runs goes on, and is looked at; why it is not told anew, is told."""
    world = World()
    speaker = world.speaker()
    world.pass_by(speaker, 2)
    world.bird.refuses = "bird.conf:3:1 syntax error"
    world.pass_by(speaker, 2)
    assert world.bird.did == ["start"]
    assert "syntax error" in str(speaker.seen.problem)
    assert speaker.seen.sessions
    world.bird.refuses = ""
    world.pass_by(speaker)
    assert speaker.seen.problem is None


def test_a_stranger_is_left_alone() -> None:
    """Whose configuration is not ours: nothing is done to it."""
    world = World(bird=FakeBird(lives=True, whose="node-9"))
    speaker = world.speaker()
    world.pass_by(speaker, 30)
    assert world.bird.did == []
    assert "it is another's" in str(speaker.seen.problem)
    world.around = Around(SITE, PEERS, frozenset({"static"}))
    world.pass_by(speaker, 30)
    assert world.bird.did == []


def test_one_that_is_started_elsewhere_is_waited_for() -> None:
    """It is not started here; one that hangs is ended, for who started it to do so again."""
    world = World()
    speaker = world.speaker(BgpTable(asn=64512, accept=TABLE.accept, start_bird=False))
    world.pass_by(speaker, 30)
    assert world.bird.did == []
    assert "it is started elsewhere" in str(speaker.seen.problem)
    world.bird.lives, world.bird.mark_ = True, conf.mark_of(world.bird.file)
    world.pass_by(speaker, 2)
    assert speaker.seen.problem is None
    world.bird.answers = False
    world.pass_by(speaker, int(HUNG) + 3)
    assert world.bird.did == ["kill"]


def test_nothing_is_done_while_nothing_is_known() -> None:
    """As before the list of nodes was read."""
    world = World(around=None)
    world.pass_by(world.speaker(), 5)
    assert world.bird.did == []


def test_a_backend_that_never_spoke_has_nothing_to_leave() -> None:
    """No BIRD, no routes: nothing is started."""
    world = World(around=Around(SITE, PEERS, frozenset({"static"})))
    world.pass_by(world.speaker(), 30)
    assert world.bird.did == []


def test_who_has_left_goes_on_for_those_who_have_not() -> None:
    """It says so, and ends when nobody is reached by it any more; then its routes go."""
    world = World(kernel=FakeRoutes(["10.244.2.0/24"]))
    world.bird.routes = ["10.244.2.0/24"]
    speaker = world.speaker()
    world.pass_by(speaker, 2)
    world.around = Around(SITE, PEERS, frozenset({"static"}))
    world.pass_by(speaker, 60)
    assert "8282, 1" in world.bird.file
    assert world.bird.did == ["restart", "configure"]
    assert told(TABLE, speaker.seen, 100.0).sections["bgp"]["leaving"]
    world.bird.routes = ["10.244.2.0/24 leaving"]
    world.pass_by(speaker, 30)
    assert world.bird.did == ["restart", "configure", "stop"]
    assert world.kernel.held == []
    assert "bgp" not in told(TABLE, speaker.seen, 100.0).sections


def test_who_has_left_and_is_drained_ends() -> None:
    """Whoever needs it still: somebody wanted it so."""
    world = World(is_drained=True)
    world.bird.routes = ["10.244.2.0/24"]
    speaker = world.speaker()
    world.pass_by(speaker, 2)
    world.around = Around(SITE, PEERS, frozenset({"static"}))
    world.pass_by(speaker, 3)
    assert world.bird.did[-1] == "stop"


def test_one_that_dies_while_it_is_left_is_needed_still() -> None:
    """As long as there are routes of its own."""
    world = World(kernel=FakeRoutes(["10.244.2.0/24"]))
    world.bird.routes = ["10.244.2.0/24"]
    speaker = world.speaker()
    world.pass_by(speaker, 2)
    world.around = Around(SITE, PEERS, frozenset({"static"}))
    world.bird.lives = False
    world.pass_by(speaker, 3)
    assert world.bird.did[:2] == ["restart", "restart"]
    world.bird.routes = []
    world.pass_by(speaker, int(LINGER) + 3)
    assert world.bird.did[-1] == "stop"


def test_the_thread_tells_of_a_bug_and_ends() -> None:
    """As every thread of the agent does."""
    world = World()
    speaker = world.speaker()

    def broken() -> Around | None:
        raise RuntimeError("a bug")

    speaker._around = broken
    speaker.start()
    speaker._thread.join(10)
    assert world.died == ["speaker: RuntimeError('a bug')"]
    speaker.wake()
    speaker.stop()


ROUTER = RouterTable(address=IPAddress("192.0.2.9"), asn=65001, name="tor")
SPEECH = speech(TABLE, SITE, [node(1), node(2), node(3)])


def said(kind: str, seen: Seen, table: BgpTable = TABLE, age: float = 100.0) -> str:
    """What is complained of, of that kind."""
    found = told(table, seen._replace(speech=seen.speech or SPEECH), age).complaints[kind]
    return "\n".join(str(one.failure) for one in found)


def up(name: str, *channels: Channel, **more: object) -> Shown:
    """A session that is there."""
    return Shown(name, "Established", 5.0, channels=channels or (Channel(4, 1, 0, 1),), **more)  # type: ignore[arg-type]


def test_missing_sessions_are_told_by_their_peers() -> None:
    """With BIRD's last error; not while they had no time to begin."""
    down = Shown("node-3.v4", "Active", error="Socket: Refused")
    seen = Seen(sessions={"node-2.v4": up("node-2.v4"), "node-3.v4": down})
    assert said("sessions", seen).startswith(
        "no BGP session with node-3 (192.0.2.3): Active, BIRD's last error: Socket: Refused: see bird.log"
    )
    assert said("sessions", seen, age=PATIENCE) == ""
    assert "node-2 (192.0.2.2): not there, no answer; node-3" in said("sessions", Seen())


def test_wrong_passwords_are_told_by_the_kernels_counters() -> None:
    """BIRD does not know: segments that were signed otherwise, and those that were not signed, never reach it."""
    table = BgpTable(asn=64512, accept=TABLE.accept, password_file="/p")
    with_password = speech(table, SITE, [node(1), node(2)])
    seen = Seen(speech=with_password, md5=Md5(0, 12))
    assert "dropped 12 segments that were signed with another password" in said("sessions", seen, table)
    assert "dropped 3 segments without a signature" in said("sessions", Seen(md5=Md5(3, 0)))
    assert "the other end has a password, this one none" in said("sessions", Seen(md5=Md5(3, 0, 2)))


def test_too_many_prefixes_are_told() -> None:
    """By whom."""
    seen = Seen(sessions={"node-2.v4": up("node-2.v4", Channel(4, 10000, 0, 1, is_limited=True))})
    assert "more than 10000 prefixes came from node-2.v4" in said("prefixes", seen)


def test_ranges_that_two_have_are_told() -> None:
    """A part of this node's own, and another node's that somebody else announces."""
    inside = (Heard("10.244.1.128/25", "node-2.v4"),)
    assert "10.244.1.128/25 (by node-2)" in said("prefixes", Seen(inside=inside))
    routes = tuple(Heard(one, "node-2.v4") for one in ("10.244.3.0/24", "10.244.2.0/24", "10.9.0.0/16"))
    seen = Seen(routes=routes, peers=frozenset({node(1), node(2), node(3)}))
    assert "10.244.3.0/24 of node-3 (by node-2)" in said("prefixes", seen)
    assert "10.244.2.0/24" not in said("prefixes", seen)
    assert said("prefixes", Seen(routes=routes[1:], peers=seen.peers)) == ""
    parts = tuple(Heard(one, "node-2.v4") for one in ("10.244.3.64/26", "10.244.2.128/25", "10.244.2.0/23", "::/0"))
    assert "(by node-2), " not in said("prefixes", Seen(routes=parts, peers=seen.peers))
    assert "10.244.3.64/26 of node-3 (by node-2)" in said("prefixes", Seen(routes=parts, peers=seen.peers))


def test_a_part_of_a_nodes_range_is_told_below_a_router_too() -> None:
    """Which is preferred to the whole, by everybody; not a single address, which is of a pod that is announced."""
    table = BgpTable(topology="tor", asn=64512, accept=TABLE.accept, router=(ROUTER,))
    below = speech(table, SITE, [node(1), node(2)])
    heard = ("10.244.2.0/24", "10.244.2.128/25", "10.244.2.9/32", "10.245.0.0/24", "10.244.0.0/16", "0.0.0.0/0")
    routes = tuple(Heard(one, below.sessions[0].name) for one in heard)
    seen = Seen(speech=below, routes=routes, peers=frozenset({node(1), node(2)}))
    assert "announced by others, too: 10.244.2.128/25 of node-2 (by tor): have" in said("prefixes", seen, table)


def test_another_cluster_with_the_same_number_is_told() -> None:
    """By what comes of it; not by what nodes of this one, or routers for them, say."""
    heard = ("10.9.0.0/24", "10.244.2.0/24", "10.244.2.128/25", "10.244.0.0/16", "10.96.0.0/12")
    table = BgpTable(asn=64512, accept=TABLE.accept, announce=(IPNetwork("10.96.0.0/12"),))
    seen = Seen(looped=tuple(Heard(one, "node-2.v4") for one in heard), peers=frozenset({node(1), node(2)}))
    words = "by paths with this node's own AS number come, and are not taken: 10.9.0.0/24 (by node-2): has another"
    assert said("prefixes", seen, table).startswith(words)
    assert said("prefixes", seen._replace(looped=seen.looped[1:]), table) == ""


def test_bird_is_asked_for_paths_with_the_own_number() -> None:
    """Of what would be taken otherwise; not where such paths are taken."""
    there = BgpTable(topology="tor", asn=64512, accept=TABLE.accept, router=(ROUTER,))
    world = World()
    world.pass_by(world.speaker(there), 2)
    question = "show route filtered table master4 where (bgp_path ~ [= * 64512 * =]) && net ~ accepted4"
    assert world.bird.asked[-1] == question
    world = World()
    there = BgpTable(topology="tor", asn=64512, accept=TABLE.accept, router=(ROUTER,), accept_own_asn=True)
    world.pass_by(world.speaker(there), 2)
    assert question not in world.bird.asked


def test_what_was_seen_is_worked_out_once() -> None:
    """However many ask; anew with what is seen next."""
    world = World()
    speaker = world.speaker()
    world.pass_by(speaker)
    words = speaker.told()
    assert speaker.told() is words
    world.pass_by(speaker)
    assert speaker.told() is not words
    words = speaker.told()
    world.now += 2 * PATIENCE
    assert speaker.told() is not words


def test_nodes_of_whom_nothing_is_heard_are_told() -> None:
    """Though their session is there: as where bgp.accept forgets a range. Not while a node changes its backend, and not
    below a router, where a default route may do."""
    everything = frozenset({node(1), node(2), node(3)})
    seen = Seen(peers=everything, sessions={f"node-{n}.v4": up(f"node-{n}.v4") for n in (2, 3)})
    heard = (Heard("10.244.2.0/24", "node-2.v4"),)
    assert said("sessions", seen._replace(routes=heard)).startswith(
        "nothing is heard of pods of these nodes: node-3 (10.244.3.0/24): are their ranges within bgp.accept"
    )
    wider = (*heard, Heard("10.244.0.0/22", "node-2.v4"), Heard("0.0.0.0/0", "node-2.v4"))
    assert said("sessions", seen._replace(routes=wider)) == ""
    assert said("sessions", seen._replace(is_changing=True)) == ""
    assert said("sessions", seen, age=PATIENCE) == ""
    assert "nothing is heard" not in said("sessions", seen._replace(sessions={}))
    reflected = BgpTable(asn=64512, accept=TABLE.accept, topology="reflectors", reflectors=("node-2",))
    by_one = seen._replace(speech=speech(reflected, SITE, everything), routes=heard)
    assert "node-3 (10.244.3.0/24)" in said("sessions", by_one, reflected)
    router = RouterTable(address=IPAddress("192.0.2.9"), asn=1)
    assert said("sessions", seen, BgpTable(asn=64512, accept=TABLE.accept, topology="tor", router=(router,))) == ""


def test_a_drain_is_over_when_nothing_is_announced() -> None:
    """By a reflector, nothing of its own: it passes on what others announce."""
    one = up("s", Channel(4, 3, 0, 5))
    assert left([one], 0) == 5
    assert left([one], 2) == 2
    assert left([one, replace(one, is_reflecting=True)], 0) == 0


def test_what_is_wrong_with_bird_is_told() -> None:
    """To people alone: a speaker's end is no reason for a node to lose its pods."""
    assert said("speaker", Seen(problem=TryAgain("BIRD does not answer", "why"))) == "BIRD does not answer: why"
    assert told(TABLE, Seen(), 100.0).complaints == {"speaker": [], "sessions": [], "prefixes": []}


def test_people_are_shown_sessions() -> None:
    """In a table, with since when; a node that is drained, or was left, in lines."""
    seen = Seen(pid=9, speech=SPEECH, sessions={"node-2.v4": up("node-2.v4")}, is_drained=True, is_leaving=True)
    document = told(TABLE, seen, 100.0).sections
    shown = show(document, 7205.0)
    assert shown.lines == [
        "BIRD 9, AS 64512, router ID 192.0.2.1, announces nothing",
        "drained: `routablectl drain --undo` has it announce its pods again",
        "BIRD goes on for nodes that are reached by BGP still",
    ]
    assert shown.tables[0].rows == [
        ("node-2", "192.0.2.2", "64512", "Established", "2h", "1 ipv4", "1 ipv4", ""),
        ("node-3", "192.0.2.3", "64512", "not there", "", "0", "0", ""),
    ]
    assert show({}, 0.0).lines == ()
    measures = {one.name: one.numbers for one in told(TABLE, seen, 100.0).measures}
    assert measures["routable_bgp_session_up"] == [(("node-2.v4",), 1.0), (("node-3.v4",), 0.0)]
    assert measures["routable_bgp_drained"] == [((), 1.0)]


BOTH = Abilities(is_aware=True, restarts=frozenset({4}), restart_time=120)


@pytest.mark.parametrize(
    ("shown", "line"),
    [
        (up("s", local=BOTH, neighbour=BOTH), "ok    s:             IPv4: both ends"),
        (up("s", local=BOTH, neighbour=Abilities(is_aware=True)), "note  s:             IPv4: the other end waits"),
        (up("s", local=BOTH), "WRONG s:             IPv4: the other end knows no graceful restart"),
        (up("s", neighbour=BOTH), "WRONG s:             IPv4: this end did not say"),
        (Shown("s", "Idle", error="BGP Error: Hold"), "WRONG s:             is not there (Idle, BGP Error: Hold)"),
    ],
)
def test_a_restart_is_judged_by_session_and_family(shown: Shown, line: str) -> None:
    """By what both ends said of themselves."""
    (found,) = verdicts(TABLE, {"s": shown})
    assert str(found).startswith(line)


@pytest.mark.parametrize(("is_here", "is_there"), [(True, False), (False, True)])
def test_a_restart_that_is_under_way_is_waited_for(is_here: bool, is_there: bool) -> None:
    """A second one within the first loses the routes (RFC 4724, section 4.2)."""
    shown = {"s": up("s", local=BOTH, neighbour=BOTH, is_restarting=is_there)}
    assert "WRONG a restart:     is under way" in str(next(iter(verdicts(TABLE, shown, is_recovering=is_here))))


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"bfd": "graceful"}, "ok    bfd:"),
        ({"bfd": "graceful", "topology": "reflectors", "reflectors": ("node-a",)}, "ok    bfd:"),
        (
            {"bfd": "graceful", "topology": "reflectors", "reflectors": ("192.0.2.201",)},
            "note  bfd:           the routers decide",
        ),
        ({"bfd": "on"}, 'WRONG bfd:           is "on"'),
        (
            {"bfd": "on", "topology": "tor", "router": (RouterTable(address=IPAddress("192.0.2.9"), asn=1),)},
            "note  bfd:           the routers decide",
        ),
    ],
)
def test_bfd_is_judged(keys: dict[str, object], line: str) -> None:
    """By what is known here."""
    table = BgpTable(asn=64512, accept=TABLE.accept, **keys)  # type: ignore[arg-type]
    assert str([*verdicts(table, {"s": up("s", local=BOTH, neighbour=BOTH)})][-1]).startswith(line)
    assert str(next(iter(verdicts(table, {})))) == "WRONG sessions:      there are none"


def test_a_file_that_says_drained_is_heeded(tmp_path: Path) -> None:
    """By whoever looks."""
    world = World()
    speaker = world.speaker()
    world.pass_by(speaker, 2)
    world.is_drained = True
    world.pass_by(speaker)
    assert "\troute " not in world.bird.file
    assert world.bird.did == ["start", "configure"]
