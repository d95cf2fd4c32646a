"""What the agent says of itself: what is wrong, the document of ``routablectl status``, the snapshot of the metrics.
Read-only; nothing here costs more than a copy of what is in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from agent.keep.podlinks import OF_POD
from agent.keep.repair import Repair
from agent.keep.spool import Spool
from agent.keep.strays import strays
from agent.keep.survey import Surroundings, Survey
from agent.node.node import Node
from agent.switch.switch import Switch
from agent.tell import plain
from agent.tell.metrics import Snapshot
from agent.tell.trouble import Kind, Trouble
from backends.fabric import Fabric, Shortage
from backends.told import Teller, Told, few, together
from cni.errors import Exhausted, Failure, Limited, NotReady, TryAgain
from ipam.family import Counts


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
    stuck: Callable[[], Failure | None] = lambda: None
    """Why the agent does not do its work, though it answers; None when it does."""
    findings: Callable[[], Sequence[Failure]] = tuple
    """What the kernel does with pods' packets otherwise than is meant."""
    log_dropped: Callable[[], int] = lambda: 0
    """How many lines of the log nobody took."""
    unseen: Callable[[], Failure | None] = lambda: None
    """Why nobody can see the metrics; None when they can be seen."""
    pass_age: Callable[[], float] = lambda: 0.0
    """Seconds since it was last seen to that the kernel is as it should be."""
    tellers: Sequence[Teller] = ()
    """What besides the fabric tells of itself: the parts that live."""
    announced: Callable[[], Sequence[Trouble]] = tuple
    """What could not be said to others: to the runtime, to Kubernetes."""

    def troubles(self) -> list[Trouble]:
        """What is wrong: first what STATUS tells, then what is only told to people."""
        return self._troubles(self._of_backend())

    def unable(self) -> Shortage | None:
        """What STATUS tells: why no ADD can be served, whatever the pods do, and whether that may end by itself soon;
        None when ADDs can be served."""
        return next((Shortage(one.failure, one.may_end) for one in self._unfit() if one.is_fatal), None)

    def ready(self) -> tuple[bool, str]:
        """Whether an ADD would be served now, and all that is wrong, line by line: for /readyz."""
        troubles = self.troubles()
        is_ready = not any(one.is_fatal or one.bars_adds for one in troubles)
        return is_ready, "\n".join(["ready" if is_ready else "not ready", *(str(one.failure) for one in troubles)])

    def _troubles(self, told: Told) -> list[Trouble]:
        """With what the backend has *told*, which costs more with more nodes: it is asked once for a page."""
        now = self.survey.now
        impaired = self._impaired(now, told) if now is not None else ()
        return sorted([*self._unfit(), *impaired], key=lambda one: not one.is_fatal)

    def _unfit(self) -> Iterator[Trouble]:
        """All that may be fatal, and what is told with it."""
        stuck = self.stuck()
        if stuck is not None:
            yield _fatal(Kind.AGENT, stuck)
        journal = self.node.ledger.problem
        if journal is not None:
            yield _fatal(Kind.JOURNAL, journal)
        now = self.survey.now
        if self.survey.problem is not None:
            # With what was known last, ADDs are served and running pods go on; without anything no pod can be wired.
            # "Try again" passes: a start waits for the list, or for a cloud's metadata.
            problem = self.survey.problem
            yield _told(Kind.WIRING, problem) if now is not None else _fatal(Kind.WIRING, problem)
        stale = self.survey.stale
        if stale is not None and stale is not self.survey.problem:
            yield _told(Kind.NODES, stale)
        unseen = self.unseen()
        if unseen is not None:
            yield _told(Kind.METRICS, unseen)
        yield from self.announced()
        if now is not None:
            yield from self._pool()

    def _pool(self) -> Iterator[Trouble]:
        """A pool without a free address is well: its pods run, and were they evicted, the next would fill it again.
        Who comes while there is none is told so by ADD. A node that has no addresses at all, and no pods, is no node
        for pods; that it would attract them for ever, since it has none, is what STATUS can prevent."""
        counts = self.node.ledger.counts()
        if not counts:
            none = f"node {self.node_name} has no addresses for pods"
            shortage = self.fabric.shortage(Exhausted(none, "give it pod CIDRs in the list of nodes"))
            if not shortage.may_end and not self.node.ledger.records():
                yield _fatal(Kind.POOL, shortage.failure)
            elif not shortage.may_end:
                yield Trouble(Kind.POOL, shortage.failure, bars_adds=True)
        for family in sorted({one.block.family for one in counts}):
            pool = [one for one in counts if one.block.family == family]
            if not any(one.free for one in pool):
                shortage = self.fabric.shortage(_full(family, pool))
                if not shortage.may_end:  # else an ADD waits for a moment and is served then
                    yield Trouble(Kind.POOL, shortage.failure, bars_adds=True)

    def _impaired(self, now: Surroundings, told: Told) -> Iterator[Trouble]:
        """What is never fatal, whatever it is."""
        if self.survey.unseen is not None:
            yield _told(Kind.HOST, self.survey.unseen)
        for finding in self.findings():
            yield _told(Kind.HOST, finding)
        if now.unserved:
            names = few([one.peer for one in now.unserved])
            failure = Limited(f"pods on these nodes cannot be reached: {names}", now.unserved[0].why)
            yield Trouble(Kind.PEERS, failure, len(now.unserved))
        for kind, complaints in told.complaints.items():
            for one in complaints:
                yield Trouble(kind, one.failure, one.count)
        away = strays(self.node.ledger.records().values(), now.site, now.peers)
        if away:
            names = few([str(one) for one in away])
            failure = Limited(
                f"these pods have addresses that are not of {self.node_name} any more: {names}",
                "other nodes do not reach them, and others may be given the same addresses: delete these pods to have "
                "them made anew, or give the range back in the list of nodes",
            )
            yield Trouble(Kind.UNDELIVERED, failure, len(away))
        failing = self.repair.diary.failing
        for kind in (Kind.OBJECTS, Kind.PODS):
            whats = [one for one in failing if one.startswith(OF_POD) == (kind is Kind.PODS)]
            if whats:
                failure = Limited(f"could not be put right: {few(whats)}", str(failing[whats[0]]))
                yield Trouble(kind, failure, len(whats))

    def snapshot(self) -> Snapshot:
        """The numbers for Prometheus."""
        now = self.survey.now
        told = self._of_backend()
        troubles = self._troubles(told)
        return Snapshot(
            leases=len(self.node.ledger.records()),
            blocks=tuple(self.node.ledger.counts()),
            peers=max(0, len(now.peers) - 1) if now else 0,
            unserved=len(now.unserved) if now else 0,
            routes=self.repair.routes,
            repairs=self.repair.diary.counts,
            nodes_stale=self.survey.stale is not None,
            spooled=len(self.spool),
            waiting=self.waiting(),
            is_ready=not any(one.is_fatal for one in troubles),
            problems={
                kind: sum(one.count for one in troubles if one.kind == kind) for kind in (*Kind, *told.complaints)
            },
            log_dropped=self.log_dropped(),
            pass_age=self.pass_age(),
            measures=told.measures,
        )

    def document(self) -> dict[str, Any]:
        """Everything, for ``routablectl status --json``: plain values alone."""
        now = self.survey.now
        stale = self.survey.stale
        told = self._of_backend()
        return {
            "node": self.node_name,
            "backend": self.switch.backend,
            "switch": self.switch.progress(),
            "version": self.version,
            "problems": [plain.problem(one) for one in self._troubles(told)],
            "site": plain.site(now) if now else None,
            "pool": [plain.counts(one) for one in self.node.ledger.counts()],
            "leases": [plain.lease(record) for record in self.node.ledger.records().values()],
            "peers": plain.peers(now, self.node_name) if now else [],
            "nodes_source": self.survey.origin,
            "nodes_error": str(stale) if stale else "",
            "repairs": dict(self.repair.diary.counts),
            "events": [{"time": one.time, "text": one.text} for one in tuple(self.repair.diary.entries)],
            "spooled": len(self.spool),
            "waiting": self.waiting(),
            "cloud": None,  # unless there is one, which tells
            **told.sections,
        }

    def _of_backend(self) -> Told:
        """What the backend says of itself."""
        return together(one.told() for one in (self.fabric, *self.tellers))


def _fatal(kind: Kind, failure: Failure) -> Trouble:
    may_end = isinstance(failure, TryAgain) and kind is Kind.WIRING
    return Trouble(kind, NotReady(failure.message, failure.details), is_fatal=True, may_end=may_end, bars_adds=True)


def _told(kind: Kind, failure: Failure) -> Trouble:
    return Trouble(kind, Limited(failure.message, failure.details))


def _full(family: int, pool: Sequence[Counts]) -> Failure:
    used, total, cooling = (sum(getattr(one, name) for one in pool) for name in ("used", "total", "cooling"))
    kind = TryAgain if cooling else Exhausted
    return kind(
        f"no free IPv{family} address: {used} of {total} in use, {cooling} cooling down",
        "run fewer pods on this node, or give it a further pod CIDR",
    )
