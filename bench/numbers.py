"""What was measured, as numbers for people: the ratios to the reference, their targets, and a table. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from bench import nodes, peers

VERBS = ("ADD", "CHECK", "DEL")
TARGETS = {
    "ADD one at a time": 0.35,
    "burst of 100 ADD": 0.25,
    "burst of 100 DEL": 0.20,
    "CPU of ADD + DEL": 0.5,
}
"""Ratios to the reference that the project set itself."""


def summary(times: Sequence[float]) -> dict[str, float]:
    """Median, 95th and 99th percentile, in seconds."""
    ordered = sorted(times)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return {"median": statistics.median(ordered), "p95": at(0.95), "p99": at(0.99), "count": len(ordered)}


def ratios(document: dict[str, Any]) -> list[tuple[str, float, float]]:
    """What was compared, seconds of ours, seconds of the reference."""
    ours, theirs = list(document["single"]["walls"])
    rows = [
        (
            f"{verb} one at a time",
            document["single"]["walls"][ours][verb]["median"],
            document["single"]["walls"][theirs][verb]["median"],
        )
        for verb in VERBS
    ]
    for size, sides in document["bursts"].items():
        rows += [
            (f"burst of {size} {verb}", sides[ours][verb]["median"], sides[theirs][verb]["median"]) for verb in VERBS
        ]
    cpu = document["single"]["cpu"]
    rows.append(("CPU of ADD + DEL", cpu[ours], cpu[theirs]))
    return rows


def table(document: dict[str, Any]) -> str:
    """The numbers for people: milliseconds, medians."""
    lines = [document["machine"], "", f"{'':24}{'routable':>12}{'ptp+host-local':>16}{'ratio':>8}   target"]
    for name, ours, theirs in ratios(document):
        target = TARGETS.get(name)
        verdict = f"≤ {target}: {'reached' if ours / theirs <= target else 'NOT reached'}" if target else ""
        lines.append(f"{name:24}{ours * 1e3:9.2f} ms{theirs * 1e3:13.2f} ms{ours / theirs:8.2f}   {verdict}")
    lines += ["", "one at a time, percentiles"]
    for side, verbs in document["single"]["walls"].items():
        for verb, one in verbs.items():
            shown = "  ".join(f"{name} {one[name] * 1e3:7.2f}" for name in ("median", "p95", "p99"))
            lines.append(f"  {side:18}{verb:6} {shown} ms")
    low = document["floor"]
    lines += ["", f"kernel's floor: ADD {low['ADD']['median'] * 1e3:.2f} ms, DEL {low['DEL']['median'] * 1e3:.2f} ms"]
    alone = document["single"]["agent"]
    times = alone / low["ADD"]["median"]
    lines.append(f"the agent's own part of an ADD: {alone * 1e3:.2f} ms, {times:.2f} x the floor (target ≤ 2.5)")
    lines.append(
        f"the agent's memory: {document['memory_before']:.1f} MB before, {document['memory_after']:.1f} MB after"
    )
    if "growth" in document:
        lines.append("  after each 1,000 pods: " + " ".join(f"{size:.1f}" for size in document["growth"]))
    lines += ["", f"{peers.COUNT} dual-stack peers"]
    lines += [f"  {name:36}{seconds * 1e3:9.1f} ms" for name, seconds in document["peers"].items()]
    first = sum(seconds for name, seconds in document["peers"].items() if name.startswith("first"))
    lines.append(
        f"  first programming is {first / document['peers']['ip -batch of the same']:.2f} x ip -batch (target ≤ 1.5)"
    )
    lines += ["", f"{nodes.COUNT} Nodes of an API server"]
    lines += [f"  {name:36}{value:9.2f}" for name, value in document["nodes"].items()]
    return "\n".join(lines)
