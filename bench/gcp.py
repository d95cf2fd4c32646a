"""Simulates thousands of nodes on the rate quotas of one Google Cloud project: a cold start of all, then churn of pods.

``python -m bench.gcp [--nodes N …] [--pods P] [--json FILE] [--plot FILE]``. The fabric, the policy and the allocator
are the product's own, Compute Engine is the tests' strict model with the quotas that Google publishes, and the clock is
virtual. Beside it the same with one address per change, and with machines that were started with the ranges that their
pods need.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from typing import Final

from backends.gcp.calls import GET, OPERATION, UPDATE
from backends.gcp.options import AliasOptions
from bench.cloud import Outcome, asked, measured
from bench.curves import Curve, drawn
from ipam.warmpool import Targets
from tests.fakes.living import Clock
from tests.gcp.node import AliasNode
from tests.gcp.project import Project
from tests.gcp.unkindness import Unkind
from tests.gcp.unverified import QUERIES

ALL: Final = "all that is needed in one change"
ONE: Final = "one address per change"
GIVEN: Final = "ranges from the machine's start"
COLOURS: Final = {ALL: "#3b7dd8", ONE: "#d87f3b", GIVEN: "#3ba55d"}
MINUTE: Final = 60.0
OPERATIONS: Final = (3.0, 6.0)
"""Seconds that an operation takes."""
READS: Final = 2
"""instances.get per change, at least: what it is like before, and after."""


class OneByOne(AliasNode):
    """Asks for the address of one pod at a time."""

    def waiting(self) -> int:
        return min(1, len(self.parked))


def main() -> int:
    """Run and tell."""
    return asked(__doc__ or "", "bench.gcp", (GIVEN, ALL, ONE), simulated, table, picture)


def simulated(name: str, nodes: int, pods: int) -> Outcome:
    """A cold start of *nodes* with *pods* each, all at once, and churn if all of these were served."""
    started = time.monotonic()
    clock = Clock()
    project = Project(clock, Unkind(running=OPERATIONS))
    project.lag = 1.0
    project.add_subnetwork("nodes", "10.0.0.0/16", pods="10.128.0.0/9")
    targets = {
        ALL: Targets(delay=300.0),
        ONE: Targets(warm_addresses=0, prefix_size=1, delay=300.0),
        GIVEN: Targets(minimum_addresses=pods, delay=300.0),
    }[name]
    given = [(f"/{32 - math.ceil(math.log2(pods + 12))}", "pods")] if name == GIVEN else []
    for number in range(nodes):
        project.run_instance(f"node-{number + 1}", "nodes", given)
    kind = OneByOne if name == ONE else AliasNode
    chosen = AliasOptions(range="pods", warm=targets)
    machines = [kind(project, clock, f"node-{number + 1}", chosen, seed=number) for number in range(nodes)]
    changes = {GIVEN: 0, ALL: nodes, ONE: nodes * pods}[name]  # without a change the metadata is enough
    least = bound(READS * changes)
    return measured(name, machines, pods, clock, project.calls, "rateLimitExceeded", lambda calls: least, started)


def bound(calls: int) -> float:
    """Seconds that so many reads take at least, by the project's quota, which is refilled each minute."""
    return MINUTE * max(0, math.ceil(calls / QUERIES["read_requests_per_region"]) - 1)


def table(outcomes: Sequence[Outcome]) -> str:
    """What came out, for people."""
    lines = [
        f"{'nodes':>6} {'':33} {'pods served':>16} {'within':>8} {'bound':>8} {'changes':>8} {'reads':>7} "
        f"{'follows':>7} {'throttled':>9} {'churned':>8} {'calls':>6}"
    ]
    lines += [
        f"{one.nodes:6} {one.name:33} {one.served:7} of {one.pods:6} {one.seconds:7.0f}s {one.bound:7.0f}s "
        f"{one.calls.get(UPDATE, 0):8} {one.calls.get(GET, 0):7} {one.calls.get(OPERATION, 0):7} "
        f"{sum(one.throttled.values()):9} {one.churned:8} {sum(one.churn_calls.values()):6}"
        for one in outcomes
    ]
    return "\n".join(lines)


def picture(outcomes: Sequence[Outcome]) -> str:
    """Pods with an address over time, and the quota's bound."""
    curves = [Curve(one.name, one.curve, COLOURS[one.name]) for one in outcomes]
    first = next(one for one in outcomes if one.name == ALL)
    share = QUERIES["read_requests_per_region"] * first.pods / (READS * first.nodes)
    points = [(0.0, min(float(first.pods), share))]
    for minute in range(1, int(first.bound // MINUTE) + 1):
        points += [(minute * MINUTE, points[-1][1]), (minute * MINUTE, min(first.pods, share * (minute + 1)))]
    limits = [Curve("what the project's quota of reads allows at best", points, "#999", "5 4")]
    title = f"Cold start of {first.nodes} nodes with {first.pods // first.nodes} pods each, all at once (simulated)"
    return drawn(title, "seconds", "pods with an address", [*curves, *limits])


if __name__ == "__main__":
    sys.exit(main())
