"""A whole agent in a cluster of 5,000 nodes, a tenth of which is replaced within a minute: do its routes follow, and
what does that cost it?

``python -m demo.isolate python -m bench.replaced``. The agent runs on a node of the lab, with the list from the tests'
API server on the outside machine and all that it says on its Node; 17 heartbeats of kubelets a second go on meanwhile.
When a route is seen is looked at twice a second.
"""

from __future__ import annotations

import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from demo.cluster import Cluster, cluster
from demo.lab import Node, eventually
from tests.cluster.store import node

COUNT: Final = 5000
REPLACED: Final = 500
MINUTE: Final = 60.0
HEARTBEATS: Final = COUNT / 300.0
"""A second: each kubelet tells every five minutes."""
LOOK: Final = 0.5
IMAGES: Final = 50
PATIENCE: Final = 120.0


def measured(backend: str) -> dict[str, float]:
    """Numbers, by what they are of."""
    with cluster(backend, "dual", 1) as here:
        (one,) = here.lab.nodes
        # Peers are beyond the outside machine, which need not know them: what is programmed is measured.
        one.place.ip("route add default via 192.0.2.100")
        one.place.ip("-6 route add default via 2001:db8:ffff::100")
        here.api.store.put(here.told(one))
        for number in range(COUNT - 1):
            _put(here, number)
        began = time.monotonic()
        one.start()
        watch = _Watch(one)
        watch.until(lambda: len(watch.seen) >= COUNT - 1)
        found = {"start until all routes are there, s": time.monotonic() - began}
        found |= {"… processor, s": _processor(one), "memory, MB": _memory(one)}
        found["memory at most, MB"] = _memory(one, "VmHWM")
        eventually("it is said on the Node", lambda: here.takes_pods(one))
        found["requests until then"] = len(here.api.requests)
        return found | _replaced(here, one, watch)


def _replaced(here: Cluster, one: Node, watch: _Watch) -> dict[str, float]:
    processor, requests, began = _processor(one), len(here.api.requests), time.monotonic()
    put: dict[str, float] = {}
    beaten = 0
    for number in range(REPLACED):
        here.api.store.delete(f"node-{number}")
        put[_put(here, COUNT + number)] = time.monotonic()
        while beaten < (time.monotonic() - began) * HEARTBEATS:
            here.api.store.touch(f"node-{REPLACED + beaten % (COUNT - 1 - REPLACED)}")
            beaten += 1
        time.sleep(max(0.0, began + (number + 1) * MINUTE / REPLACED - time.monotonic()))
    took = time.monotonic() - began
    watch.until(lambda: watch.seen.keys() >= put.keys())
    gone = {f"10.{number // 256}.{number % 256}.0/24" for number in range(REPLACED)}
    watch.until(lambda: gone.isdisjoint(watch.now))
    lags = sorted(watch.seen[cidr] - at for cidr, at in put.items())
    return {
        f"{REPLACED} nodes replaced, and {beaten} heartbeats, within, s": took,
        "route of a new node, s: median": statistics.median(lags),
        "… 99 of 100": lags[len(lags) * 99 // 100],
        "… the last": lags[-1],
        "all old ones are gone after the last change, s": time.monotonic() - max(put.values()),
        "… processor meanwhile, s": _processor(one) - processor,
        "… memory, MB": _memory(one),
        "… memory at most, MB": _memory(one, "VmHWM"),
        "… requests": len(here.api.requests) - requests,
    }


class _Watch:
    """When each IPv4 route of ours was *seen* first, and which there are *now*."""

    def __init__(self, one: Node) -> None:
        self._node = one
        self.seen: dict[str, float] = {}
        self.now: set[str] = set()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            lines = self._node.place.ip("-4 route show proto 82").splitlines()
            now = time.monotonic()
            self.now = {line.split()[0] for line in lines}
            for cidr in self.now:
                self.seen.setdefault(cidr, now)
            time.sleep(LOOK)

    def until(self, is_so: Callable[[], bool]) -> None:
        """Wait."""
        deadline = time.monotonic() + PATIENCE
        while not is_so():
            assert time.monotonic() < deadline, f"it does not come: {len(self.now)} routes"
            time.sleep(LOOK / 5)


def _put(here: Cluster, number: int) -> str:
    """A Node of that number; its IPv4 range."""
    addresses = f"10.200.{number // 250}.{number % 250 + 1}", f"2001:db8:fffe::{number:x}"
    cidr = f"10.{number // 256}.{number % 256}.0/24"
    here.api.store.put(node(f"node-{number}", addresses, [cidr, f"fd00:{number:x}::/64"], images=IMAGES))
    return cidr


def _processor(one: Node) -> float:
    """Seconds of processor that the agent has had."""
    assert one.agent is not None
    fields = Path(f"/proc/{one.agent.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(one: Node, what: str = "VmRSS") -> float:
    assert one.agent is not None
    lines = Path(f"/proc/{one.agent.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:")) / 1024


if __name__ == "__main__":
    for key, value in measured((sys.argv[1:] or ["vxlan"])[0]).items():
        print(f"{key:56} {value:9.2f}", flush=True)
