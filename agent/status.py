"""What the agent says of itself: the problems that STATUS reports, the document of ``routablectl status``, the snapshot
of the metrics. Read-only; nothing here costs more than a copy of what is in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from agent.metrics import Snapshot
from agent.node import Node
from agent.repair import Repair
from agent.spool import Spool
from agent.survey import Surroundings, Survey
from agent.switch import Switch
from backends.wiring import Fabric, Report
from cni.errors import Failure, Limited, NotReady
from ipam.family import Counts
from ipam.store import Record, Tenure

_NAMED: Final = 5
"""How many peers or objects one sentence names."""


@dataclass(frozen=True, slots=True)
class Status:
    """Asks the parts of the agent on *node_name* when somebody wants to know."""

    node_name: str
    version: str
    node: Node
    survey: Survey
    fabric: Fabric
    repair: Repair
    spool: Spool
    switch: Switch
    waiting: Callable[[], int]

    def problems(self) -> list[Failure]:
        """What is wrong, the worst first: `NotReady` (an ADD could not be served now), then `Limited` (existing pods
        are impaired)."""
        return [*self._not_ready(), *self._limited()]

    def _not_ready(self) -> Iterator[Failure]:
        problem = self.survey.problem
        if self.survey.now is None:
            yield NotReady(problem.message, problem.details) if problem else NotReady("the agent is starting")
            return
        if self.node.ledger.trouble is not None:
            yield NotReady(self.node.ledger.trouble.message, self.node.ledger.trouble.details)
        counts = self.node.ledger.counts()
        if not counts:
            none = NotReady(f"node {self.node_name} has no pod CIDRs", "give it some in the list of nodes")
            yield from self._not_ready_for(none)
        for family in sorted({one.block.family for one in counts}):
            pool = [one for one in counts if one.block.family == family]
            if not any(one.free for one in pool):
                used, total = sum(one.used for one in pool), sum(one.total for one in pool)
                cooling = sum(one.cooling for one in pool)
                none = NotReady(
                    f"no free IPv{family} address: {used} of {total} in use, {cooling} cooling down",
                    "run fewer pods on this node, or give it a further pod CIDR",
                )
                yield from self._not_ready_for(none)

    def _not_ready_for(self, none: NotReady) -> Iterator[Failure]:
        """What the fabric says of it: nothing where an ADD would wait for a moment and then be served."""
        shortage = self.fabric.shortage(none)
        if not shortage.may_end:
            yield NotReady(shortage.failure.message, shortage.failure.details)

    def _limited(self) -> Iterator[Failure]:
        now = self.survey.now
        if now is None:
            return
        if self.survey.problem is not None:
            yield Limited(self.survey.problem.message, self.survey.problem.details)
        if now.unserved:
            names = _few([one.peer for one in now.unserved])
            yield Limited(f"pods on these nodes cannot be reached: {names}", now.unserved[0].why)
        report = self.fabric.report()
        if report is not None and report.undelivered:
            names = _few(list(report.undelivered))
            yield Limited(
                f"{report.cloud} does not deliver these pods' addresses here any more: {names}",
                "somebody took them from the node's interfaces: delete these pods to have them made anew",
            )
        failing = self.repair.failing
        if failing:
            yield Limited(f"could not be put right: {_few(list(failing))}", str(next(iter(failing.values()))))

    def snapshot(self) -> Snapshot:
        """The numbers for Prometheus."""
        now = self.survey.now
        return Snapshot(
            leases=len(self.node.ledger.records()),
            blocks=tuple(self.node.ledger.counts()),
            peers=max(0, len(now.peers) - 1) if now else 0,
            unserved=len(now.unserved) if now else 0,
            routes=self.repair.routes,
            repairs=self.repair.counts,
            nodes_stale=self.survey.stale is not None,
            spooled=len(self.spool),
            waiting=self.waiting(),
            cloud=self.fabric.report(),
        )

    def document(self) -> dict[str, Any]:
        """Everything, for ``routablectl status --json``: plain values alone."""
        now = self.survey.now
        stale = self.survey.stale
        return {
            "node": self.node_name,
            "backend": self.switch.backend,
            "switch": self.switch.progress(),
            "version": self.version,
            "problems": [{"code": one.code, "msg": one.message, "details": one.details} for one in self.problems()],
            "site": _site(now) if now else None,
            "pool": [_counts(one) for one in self.node.ledger.counts()],
            "leases": [_lease(record) for record in self.node.ledger.records().values()],
            "peers": _peers(now, self.node_name) if now else [],
            "nodes_error": str(stale) if stale else "",
            "repairs": dict(self.repair.counts),
            "events": [{"time": one.time, "text": one.text} for one in self.repair.events],
            "spooled": len(self.spool),
            "waiting": self.waiting(),
            "cloud": _cloud(self.fabric.report()),
        }


def history(tenures: list[Tenure]) -> list[dict[str, Any]]:
    """Who has and who had an address, for ``routablectl ip``."""
    return [
        {
            "network": one.who.network,
            "container": one.who.container,
            "ifname": one.who.ifname,
            "pod": one.pod,
            "netns": one.netns,
            "mac": one.mac,
            "since": one.since,
            "until": one.until,
        }
        for one in tenures
    ]


def _cloud(report: Report | None) -> Mapping[str, Any] | None:
    if report is None:
        return None
    calls = [{"action": action, "error": error, "count": count} for (action, error), count in report.calls.items()]
    return {**report._asdict(), "calls": calls}


def _few(names: list[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _site(now: Surroundings) -> Mapping[str, Any]:
    uplink = now.site.uplink
    return {
        "uplink": uplink.name,
        "uplink_mtu": uplink.mtu,
        "addresses": [str(one) for one in uplink.addresses],
        "pod_mtu": now.wiring.mtu,
        "pod_cidrs": [str(one) for one in now.site.here.pod_cidrs],
    }


def _counts(one: Counts) -> Mapping[str, Any]:
    return {
        "block": str(one.block.network),
        "owner": one.block.owner,
        "total": one.total,
        "used": one.used,
        "cooling": one.cooling,
        "free": one.free,
    }


def _lease(record: Record) -> Mapping[str, Any]:
    who = record.lease.who
    return {
        "addresses": [str(address) for address in record.lease.addresses],
        "network": who.network,
        "container": who.container,
        "ifname": who.ifname,
        "pod": record.pod,
        "netns": record.netns,
        "mac": record.mac,
        "mtu": record.mtu,
        "since": record.since,
    }


def _peers(now: Surroundings, here: str) -> list[Mapping[str, Any]]:
    why: dict[str, list[str]] = {}
    for one in now.unserved:
        why.setdefault(one.peer, []).append(one.why)
    return [
        {
            "name": peer.name,
            "addresses": [str(address) for address in peer.addresses],
            "pod_cidrs": [str(cidr) for cidr in peer.pod_cidrs],
            "unserved": why.get(peer.name, []),
        }
        for peer in sorted(now.peers, key=lambda peer: peer.name)
        if peer.name != here
    ]
