"""Metrics: what a scrape shows after requests were served, and what serving them costs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from netaddr import IPNetwork
from prometheus_client import CollectorRegistry

from agent.tell import metrics
from agent.tell.metrics import Metrics, Snapshot
from backends.cloud.report import Report
from cni.spec import Verb
from ipam.family import Counts
from ipam.lease import Block

INFO = {"backend": "static", "node": "a", "version": "0.1.0"}


def lines(registry: CollectorRegistry, pattern: str) -> list[str]:
    """The sample lines of a scrape whose beginning matches, without the creation times."""
    _, body = metrics.page(registry)
    return [line for line in body.decode().splitlines() if re.match(pattern, line) and "_created" not in line]


def ticking(step: float) -> Callable[[], float]:
    """A clock that advances by *step* seconds per look."""
    times: Iterator[float] = (step * n for n in range(1000))
    return lambda: next(times)


@pytest.fixture
def registry() -> CollectorRegistry:
    """A registry of the test's own."""
    return CollectorRegistry()


def test_counts_answers_by_verb_and_code(registry: CollectorRegistry) -> None:
    """Each answer counts once under its verb and code, and its seconds fall into the verb's histogram."""
    made = Metrics(registry)
    made.request("ADD", 0, 0.0009)
    made.request("ADD", 11, 10.5)
    made.request("DEL", 0, 0.02)
    assert lines(registry, r"routable_results_total.* [1-9]") == [
        'routable_results_total{code="0",verb="ADD"} 1.0',
        'routable_results_total{code="0",verb="DEL"} 1.0',
        'routable_results_total{code="11",verb="ADD"} 1.0',
    ]
    assert lines(registry, r'routable_request_seconds_bucket\{le="(0.0005|0.001|10.0|\+Inf)",verb="ADD"') == [
        'routable_request_seconds_bucket{le="0.0005",verb="ADD"} 0.0',
        'routable_request_seconds_bucket{le="0.001",verb="ADD"} 1.0',
        'routable_request_seconds_bucket{le="10.0",verb="ADD"} 1.0',
        'routable_request_seconds_bucket{le="+Inf",verb="ADD"} 2.0',
    ]


def test_every_verb_is_there_before_its_first_request(registry: CollectorRegistry) -> None:
    """Rates need a zero to begin from: each verb's success is exposed as 0 from the start."""
    Metrics(registry)
    assert lines(registry, "routable_results_total") == [
        'routable_results_total{code="0",verb="ADD"} 0.0',
        'routable_results_total{code="0",verb="DEL"} 0.0',
        'routable_results_total{code="0",verb="CHECK"} 0.0',
        'routable_results_total{code="0",verb="GC"} 0.0',
        'routable_results_total{code="0",verb="STATUS"} 0.0',
        'routable_results_total{code="0",verb="VERSION"} 0.0',
    ]


def test_measures_phases_whatever_becomes_of_them(registry: CollectorRegistry) -> None:
    """A phase's seconds are observed by verb and name, also when it fails."""
    made = Metrics(registry, ticking(0.25))
    with made.phase("ADD", "save"):
        pass
    with pytest.raises(OSError), made.phase("ADD", "save"):
        raise OSError
    assert lines(registry, "routable_phase_seconds_(sum|count)") == [
        'routable_phase_seconds_count{phase="save",verb="ADD"} 2.0',
        'routable_phase_seconds_sum{phase="save",verb="ADD"} 0.5',
    ]


def test_no_caller_makes_labels(registry: CollectorRegistry) -> None:
    """Whatever CNI_COMMAND holds, only the specification's verbs and one other value become labels."""
    made = Metrics(registry)
    for number in range(100):
        made.request(f"HACK{number}", 4, 0.001)
        with made.phase(f"HACK{number}", "parse"):
            pass
    verbs = {one for line in lines(registry, "routable_") for one in re.findall(r'verb="([^"]*)"', line)}
    assert verbs == {*Verb, "unknown"}
    assert lines(registry, "routable_results_total.*unknown") == [
        'routable_results_total{code="4",verb="unknown"} 100.0'
    ]


def test_shows_what_is_at_the_moment_of_the_scrape(registry: CollectorRegistry) -> None:
    """The snapshot is taken once per scrape, never at registration, and all of it is shown."""
    taken = []
    cloud = Report("EC2", 2, 3, ("full",), (), {("DescribeSubnets", ""): 4, ("DescribeSubnets", "Lost"): 1})
    cloud = cloud._replace(throttled={"DescribeSubnets": 1})

    def snapshot() -> Snapshot:
        taken.append(1)
        return Snapshot(
            leases=len(taken),
            blocks=(Counts(Block(IPNetwork("10.1.0.0/24"), "a"), total=253, used=2, cooling=1, free=250),),
            peers=4,
            unserved=1,
            routes=7,
            repairs={"route": 3, "link": 1},
            nodes_stale=True,
            spooled=2,
            waiting=5,
            is_ready=False,
            pass_age=0.5,
            problems={"pods": 0, "peers": 1},
            measures=cloud.told().measures,
        )

    metrics.show(registry, snapshot, INFO)
    assert taken == []
    shown = lines(registry, r"routable_(?!request|phase|results)")
    assert taken == [1]
    assert shown == [
        'routable_info{backend="static",node="a",version="0.1.0"} 1.0',
        "routable_leases 1.0",
        "routable_peers 4.0",
        "routable_peers_unserved 1.0",
        "routable_routes 7.0",
        "routable_nodes_stale 1.0",
        "routable_spooled 2.0",
        "routable_waiting 5.0",
        "routable_ready 0.0",
        "routable_pass_age_seconds 0.5",
        'routable_problems{kind="peers"} 1.0',
        'routable_problems{kind="pods"} 0.0',
        'routable_addresses{block="10.1.0.0/24",owner="a"} 253.0',
        'routable_addresses_free{block="10.1.0.0/24",owner="a"} 250.0',
        'routable_addresses_cooling{block="10.1.0.0/24",owner="a"} 1.0',
        'routable_repairs_total{kind="link"} 1.0',
        'routable_repairs_total{kind="route"} 3.0',
        "routable_log_lines_dropped_total 0.0",
        "routable_cloud_interfaces 2.0",
        "routable_cloud_interfaces_max 3.0",
        "routable_cloud_obstacles 1.0",
        "routable_cloud_under_way 0.0",
        'routable_cloud_calls_total{action="DescribeSubnets",error=""} 4.0',
        'routable_cloud_calls_total{action="DescribeSubnets",error="Lost"} 1.0',
        'routable_cloud_throttled_total{action="DescribeSubnets"} 1.0',
    ]
    assert lines(registry, "routable_leases") == ["routable_leases 2.0"]


def test_calls_that_were_throttled_count_from_zero_for_each_action() -> None:
    """A rate needs a zero to begin from: where an action was called at all, it is there."""
    calls = {("DescribeSubnets", ""): 4, ("AttachNic", "SlowDown"): 2, ("AttachNic", ""): 1}
    measures = {one.name: one for one in Report("EC2", 2, 3, (), (), calls, throttled={"AttachNic": 2}).told().measures}
    assert measures["routable_cloud_throttled"].numbers == [(("AttachNic",), 2), (("DescribeSubnets",), 0)]


def test_two_agents_in_one_process_do_not_meet() -> None:
    """Each registry has its own metrics: nothing is global."""
    one, other = CollectorRegistry(), CollectorRegistry()
    Metrics(one).request("ADD", 0, 1)
    Metrics(other)
    assert lines(other, "routable_request_seconds_count.*ADD") == ['routable_request_seconds_count{verb="ADD"} 0.0']
