"""What the agent tells Prometheus.

Two kinds: what is measured as it happens (requests and their phases; about a microsecond each, under no lock of the
agent's), and what simply is (leases, addresses, peers, routes), read by a callable when somebody scrapes. Labels
have few values by construction: nothing that a caller sends becomes one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from backends.told import Measure
from cni.spec import Verb
from ipam.family import Counts

REQUEST_BUCKETS: Final = (
    0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10
)  # fmt: skip
"""Seconds. Dense where an ADD (1-5 ms) and a DEL (20 ms in the kernel) are; 10 s is how long an ADD may wait."""

PHASE_BUCKETS: Final = (0.00005, 0.0001, 0.00025, *REQUEST_BUCKETS)
"""Seconds. Phases begin where parsing ends."""

UNKNOWN_VERB: Final = "unknown"
"""The label of whatever CNI_COMMAND is none of the specification's."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is at the moment of a scrape.

    *unserved*: peers that the backend cannot reach; *repairs*: since start, by kind; *nodes_stale*: the list of
    nodes cannot be used as it is now, the last good one is; *spooled*: DELs that wait to be replayed; *problems*: what
    is wrong, by kind; *log_dropped*: lines of the log that nobody took; *pass_age*: seconds
    since a pass was completed; *measures*: what the backend measures.
    """

    leases: int = 0
    blocks: tuple[Counts, ...] = ()
    peers: int = 0
    unserved: int = 0
    routes: int = 0
    repairs: Mapping[str, int] = field(default_factory=dict)
    nodes_stale: bool = False
    spooled: int = 0
    waiting: int = 0
    is_ready: bool = True
    problems: Mapping[str, int] = field(default_factory=dict)
    log_dropped: int = 0
    pass_age: float = 0.0
    measures: Sequence[Measure] = ()


class _Clocked:
    """A ``with`` block whose seconds are observed, however it ends."""

    __slots__ = ("_clock", "_observe", "_start")

    def __init__(self, observe: Callable[[float], None], clock: Callable[[], float]) -> None:
        self._observe = observe
        self._clock = clock

    def __enter__(self) -> None:
        self._start = self._clock()

    def __exit__(self, *_: object) -> None:
        self._observe(self._clock() - self._start)


class _AtScrape(Collector):
    """Asks for the snapshot when, and only when, somebody scrapes."""

    def __init__(self, snapshot: Callable[[], Snapshot], info: Mapping[str, str]) -> None:
        self._snapshot = snapshot
        self._info = info

    def describe(self) -> Iterator[Metric]:
        """The names alone: registering takes no snapshot."""
        return self._metrics(Snapshot())

    def collect(self) -> Iterator[Metric]:
        """The metrics of one snapshot."""
        return self._metrics(self._snapshot())

    def _metrics(self, now: Snapshot) -> Iterator[Metric]:
        info = GaugeMetricFamily("routable_info", "What this agent is; always 1.", labels=tuple(self._info))
        info.add_metric(tuple(self._info.values()), 1.0)
        yield info
        for name, help_text, value in (
            ("routable_leases", "Attachments that hold addresses.", now.leases),
            ("routable_peers", "Other nodes in the last good list.", now.peers),
            ("routable_peers_unserved", "Other nodes that the backend cannot reach.", now.unserved),
            ("routable_routes", "Routes of ours in the kernel.", now.routes),
            ("routable_nodes_stale", "1 while the last good list of nodes stands in for a bad one.", now.nodes_stale),
            ("routable_spooled", "DELs that wait in the spool directory.", now.spooled),
            ("routable_waiting", "ADDs that wait for an address.", now.waiting),
            ("routable_ready", "1 while CNI STATUS succeeds: this node's networking can work.", now.is_ready),
            # Not the time of the pass: the node's clock may be wrong by more than what is to be seen.
            ("routable_pass_age_seconds", "Seconds since a pass over the kernel was completed.", now.pass_age),
        ):
            yield GaugeMetricFamily(name, help_text, float(value))
        problems = GaugeMetricFamily("routable_problems", "What is wrong, by kind.", labels=("kind",))
        for kind, number in sorted(now.problems.items()):
            problems.add_metric((kind,), float(number))
        yield problems
        counts: tuple[tuple[str, str, Callable[[Counts], int]], ...] = (
            ("routable_addresses", "Addresses of the block.", lambda one: one.total),
            ("routable_addresses_free", "Addresses that an ADD could get now.", lambda one: one.free),
            ("routable_addresses_cooling", "Addresses released too lately to be given again.", lambda one: one.cooling),
        )
        for name, help_text, count in counts:
            gauge = GaugeMetricFamily(name, help_text, labels=("block", "owner"))
            for one in now.blocks:
                gauge.add_metric((str(one.block.network), one.block.owner), float(count(one)))
            yield gauge
        repairs = CounterMetricFamily("routable_repairs", "Kernel objects put right, by kind.", labels=("kind",))
        for kind, number in sorted(now.repairs.items()):
            repairs.add_metric((kind,), float(number))
        yield repairs
        dropped = CounterMetricFamily("routable_log_lines_dropped", "Lines of the log that nobody took.")
        dropped.add_metric((), float(now.log_dropped))
        yield dropped
        yield from map(_metric, now.measures)


def _metric(measure: Measure) -> Metric:
    family = CounterMetricFamily if measure.is_counter else GaugeMetricFamily
    metric = family(measure.name, measure.help, labels=measure.labels)
    for values, number in sorted(measure.numbers):
        metric.add_metric(values, float(number))
    return metric


class Metrics:
    """What is measured as it happens, in *registry*. Safe to use from every thread."""

    def __init__(
        self,
        registry: CollectorRegistry,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._clock = clock
        requests = Histogram(
            "routable_request_seconds",
            "From the whole request read to the answer written.",
            ["verb"],
            registry=registry,
            buckets=REQUEST_BUCKETS,
        )
        self._requests = {verb: requests.labels(verb) for verb in (*Verb, UNKNOWN_VERB)}
        self._results = Counter(
            "routable_results", "Answers by CNI error code; 0 is success.", ["verb", "code"], registry=registry
        )
        self._phases = Histogram(
            "routable_phase_seconds", "Parts of a request.", ["verb", "phase"], registry=registry, buckets=PHASE_BUCKETS
        )
        # Children by label, since labels() costs more than observe(). A lost race makes the same child twice.
        self._result: dict[tuple[str, int], Counter] = {}
        self._phase: dict[tuple[str, str], Histogram] = {}
        for verb in Verb:
            self._result[verb, 0] = self._results.labels(verb, "0")

    def request(self, verb: str, code: int, seconds: float) -> None:
        """Count an answer: *verb* as the caller sent it, *code* 0 or the CNI error's."""
        known = verb if verb in self._requests else UNKNOWN_VERB
        self._requests[known].observe(seconds)
        child = self._result.get((known, code))
        if child is None:
            child = self._result[known, code] = self._results.labels(known, str(code))
        child.inc()

    def phase(self, verb: str, phase: str) -> _Clocked:
        """``with metrics.phase("ADD", "save"): …`` measures that part. *phase* is a word of ours, never a caller's."""
        known = verb if verb in self._requests else UNKNOWN_VERB
        child = self._phase.get((known, phase))
        if child is None:
            child = self._phase[known, phase] = self._phases.labels(known, phase)
        return _Clocked(child.observe, self._clock)


def show(registry: CollectorRegistry, snapshot: Callable[[], Snapshot], info: Mapping[str, str]) -> None:
    """Have what simply is in *registry*, too: *snapshot* is called once per scrape, in the scraper's thread; *info* is
    what ``routable_info`` says."""
    registry.register(_AtScrape(snapshot, info))


def page(registry: CollectorRegistry) -> tuple[str, bytes]:
    """What /metrics answers now: the content type and the text."""
    return CONTENT_TYPE_LATEST, generate_latest(registry)
