"""Three agents change their backend at once, their steps interleaved in any order: nobody ever sends what nobody takes.

Each has its own fake kernel; packets and probes are followed through all of them, there and back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from netaddr import IPAddress, IPNetwork

from cluster.peers import Peer
from dataplane.items import HOST, Key, Neigh, Nexthop, Route, Sysctl
from dataplane.links import VXLAN_LINK, Fdb
from dataplane.observe import Settings
from tests.fakes.kernel import Killed
from tests.fakes.turns import Turns
from tests.fakes.world import HERE, OTHER, THIRD, World

NODES = (HERE, OTHER, THIRD)
BACKENDS = ("vxlan", "static")
MANY = 5000
LIFE = 40
"""Changes of the kernel that a process lives to see: more than a change of backend needs."""


class Cluster:
    """Nodes with an agent each, what their kernels do with packets, and *chance*, which decides whose turn it is."""

    def __init__(self, directory: Path, chance: Random) -> None:
        self.chance = chance
        self.turns = Turns(chance.choice, MANY)
        self.noise = 0.0
        """How likely a probe is to be lost without a reason."""
        self.lost: list[str] = []
        self.worlds: dict[str, World] = {}
        for node in NODES:
            own = directory / node.name
            own.mkdir()
            nodes = (node, *(one for one in NODES if one != node))
            self.worlds[node.name] = World(own, nodes=nodes, is_silent=partial(self.silence, node))
        for world in self.worlds.values():
            world.kernel.between = self._between

    def close(self) -> None:
        for world in self.worlds.values():
            world.close()

    def _between(self) -> None:
        self.look()
        self.turns.turn()

    def look(self) -> None:
        """Follow a packet between every two nodes' pods; those that do not arrive are remembered."""
        for sender in NODES:
            for receiver in NODES:
                for cidr in receiver.pod_cidrs if sender != receiver else ():
                    pod = IPAddress(cidr.first + 5, cidr.version)
                    if not self.arrives(sender, receiver, pod):
                        self.lost.append(f"{sender.name} to {pod}: by {self.way(sender, pod)}")

    # --- the kernels ------------------------------------------------------------------------------------------

    def way(self, node: Peer, target: IPAddress) -> Nexthop | None:
        """The nexthop of the longest prefix that has *target*; None where there is none."""
        items = self.worlds[node.name].kernel.ours()
        routes = [
            item
            for item in items.values()
            if isinstance(item, Route) and item.place is HOST and target in IPNetwork(item.dst)
        ]
        best = max(routes, key=lambda route: IPNetwork(route.dst).prefixlen, default=None)
        found = items.get(Key(HOST, "nexthop", str(best.nhid))) if best is not None else None
        return found if isinstance(found, Nexthop) else None

    def arrives(self, sender: Peer, receiver: Peer, target: IPAddress, device: str = "") -> bool:
        """Whether a packet of *sender* is taken by *receiver*; with *device*, whether it came by that."""
        way = self.way(sender, target)
        if way is None or (device and way.dev != device):
            return False
        if not self.takes(receiver, sender, way.dev, target.version):
            return False
        if way.dev != VXLAN_LINK:
            return IPAddress(way.via) in receiver.addresses
        here, there = (self.worlds[one.name].kernel.ours() for one in (sender, receiver))
        neigh = here.get(Neigh(HOST, VXLAN_LINK, way.via, "").key)
        entry = here.get(Fdb(VXLAN_LINK, neigh.mac, "").key) if isinstance(neigh, Neigh) else None
        is_sent = isinstance(entry, Fdb) and IPAddress(entry.dst) in receiver.addresses
        return is_sent and Key(HOST, "link", VXLAN_LINK) in there

    def takes(self, receiver: Peer, sender: Peer, device: str, family: int) -> bool:
        """Whether *receiver*, whose host checks sources strictly unless told otherwise, takes what comes by *device*
        from pods of *sender*: IPv4 from where the way back leads by it."""
        setting = Sysctl(HOST, f"net/ipv4/conf/{device}/rp_filter", "2")
        if family == 6 or setting in self.worlds[receiver.name].kernel.observe([Settings((setting.path,))]).values():
            return True
        cidr = next(one for one in sender.pod_cidrs if one.version == family)
        back = self.way(receiver, IPAddress(cidr.first + 5, cidr.version))
        return back is not None and back.dev == device

    def silence(
        self, node: Peer, source: str, target: str, answerers: Collection[str], patience: float, device: str
    ) -> str:
        """See `dataplane.probe.silence`: asked on *node*; the other answers, and be it that there is no such host."""
        if self.chance.random() < self.noise:
            return "a packet was lost"
        own, wanted = IPAddress(source), IPAddress(target)
        peer = next(one for one in NODES if any(wanted in cidr for cidr in one.pod_cidrs))
        if not self.arrives(node, peer, wanted, device):
            return "it did not arrive"
        return "" if self.arrives(peer, node, own, device) else "the answer did not arrive"

    # --- the agents -------------------------------------------------------------------------------------------

    def go(self, node: Peer, backend: str) -> None:
        """What ``routablectl switch BACKEND --wait`` does."""
        world = self.worlds[node.name]
        world.switch.ask(backend, world.survey.now, is_dry=False, is_forced=False)
        self.rest(node)

    def live(
        self, node: Peer, backend: str, spans: Collection[int], *, after: bool, keeps: Callable[[], bool] = lambda: True
    ) -> None:
        """The same, by one process after the other: at the change of the kernel that each of *spans* says one dies,
        before or *after* that took effect; the next goes on with what is in the journal then, or with nothing where
        that is not what it *keeps*."""
        world = self.worlds[node.name]
        begin = partial(self.go, node, backend)
        for span in spans:
            world.kernel.fail_at(span, Killed(), after=after)
            with suppress(Killed):
                begin()
            self.turns.turn()
            if not keeps():
                world.lose_store()
            begin = partial(self.again, node, backend)
        world.kernel.forgive()
        begin()

    def again(self, node: Peer, backend: str) -> None:
        """A new process, which is asked for *backend* once more if the one before did not live to keep that."""
        self.worlds[node.name].restart()
        self.turns.turn()
        self.go(node, backend)

    def waver(self, node: Peer) -> None:
        """Several changes of mind, of which none may get to its end."""
        world = self.worlds[node.name]
        for _ in range(self.chance.randint(1, 4)):
            world.switch.ask(self.chance.choice(BACKENDS), world.survey.now, is_dry=False, is_forced=False)
            for _ in range(self.chance.randint(0, 3)):
                self.turns.turn()
                world.switch.advance()

    def rest(self, node: Peer) -> None:
        """Rounds until the node has arrived."""
        world = self.worlds[node.name]
        while world.switch.progress()["phase"] != "at rest":
            self.turns.turn()
            world.switch.advance()

    def arrived(self, backend: str) -> None:
        """All is as if that had been the backend always."""
        for world in self.worlds.values():
            assert world.problems() == []
            assert world.switch.backend == backend


