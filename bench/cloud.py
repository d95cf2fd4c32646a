"""Simulates thousands of nodes on the token buckets of one AWS account: a cold start of all, then churn of pods.

``python -m bench.cloud [--nodes N …] [--pods P] [--json FILE] [--plot FILE]``. The fabric, the policy and the allocator
are the product's own, EC2 is the tests' strict model with the quotas that AWS publishes, and the clock is virtual.
Beside it the same with one address per call, as plugins do that answer each pod by a call of its own, and with
instances that were started with the prefixes that their pods need.
"""

from __future__ import annotations

import argparse
import gc
import heapq
import json
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from backends.aws.options import EniOptions
from bench.curves import Curve, drawn
from ipam.warmpool import PREFIX_SIZE, Targets
from tests.cloud.machine import Clock, Machine
from tests.cloud.region import BUCKETS, Region
from tests.fakes.living import Living

TYPE: Final = "m5.xlarge"
LIMIT: Final = 3600.0
"""Seconds of the virtual clock after which a cold start is broken off."""
CHURN: Final = 600.0
"""Seconds of churn after it; each node replaces a pod every `EACH` seconds."""
EACH: Final = 30.0
ASSIGN: Final = "AssignPrivateIpAddresses"
ALL: Final = "all that is needed in one call"
ONE: Final = "one address per call"
GIVEN: Final = "prefixes from the launch template"
COLOURS: Final = {ALL: "#3b7dd8", ONE: "#d87f3b", GIVEN: "#3ba55d"}


class OneByOne(Machine):
    """Asks for the address of one pod at a time."""

    def waiting(self) -> int:
        return min(1, len(self.parked))


@dataclass(frozen=True, slots=True)
class Outcome:
    """*served* pods of *pods* had an address after *seconds*; *bound* is the least that the buckets allow for as many
    calls. *calls* and *throttled* are by action, of the cold start and then of the churn."""

    name: str
    nodes: int
    pods: int
    served: int
    seconds: float
    bound: float
    calls: dict[str, int]
    throttled: dict[str, int]
    churned: int
    churn_calls: dict[str, int]
    curve: list[tuple[float, int]]
    took: float


def main() -> int:
    """Run and tell."""
    return asked(__doc__ or "", "bench.cloud", (GIVEN, ALL, ONE), simulated, table, picture)


