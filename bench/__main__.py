"""Compares ADD, CHECK and DEL of this plugin with Debian's ptp + host-local, and both with the kernel's floor.

``python -m bench [--quick] [--long] [--json FILE] [--plot FILE]``; a table goes to standard output.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import floor, nodes, peers, plot
from bench.calls import Reference, Routable, burst
from bench.numbers import VERBS, summary, table
from dataplane.netlink import Socket
from dataplane.netns import Netns
from demo import isolate
from demo.lab import Node, built
from demo.place import Place

REFERENCE = Path("/usr/lib/cni")
BURSTS = (1, 10, 50, 100, 200)


def main() -> int:
    """Run and tell."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the calls: to see that it works")
    parser.add_argument("--long", action="store_true", help="also 10,000 pods, for the agent's memory")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write an SVG there")
    options = parser.parse_args()
    if not isolate.is_isolated():
        isolate.execute([sys.executable, "-m", "bench", *sys.argv[1:]])
    if not (REFERENCE / "ptp").exists():
        print("the reference plugins are missing: install containernetworking-plugins", file=sys.stderr)
        return 1
    document = Bench(10 if options.quick else 1, is_long=options.long).run()
    print(table(document))
    if options.json:
        options.json.write_text(json.dumps(document, indent=1))
    if options.plot:
        options.plot.write_text(plot.drawn(document))
    return 0


class Floor:
    """The kernel's floor, a pod at a time between the others' calls; in *quiet*, where no agent removes what has its
    marks, while all else is in *home*."""

    def __init__(self, quiet: Place, home: Place, places: Sequence[Place]) -> None:
        self._quiet, self._home = quiet, home
        self._sock, self._netns = Socket(), Netns()
        self._plans = floor.pods(places)
        self._adds: list[float] = []
        self._deletes: list[float] = []

    def step(self, number: int) -> None:
        """Make one pod's objects and remove them."""
        enter(self._quiet)
        items = self._plans[number]
        self._adds.append(floor.add(self._sock, self._netns, items))
        self._deletes.append(floor.delete(self._sock, [items[0].key.name]))
        enter(self._home)

    def summary(self) -> dict[str, Any]:
        """Medians and percentiles."""
        self._sock.close()
        self._netns.close()
        return {"ADD": summary(self._adds), "DEL": summary(self._deletes)}


