"""Thousands of pods on the real kernel, and an agent that is killed at random moments under load: nothing is left over.

``make test`` runs a part; SOAK=10000 and KILLS=500 in the environment run the whole.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from random import Random

import pytest

from bench.floor import resident
from demo import show
from demo.lab import Node, built, eventually
from demo.place import Place
from demo.runtime import Pod, Refused

PODS = int(os.environ.get("SOAK") or 1500)
KILLS = int(os.environ.get("KILLS") or 12)
PLACES = 24
FLAT = 1.5
"""Megabytes that the agent may grow from the middle to the end."""
TRY_AGAIN, GONE = 11, {3, 4, 11, 102, 105}


@pytest.fixture
def node() -> Iterator[Node]:
    """One node whose pool of addresses is used up many times over."""
    settings = {"ipam": {"cooldown": 0}}
    with built(nodes=1, backend="static", settings=settings) as lab:
        yield lab.nodes[0]


@pytest.fixture
def places(node: Node) -> Iterator[list[Place]]:
    """Namespaces for pods, that these share in turn."""
    made = [node.pod_place() for _ in range(PLACES)]
    yield made
    for place in made:
        place.remove()


class Load:
    """Pods come and go in namespaces of their own, each worker in turn, until *count* have or it is stopped."""

    def __init__(self, node: Node, places: list[Place], count: int, seed: int) -> None:
        self.node = node
        self.places = places
        self.numbers = iter(range(count))
        self.chance = Random(seed)
        self.stopped = threading.Event()
        self.done = 0
        self.wrong: list[str] = []
        self._lock = threading.Lock()
        self._names = itertools.count()

    def run(self) -> None:
        """Work until the end, on as many threads as there are places."""
        with ThreadPoolExecutor(len(self.places)) as pool:
            for future in [pool.submit(self._work, place) for place in self.places]:
                future.result()

    def _work(self, place: Place) -> None:
        while not self.stopped.is_set():
            with self._lock:
                if next(self.numbers, None) is None:
                    return
                kind = self.chance.random()
                name = f"{place.name}-{next(self._names)}"
            try:
                self._one(place, name, kind)
            except Refused as refused:
                self.wrong.append(str(refused))
            self.done += 1

    def _one(self, place: Place, name: str, kind: float) -> None:
        if kind < 0.1:  # a DEL that crosses its ADD: whichever comes first, a further DEL leaves nothing
            adding = threading.Thread(target=self._add_quietly, args=(place, name))
            adding.start()
            self._delete(place, name)
            adding.join()
        elif kind < 0.2:  # a GC that knows of no pod: what was served when it arrived goes
            self._add_quietly(place, name)
            self._collect()
        else:
            pod = self._added(place, name)
            if kind > 0.8 and pod is not None:
                with suppress(Refused):  # a GC of another worker may have taken it
                    self.node.runtime.check(pod)
        self._delete(place, name)

    def _collect(self) -> None:
        try:
            self.node.runtime.call("GC", config={"cni.dev/valid-attachments": [], "cniVersion": "1.1.0"})
        except Refused as refused:
            if refused.code != TRY_AGAIN:  # the agent was killed meanwhile
                raise

    def _added(self, place: Place, name: str) -> Pod | None:
        try:
            return self.node.runtime.add(name, place)
        except Refused as refused:
            if refused.code not in GONE:
                raise
            return None

    def _add_quietly(self, place: Place, name: str) -> None:
        self._added(place, name)

    def _delete(self, place: Place, name: str) -> None:
        self.node.runtime.call("DEL", name, str(place.path))


def links(node: Node) -> set[str]:
    """The pods' links that the kernel has."""
    return {line.split()[1].partition("@")[0] for line in node.place.ip("-o link show").splitlines() if ": rt" in line}


def test_thousands_of_pods_leave_nothing_and_cost_no_memory(node: Node, places: list[Place]) -> None:
    """ADDs, DELs that cross them, CHECKs and GCs from many threads: no lease, no object, no address is left over."""
    before = show.census(node)
    assert node.agent is not None
    first = Load(node, places, PODS // 2, 1)
    first.run()
    middle = resident(node.agent.pid)
    second = Load(node, places, PODS - PODS // 2, 2)
    second.run()
    assert first.wrong + second.wrong == []
    assert first.done + second.done == PODS
    assert show.census(node) == before
    assert [block["used"] for block in node.status()["pool"]] == [0]
    assert resident(node.agent.pid) - middle < FLAT


def test_killed_at_random_moments_under_load(node: Node, places: list[Place]) -> None:
    """After each start leases and links are the same; in the end, with every pod deleted, nothing is left."""
    before = show.census(node)
    chance = Random(3)
    load = Load(node, places, 1 << 30, 4)
    running = threading.Thread(target=load.run)
    running.start()
    try:
        for _ in range(KILLS):
            time.sleep(chance.uniform(0.0, 0.3))  # the moment is what is random here
            node.stop(signal.SIGKILL)
            node.start()
    finally:
        load.stopped.set()
        running.join()
    assert load.wrong == []
    assert load.done > KILLS
    eventually("every DEL from the spool is served", lambda: node.status()["spooled"] == 0)
    assert {lease["container"] for lease in node.status()["leases"]} == set()
    eventually("no link is left", lambda: links(node) == set())
    assert show.census(node) == before