@pytest.fixture
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Random], Cluster]]:
    """Clusters at rest with the static backend."""
    made: list[Cluster] = []

    def make(chance: Random) -> Cluster:
        while made:
            made.pop().close()
        made.append(Cluster(tmp_path_factory.mktemp("cluster"), Random(chance.random())))
        return made[0]

    yield make
    while made:
        made.pop().close()


CHANCES = st.randoms(use_true_random=False)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(chance=CHANCES)
def test_all_at_once_there_and_back(clusters: Callable[[Random], Cluster], chance: Random) -> None:
    """At no moment is a packet between any two pods lost, and in the end all have arrived."""
    cluster = clusters(chance)
    for backend in BACKENDS:
        cluster.turns.run([partial(cluster.go, node, backend) for node in NODES])
        cluster.arrived(backend)
        cluster.look()
    assert cluster.lost == []


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(chance=CHANCES, after=st.booleans())
def test_processes_that_die_at_any_change(clusters: Callable[[Random], Cluster], chance: Random, after: bool) -> None:
    """Whoever dies, wherever, as often as it likes, and whatever the others do meanwhile: no packet is lost either."""
    cluster = clusters(chance)
    for backend in BACKENDS:
        spans = {node: [chance.randint(1, LIFE) for _ in range(chance.randint(0, 3))] for node in NODES}
        cluster.turns.run([partial(cluster.live, node, backend, spans[node], after=after) for node in NODES])
        cluster.arrived(backend)
        cluster.look()
    assert cluster.lost == []


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(chance=CHANCES, after=st.booleans())
def test_journals_that_are_lost(clusters: Callable[[Random], Cluster], chance: Random, after: bool) -> None:
    """The kernel knows by which way each peer is reached, and that is gone on from: no packet is lost either."""
    cluster = clusters(chance)
    for backend in BACKENDS:
        spans = {node: [chance.randint(1, LIFE) for _ in range(chance.randint(0, 3))] for node in NODES}
        keeps = partial(chance.choice, (False, True))
        works = [partial(cluster.live, node, backend, spans[node], after=after, keeps=keeps) for node in NODES]
        cluster.turns.run(works)
        cluster.arrived(backend)
        cluster.look()
    assert cluster.lost == []


@pytest.mark.parametrize("configured", BACKENDS)
@pytest.mark.parametrize("used", BACKENDS)
def test_a_lost_journal_at_rest(clusters: Callable[[Random], Cluster], used: str, configured: str) -> None:
    """The node goes from what is used to what its configuration says, peer by peer, and waits for those that do not."""
    cluster = clusters(Random(1))
    cluster.turns.run([partial(cluster.go, node, used) for node in NODES])
    world = cluster.worlds[HERE.name]
    world.configured = configured
    world.lose_store()
    world.restart()
    world.switch.advance()
    cluster.look()
    assert cluster.lost == []
    progress = world.switch.progress()
    assert (progress["from"], progress["to"]) == (used, configured)
    cluster.turns.run([partial(cluster.go, node, configured) for node in NODES])
    cluster.arrived(configured)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_death_at_every_change_in_turn(clusters: Callable[[Random], Cluster], after: bool) -> None:
    """One node's agent dies at each, and is there again at once, while the others change their backend, too."""
    for span in range(1, LIFE):
        cluster = clusters(Random(span))
        for backend in BACKENDS:
            works = [partial(cluster.live, HERE, backend, [span], after=after)]
            cluster.turns.run([*works, *(partial(cluster.go, node, backend) for node in NODES[1:])])
            cluster.arrived(backend)
            cluster.look()
        assert cluster.lost == [], span


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(chance=CHANCES)
def test_minds_that_change_and_probes_that_are_lost(clusters: Callable[[Random], Cluster], chance: Random) -> None:
    """Whatever was asked meanwhile, once all are asked for the same and probes are answered again, all arrive."""
    cluster = clusters(chance)
    cluster.noise = 0.2
    cluster.turns.run([partial(cluster.waver, node) for node in NODES])
    cluster.noise = 0.0
    goal = cluster.chance.choice(BACKENDS)
    cluster.turns.run([partial(cluster.go, node, goal) for node in NODES])
    cluster.arrived(goal)
    cluster.lost.clear()
    cluster.look()
    assert cluster.lost == []