class Bench:
    """One run; *part* is by what the numbers of calls are divided."""

    def __init__(self, part: int, *, is_long: bool) -> None:
        self._part = part
        self._is_long = is_long
        self._started = time.monotonic()

    def say(self, text: str) -> None:
        """Progress."""
        print(f"{time.monotonic() - self._started:6.1f} s  {text}", file=sys.stderr, flush=True)

    def run(self) -> dict[str, Any]:
        """All sections; the answer is every number."""
        with ExitStack() as cleanup:
            scratch = Path(cleanup.enter_context(tempfile.TemporaryDirectory()))
            # As many addresses as are all used several times over in 10,000 pods.
            settings = {"log": {"level": "info"}, "ipam": {"cooldown": 2}}
            lab = cleanup.enter_context(built(nodes=1, settings=settings, is_started=False))
            (node,) = lab.nodes
            node.pod_cidrs = ["10.244.0.0/20"]
            lab.write_nodes()
            node.start()
            agent = _agent(node)
            count = max(20, 200 // self._part)
            self.say(f"{2 * count} namespaces for pods")
            places = [[_made(cleanup, f"bench{side}-{number}") for number in range(count)] for side in (0, 1)]
            quiet = _made(cleanup, "bench-quiet")
            enter(quiet)
            low = Floor(quiet, node.place, places[0])
            enter(node.place)
            sides = (
                Routable(node.runtime.executable, node.runtime.socket, node.runtime.spool),
                Reference(REFERENCE, scratch / "host-local"),
            )
            document: dict[str, Any] = {
                "machine": f"{os.cpu_count()} cores, Linux {platform.release()}",
                "memory_before": floor.resident(agent),
            }
            self.say("one at a time")
            document["single"] = self._single(sides, places, agent, scratch, low)
            document["single"]["agent"] = mean_of_adds(node)
            document["bursts"] = self._bursts(sides, places, agent, scratch)
            if self._is_long:
                document["growth"] = self._grow(sides[0], places[0], agent, scratch)
            document["memory_after"] = floor.resident(agent)
            # Elsewhere, or the agent would rightly remove what is made with its marks.
            enter(quiet)
            document["floor"] = low.summary()
            self.say(f"{peers.COUNT} peers")
            document["peers"] = peers.measured(scratch)
            self.say(f"{nodes.COUNT} Nodes of an API server")
            document["nodes"] = nodes.measured()
            self.say("done")
            return document

    def _single(
        self, sides: Sequence[Any], places: Sequence[Sequence[Place]], agent: int, scratch: Path, low: Floor
    ) -> dict[str, Any]:
        walls: dict[str, dict[str, list[float]]] = {side.name: {verb: [] for verb in VERBS} for side in sides}
        cpus = {side.name: 0.0 for side in sides}
        for number in range(len(places[0])):
            # Alternately, and in alternating order, so that whatever else the machine does meets both.
            for index in (0, 1) if number % 2 else (1, 0):
                side, place = sides[index], places[index][number]
                for verb in VERBS:
                    before = floor.cpu(agent)
                    _, (call,) = burst(side, verb, [place], scratch)
                    walls[side.name][verb].append(call.wall)
                    if verb != "CHECK":
                        cpus[side.name] += call.cpu + (floor.cpu(agent) - before if index == 0 else 0.0)
                    if verb == "ADD":
                        side.results[place.name] = json.loads(call.stdout)
            low.step(number)
        return {
            "walls": {name: {verb: summary(times) for verb, times in verbs.items()} for name, verbs in walls.items()},
            "cpu": {name: seconds / len(places[0]) for name, seconds in cpus.items()},
        }

    def _bursts(
        self, sides: Sequence[Any], places: Sequence[Sequence[Place]], agent: int, scratch: Path
    ) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for size in (size for size in BURSTS if size <= len(places[0])):
            rounds = max(1, (5 if size >= 200 else 9) // self._part)
            self.say(f"bursts of {size}, {rounds} rounds")
            walls: dict[str, dict[str, list[float]]] = {side.name: {verb: [] for verb in VERBS} for side in sides}
            for number in range(rounds):
                for index in (0, 1) if number % 2 else (1, 0):
                    side = sides[index]
                    for verb in VERBS:
                        took, calls = burst(side, verb, places[index][:size], scratch)
                        walls[side.name][verb].append(took)
                        if verb == "ADD":
                            for place, call in zip(places[index], calls, strict=False):
                                side.results[place.name] = json.loads(call.stdout)
            found[str(size)] = {
                name: {verb: summary(times) for verb, times in verbs.items()} for name, verbs in walls.items()
            }
        return found

    def _grow(self, side: Any, places: Sequence[Place], agent: int, scratch: Path) -> list[float]:
        """The agent's memory after each 1,000 pods, in MB."""
        sizes = []
        for thousand in range(10):
            self.say(f"{thousand + 1},000 of 10,000 pods")
            for _ in range(1000 // len(places)):
                for verb in ("ADD", "DEL"):
                    burst(side, verb, places, scratch)
            sizes.append(floor.resident(agent))
        return sizes


def mean_of_adds(node: Node) -> float:
    """Seconds that the agent spends on an ADD, by its own metrics: of those that were served alone a mean."""
    found: dict[str, float] = {}
    for line in node.metrics().splitlines():
        for name in ("sum", "count"):
            if line.startswith(f'routable_request_seconds_{name}{{verb="ADD"'):
                found[name] = float(line.rpartition(" ")[2])
    return found["sum"] / found["count"]


def enter(place: Place) -> None:
    """Move this process into a namespace: what it starts is there."""
    descriptor = os.open(place.path, os.O_RDONLY | os.O_CLOEXEC)
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, 0x40000000):
        raise OSError(ctypes.get_errno(), "setns")
    os.close(descriptor)


def _agent(node: Node) -> int:
    assert node.agent is not None
    return node.agent.pid


def _made(cleanup: ExitStack, name: str) -> Place:
    place = Place.make(name)
    cleanup.callback(place.remove)
    return place


if __name__ == "__main__":
    sys.exit(main())
