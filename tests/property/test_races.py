"""Two hundred requests at once: whatever crosses whatever, in the end leases, links and journal agree."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.node.ledger import Asked
from cni.errors import (
    EnvironmentInvalid,
    Exhausted,
    Failure,
    InterfaceExists,
    KernelRefused,
    TryAgain,
    UnknownContainer,
)
from cni.spec import Attachment
from tests.fakes.world import World

REQUESTS = 200
PATIENCE = 300.0
"""Seconds after which something hangs, on a machine however busy."""
CONTAINERS = [f"c{number}" for number in range(20)]
NETWORKS = ["pods", "others"]
EXPECTED = {
    "add": (EnvironmentInvalid, Exhausted, InterfaceExists, KernelRefused, TryAgain),
    "check": (Failure,),
}


@pytest.fixture(autouse=True)
def often() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Storm:
    """One world and what many threads ask of it at once; *chance* decides who asks what."""

    def __init__(self, world: World, chance: Random) -> None:
        self.world = world
        self.chance = chance
        self.vanished: set[str] = set()
        self.unexpected: list[str] = []
        self._lock = threading.Lock()
        for container in CONTAINERS:
            world.kernel.add_netns(self.netns(container))

    @staticmethod
    def netns(container: str) -> str:
        return f"/run/netns/{container}"

    def requests(self) -> list[tuple[str, Attachment]]:
        """What is asked, in the order in which it begins."""
        kinds = ["add"] * 5 + ["add_together"] * 3 + ["delete"] * 5 + ["together"] * 2
        kinds += ["check", "collect", "mend", "mend", "vanish"]
        return [
            (
                self.chance.choice(kinds),
                Attachment(self.chance.choice(NETWORKS), self.chance.choice(CONTAINERS), "eth0"),
            )
            for _ in range(REQUESTS)
        ]

    def run(self, request: tuple[str, Attachment]) -> None:
        """One request; every failure that it may not have is remembered."""
        kind, who = request
        try:
            getattr(self, kind)(who)
        except EXPECTED.get(kind, ()):
            pass
        except BaseException as error:  # noqa: BLE001 - told by the test
            self.unexpected.append(f"{kind} {who}: {error!r}")

    def add(self, who: Attachment) -> None:
        self.world.node.add(who, Asked(self.netns(who.container)))
        self.world.node.ledger.answered(who)

    def add_together(self, who: Attachment) -> None:
        whos = [who, *(Attachment(who.network, container, "eth0") for container in CONTAINERS[1::4])]
        for done in self.world.node.begin_addition({one: Asked(self.netns(one.container)) for one in whos})():
            self.world.node.ledger.answered(done)

    def delete(self, who: Attachment) -> None:
        self.world.node.delete(who)

    def together(self, who: Attachment) -> None:
        whos = [Attachment(network, container, "eth0") for network in NETWORKS for container in CONTAINERS[::3]]
        done = self.world.node.begin_removal([who, *whos])()
        assert all(removed.error is None for removed in done.values()), done

    def check(self, who: Attachment) -> None:
        self.world.node.check(who, self.netns(who.container), "", 0)

    def collect(self, who: Attachment) -> None:
        valid = {(container, "eth0") for container in CONTAINERS[::2]}
        self.world.node.collect(who.network, valid, self.world.node.ledger.sequence)

    def mend(self, who: Attachment) -> None:
        self.world.node.mend(who, lambda change: True)

    def vanish(self, who: Attachment) -> None:
        """The namespace goes, in the middle of whatever."""
        path = self.netns(who.container)
        with self._lock:
            if path not in self.vanished:
                self.vanished.add(path)
                self.world.kernel.remove_netns(path)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 1 << 32))
def test_two_hundred_requests_at_once(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    """ADD and DEL of one attachment crossing, DEL before ADD has finished, batches, GC, repair and vanishing namespaces
    among them, one container on two networks, and more pods than there are addresses."""
    world = World(tmp_path_factory.mktemp("storm"))
    try:
        storm = Storm(world, Random(seed))
        requests = storm.requests()
        start = threading.Barrier(32)
        with ThreadPoolExecutor(32) as pool:

            def worker(number: int) -> None:
                start.wait(PATIENCE)
                for request in requests[number::32]:
                    storm.run(request)

            for future in [pool.submit(worker, number) for number in range(32)]:
                future.result(PATIENCE)
        assert storm.unexpected == []
        assert len(world.node._keys) == 0
        world.now += 61
        world.reconcile()
        assert world.problems() == []
        for who in world.node.ledger.records():
            with pytest.raises(InterfaceExists):
                world.add(who, storm.netns(who.container))
            world.node.delete(who)
        assert world.problems() == []
        assert world.pods_links() == 0
        world.now += 61
        free = [counts.free for counts in world.node.ledger.counts() if counts.block.family == 4]
        assert free == [14], "an address was lost"
        with pytest.raises(UnknownContainer):
            world.node.check(Attachment("pods", "c0", "eth0"), storm.netns("c0"), "", 0)
        world.restart()
        assert world.problems() == []
        assert world.node.ledger.records() == {}
    finally:
        world.close()