def asked(
    description: str,
    module: str,
    names: Sequence[str],
    simulated: Callable[[str, int, int], Outcome],
    table: Callable[[Sequence[Outcome]], str],
    picture: Callable[[Sequence[Outcome]], str],
) -> int:
    """What the command line asks for; of each of *names* there is a simulation."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("--nodes", type=int, nargs="+", metavar="N", default=[50, 500, 5000])
    parser.add_argument("--pods", type=int, metavar="P", default=20, help="per node; default: %(default)s")
    parser.add_argument("--only", nargs="+", choices=names, help="default: all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write an SVG of the largest there")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # thousands of nodes that are throttled say so
    chosen = options.only or names
    outcomes = [simulated(name, nodes, options.pods) for nodes in options.nodes for name in chosen]
    print(table(outcomes))
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in outcomes], indent=1))
    if options.plot:
        options.plot.write_text(picture([one for one in outcomes if one.nodes == max(options.nodes)]))
    return 0


def simulated(name: str, nodes: int, pods: int) -> Outcome:
    """A cold start of *nodes* with *pods* each, all at once, and churn if all of these were served."""
    started = time.monotonic()
    clock = Clock()
    region = Region(clock)
    region.attach_delay, region.units = 3.0, 256_000
    vpc = region.add_vpc("10.0.0.0/8")
    subnets = [region.add_subnet(vpc, f"10.{number}.0.0/16") for number in range(8)]
    prefixes = -(-pods // PREFIX_SIZE) if name == GIVEN else 0
    kind, warm = {
        ALL: (Machine, Targets()),
        ONE: (OneByOne, Targets(False, warm_addresses=0)),
        GIVEN: (Machine, Targets(minimum_addresses=pods)),
    }[name]
    instances = [region.run_instance(TYPE, subnets[number % 8], wanted=(0, prefixes)) for number in range(nodes)]
    machines = [
        kind(region, clock, instance, EniOptions(warm=warm), seed=number) for number, instance in enumerate(instances)
    ]
    def least(calls: Counter[str]) -> float:
        return bound({GIVEN: 0, ALL: nodes, ONE: nodes * pods - calls["CreateNetworkInterface"]}[name])

    return measured(name, machines, pods, clock, region.calls, "RequestLimitExceeded", least, started)


def measured(
    name: str,
    machines: Sequence[Living],
    pods: int,
    clock: Clock,
    counted: Mapping[tuple[str, str], int],
    throttling: str,
    least: Callable[[Counter[str]], float],
    started: float,
) -> Outcome:
    """What comes out when each of *machines* is to have so many *pods* at once: *counted* are the cloud's calls by
    action and error, of which *throttling* is one, *least* answers how many seconds these calls take at least, and
    all that was made for it was *started* then."""
    gc.freeze()
    begin = clock.now
    for machine in machines:
        machine.is_told = True
        machine.add(pods)
    run = Run(machines, clock, name)
    served_at = run.until_served(begin + LIMIT)
    cold, calls = run.curve, _calls(counted)
    throttled = {action: count for (action, code), count in counted.items() if code == throttling}
    served, wanted = sum(len(machine.pods) for machine in machines), len(machines) * pods
    churned = run.churn(CHURN) if served == wanted else 0
    after = {action: count - calls[action] for action, count in _calls(counted).items() if count > calls[action]}
    return Outcome(
        name=name,
        nodes=len(machines),
        pods=wanted,
        served=served,
        seconds=round(served_at - begin, 1),
        bound=round(least(calls), 1),
        calls=dict(calls),
        throttled=throttled,
        churned=churned,
        churn_calls=after,
        curve=thinned(cold),
        took=round(time.monotonic() - started, 1),
    )


def thinned(curve: list[tuple[float, int]], most: int = 200) -> list[tuple[float, int]]:
    """As many of its points as a picture can show, the last among them."""
    return curve[: -1 : -(-len(curve) // most)] + curve[-1:]


def bound(calls: int) -> float:
    """Seconds that so many calls of AssignPrivateIpAddresses take at least, by the bucket of the account."""
    capacity, refill = BUCKETS[""]
    return max(0.0, (calls - capacity) / refill)


def _calls(counted: Mapping[tuple[str, str], int]) -> Counter[str]:
    return Counter({action: count for (action, code), count in counted.items() if not code})


class Run:
    """Time passes for *machines*, each turned when its own time comes or when a pod of it comes or goes."""

    def __init__(self, machines: Sequence[Living], clock: Clock, name: str) -> None:
        self._machines = machines
        self._clock = clock
        self._name = name
        self._begin = clock.now
        self._due = [clock.now] * len(machines)
        self._queue = [(clock.now, number) for number in range(len(machines))]
        self._random = random.Random(1)
        self.curve: list[tuple[float, int]] = [(0.0, 0)]

    def until_served(self, end: float) -> float:
        """When the last pod had its address, or *end*."""
        left = {number for number, machine in enumerate(self._machines) if machine.parked}
        served, told, shown = 0, 0.0, 0.0
        while left and self._queue[0][0] < end:
            number = self._turn()
            machine = self._machines[number]
            if number in left and not machine.parked:
                left.discard(number)
            now = self._clock.now - self._begin
            if now - told >= 1.0:
                told = now
                served = sum(len(one.pods) for one in self._machines)
                self.curve.append((round(now, 1), served))
            if time.monotonic() - shown > 1.0:
                shown = time.monotonic()
                self._show(now, served)
        self.curve.append((round(self._clock.now - self._begin, 1), sum(len(one.pods) for one in self._machines)))
        print(file=sys.stderr)
        return self._clock.now

    def churn(self, seconds: float) -> int:
        """Each node replaces a pod again and again; how many pods came."""
        start = self._clock.now
        end = start + seconds
        events = [(start + self._random.random() * EACH, number) for number in range(len(self._machines))]
        heapq.heapify(events)
        count = 0
        while self._queue[0][0] < end or events[0][0] < end:
            if events[0][0] < self._queue[0][0]:
                when, number = heapq.heappop(events)
                self._clock.now = max(self._clock.now, when)
                self._machines[number].delete(1)
                self._machines[number].add(1)
                self._put(number, self._clock.now)
                heapq.heappush(events, (when + EACH, number))
                count += 1
            else:
                self._turn()
        return count

    def _turn(self) -> int:
        while True:
            when, number = heapq.heappop(self._queue)
            if when == self._due[number]:
                break  # or else it was turned sooner, by an event
        self._clock.now = max(self._clock.now, when)
        self._put(number, self._clock.now + self._machines[number].turn())
        return number

    def _put(self, number: int, when: float) -> None:
        self._due[number] = when
        heapq.heappush(self._queue, (when, number))

    def _show(self, now: float, served: int) -> None:
        print(f"\r{len(self._machines)} nodes, {self._name}: {now:6.0f} s, {served} pods", end="", file=sys.stderr)


def table(outcomes: Sequence[Outcome]) -> str:
    """What came out, for people."""
    lines = [
        f"{'nodes':>6} {'':33} {'pods served':>16} {'within':>8} {'bound':>8} {'assign/pod':>10} {'throttled':>9} "
        f"{'churned':>8} {'calls':>6}"
    ]
    for one in outcomes:
        assigns = one.calls.get(ASSIGN, 0)
        lines.append(
            f"{one.nodes:6} {one.name:33} {one.served:7} of {one.pods:6} {one.seconds:7.0f}s {one.bound:7.0f}s "
            f"{assigns / max(1, one.served):10.3f} {one.throttled.get(ASSIGN, 0):9} "
            f"{one.churned:8} {sum(one.churn_calls.values()):6}"
        )
        others = ", ".join(f"{count} {action}" for action, count in sorted(one.calls.items()) if action != ASSIGN)
        lines.append(f"{'':6} besides: {others or 'nothing'}; simulated in {one.took:.0f} s")
    return "\n".join(lines)


def picture(outcomes: Sequence[Outcome]) -> str:
    """Pods with an address over time, and the buckets' bound."""
    curves = [Curve(one.name, one.curve, COLOURS[one.name]) for one in outcomes]
    first = next(one for one in outcomes if one.name == ALL)
    at_once = min(first.pods, int(BUCKETS[""][0]) * first.pods // first.nodes)
    points = [(0.0, at_once), (first.bound, first.pods)]
    limits = [Curve("what the account's bucket allows at best", points, "#999", "5 4")]
    title = f"Cold start of {first.nodes} nodes with {first.pods // first.nodes} pods each, all at once (simulated)"
    return drawn(title, "seconds", "pods with an address", [*curves, *limits])


if __name__ == "__main__":
    sys.exit(main())
