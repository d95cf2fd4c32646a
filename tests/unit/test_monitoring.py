"""deploy/monitoring: rules and a dashboard that ask for what agents say, and a manual that explains all of it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from netaddr import IPAddress, IPNetwork
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from agent.tell import metrics
from agent.tell.metrics import Metrics, Snapshot
from agent.tell.trouble import Kind
from backends.bgp import told as speaker
from backends.bgp.seen import Seen
from backends.bgp.sessions import Session, Speech
from backends.bgp.table import BgpTable
from backends.cloud.report import Report
from backends.gcp import fabric as gcp
from ipam.family import Counts
from ipam.lease import Block
from tests.deploy.expressions import wrong

ROOT: Final = Path(__file__).parents[2]
PLACE: Final = ROOT / "deploy/monitoring"
MANUAL: Final = (ROOT / "docs/monitoring.md").read_text()
GROUPS: Final = yaml.safe_load((PLACE / "alerts.yaml").read_text())["groups"]
RULES: Final = [rule for group in GROUPS for rule in group["rules"]]
ALERTS: Final = {rule["alert"]: rule for rule in RULES if "alert" in rule}
CASES: Final = [case for file in PLACE.glob("*_test.yaml") for case in yaml.safe_load(file.read_text())["tests"]]
DASHBOARD: Final = json.loads((PLACE / "dashboard.json").read_text())
SELECTED: Final = {"app.kubernetes.io/name": "routable", "app.kubernetes.io/component": "agent"}
PANELS: Final = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def agents() -> dict[str, frozenset[str]]:
    """The labels of each metric that an agent's page has, by name: of all backends together."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    measured = Metrics(registry)
    measured.request("ADD", 0, 0.001)
    with measured.phase("ADD", "save"):
        pass
    cloud = Report("EC2", 1, 3, (), (), {("AssignPrivateIpAddresses", ""): 1})
    session = Session("rack1", "rack1", IPAddress("192.0.2.254"), 64512, 64513, (4,))
    speech = Speech("a", 64513, "192.0.2.1", (session,), (), ())
    bgp = speaker.told(BgpTable(), Seen(speech=speech), 0.0)
    now = Snapshot(
        blocks=(Counts(Block(IPNetwork("10.1.0.0/24"), "a"), total=253, used=2, cooling=1, free=250),),
        repairs={"route": 1},
        problems=dict.fromkeys(Kind, 0),
        measures=(*cloud.told().measures, *gcp.measures(1, 100), *bgp.measures),
    )
    metrics.show(registry, lambda: now, {"node": "a", "backend": "static", "version": "0"})
    text = metrics.page(registry)[1].decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {sample.name: frozenset(sample.labels) for sample in samples}


AGENTS: Final = agents()
RECORDED: Final = {rule["record"]: frozenset(("family",)) for rule in RULES if "record" in rule}
ALERTING: Final = frozenset(("alertname", "alertstate", "severity"))
THERE: Final = {**AGENTS, **RECORDED, "up": frozenset[str](), "ALERTS": ALERTING}
"""All that there is to be asked for: what agents say, what rules record, what Prometheus adds."""


# --- rules --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_nearly_does(alert: str) -> None:
    """Both are named after it."""
    found = {
        (case["name"].startswith(f"{alert} fires"), bool(one["exp_alerts"]))
        for case in CASES
        for one in case["alert_rule_test"]
        if one["alertname"] == alert and re.match(rf"{alert} (fires|is silent: )", case["name"])
    }
    assert (True, True) in found
    assert (False, False) in found
    assert (False, True) not in found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_rules_ask_for_what_there_is(rule: Mapping[str, Any]) -> None:
    """By metrics and labels; an alert's own words, too."""
    asked = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule.get("annotations", {}))))
    assert list(wrong(rule["expr"], THERE, asked)) == []


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_says_how_bad_it_is_what_is_wrong_and_what_to_do(alert: str) -> None:
    """And names its section in the manual, which is there."""
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"docs/monitoring.md#{alert.lower()}"
    assert f"\n### {alert}\n" in MANUAL


def test_the_manual_explains_no_alert_that_there_is_not() -> None:
    """In the order of the rules."""
    assert re.findall(r"^### (\w+)$", MANUAL, re.MULTILINE) == list(ALERTS)


def test_every_kind_of_problem_has_an_alert() -> None:
    """One for all that has no other: what that leaves out has an alert of its own, or is told by another metric."""
    every = {*map(str, Kind), *speaker.told(BgpTable(), Seen(), 0.0).complaints}
    left_out = set("|".join(re.findall(r'kind!~"([^"]*)"', ALERTS["RoutableOtherProblem"]["expr"])).split("|"))
    asked = "|".join(kinds for rule in RULES for kinds in re.findall(r'kind=~?"([^"]*)"', rule["expr"]))
    own = set(asked.split("|"))
    otherwise = {
        Kind.AGENT: "routable_ready",
        Kind.JOURNAL: "routable_ready",
        Kind.NODES: "routable_nodes_stale",
        Kind.PEERS: "routable_peers_unserved",
        Kind.METRICS: "up",
    }
    assert left_out == own | {str(kind) for kind in otherwise}
    assert left_out <= every
    assert all(any(name in rule["expr"] for rule in ALERTS.values()) for name in otherwise.values())


# --- dashboard ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_panels_ask_for_what_there_is(panel: Mapping[str, Any]) -> None:
    """By metrics and labels; and name what they show by labels that it has."""
    for target in panel["targets"]:
        assert list(wrong(target["expr"], THERE, re.findall(r"{{(\w+)}}", target["legendFormat"]))) == []


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_panels_say_what_they_show_and_in_what_unit(panel: Mapping[str, Any]) -> None:
    """And ask the data source, and the cluster, that were chosen."""
    assert panel["description"]
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"]
        assert 'cluster=~"$cluster"' in target["expr"]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_panels_can_be_had_of_thousands_of_nodes(panel: Mapping[str, Any]) -> None:
    """Over time all together alone are shown; of single nodes a few, as they are now, or the one that was chosen."""
    for target in panel["targets"]:
        query = target["expr"]
        is_of_all = re.match(r"(sort_desc\()?(sum|count|avg|max|min|histogram_quantile)\b", query)
        is_of_few = target["instant"] and re.match(r"(sort\()?(topk|bottomk)\(\d+, ", query)
        assert is_of_all or is_of_few or 'instance=~"$instance"' in query


def test_the_dashboards_parts_are_in_place() -> None:
    """No two of one number, name or place; the variables that are asked for are there."""
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    places = [{(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
              for at in (panel["gridPos"] for panel in panels)]  # fmt: skip
    assert all(one.isdisjoint(other) for one, other in combinations(places, 2))
    assert all(x < 24 for place in places for x, _ in place)
    known = {one["name"] for one in DASHBOARD["templating"]["list"]}
    used = {name for panel in PANELS for target in panel["targets"] for name in re.findall(r"\$(\w+)", target["expr"])}
    assert used - {"__rate_interval"} <= known


def test_nodes_are_chosen_by_name_though_they_are_asked_for_by_address() -> None:
    """As Grafana takes the two apart from what Prometheus answers."""
    (variable,) = [one for one in DASHBOARD["templating"]["list"] if one["name"] == "instance"]
    answer = 'routable_info{backend="static", instance="192.0.2.1:9472", job="routable", node="node-a"} 1 1700000000'
    pattern = variable["regex"].removeprefix("/").removesuffix("/g").replace("(?<", "(?P<")
    found: dict[str, str] = {}
    for match in re.finditer(pattern, answer):
        found |= {key: value for key, value in match.groupdict().items() if value}
    assert found == {"text": "node-a", "value": "192.0.2.1:9472"}


# --- how it comes there -------------------------------------------------------------------------------------------


def test_the_operator_is_told_the_same() -> None:
    """The pods, the name of the job, and the node's name."""
    spec = yaml.safe_load((PLACE / "podmonitor.yaml").read_text())["spec"]
    assert spec["selector"]["matchLabels"] == SELECTED
    (endpoint,) = spec["podMetricsEndpoints"]
    template = yaml.safe_load((ROOT / "deploy/base/daemonset.yaml").read_text())["spec"]["template"]
    assert template["metadata"]["labels"].items() >= SELECTED.items()
    (container,) = template["spec"]["containers"]
    assert endpoint["port"] in [port["name"] for port in container["ports"] if port["containerPort"] == 9472]
    given = {one["targetLabel"]: one.get("replacement") or one["sourceLabels"] for one in endpoint["relabelings"]}
    assert given == {"job": "routable", "node": ["__meta_kubernetes_pod_node_name"]}


def test_the_manual_makes_a_prometheusrule_of_the_rules(tmp_path: Path) -> None:
    """By the lines that it gives, with a kubectl that shows what it is given."""
    block = re.search(r"```sh\n(\{ printf .*?)```", MANUAL, re.DOTALL)
    assert block is not None
    (tmp_path / "kubectl").write_text('#!/bin/sh\n[ "$5" = - ] && cat || echo "--- {}"\n')
    (tmp_path / "kubectl").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(
        ["sh", "-euc", block[1]], cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=30
    )
    rule, _ = yaml.safe_load_all(done.stdout)
    assert rule["kind"] == "PrometheusRule"
    assert rule["spec"] == {"groups": GROUPS}


def test_what_is_made_into_configmaps_is_there() -> None:
    """And fits: what `kubectl apply` remembers of an object may have 256 KiB."""
    document = yaml.safe_load((PLACE / "kustomization.yaml").read_text())
    files = [PLACE / file for one in document["configMapGenerator"] for file in one["files"]]
    assert {file.name for file in files} == {"alerts.yaml", "dashboard.json"}
    assert all(file.stat().st_size < 1 << 17 for file in files)


def test_the_manual_lists_every_metric() -> None:
    """Those that there are, no others; a histogram by its own name, what ends alike after the first of its row."""
    table = MANUAL[MANUAL.index("## Metrics") :]
    listed: set[str] = set()
    for row in re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE):
        first, *more = re.findall(r"`([^`]*)`", row)
        listed |= {first, *(one.replace("…", first) if one.startswith("…") else one for one in more)}
    there = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in AGENTS}
    there = {f"{name}_total" if f"{name}_total" in AGENTS else name for name in there}
    assert listed - {"process_…"} == {name for name in there if not name.startswith("process_")}


# --- the tests themselves -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ('sum by (kind) (rate(routable_repairs_total{kind!="x"}[5m])) * 60 > 0', []),
        ("rate(routable_repairs[5m]) / routable_peers", ["no metric routable_repairs"]),
        ('routable_ready{kind="a", job="b"} == bool 0', ["routable_ready has no label kind"]),
        ("sum without (kind, nobody) (routable_problems)", ["no label nobody"]),
        ("a:b:sum and on (node) up unless offset", ["no metric a:b:sum"]),
        ('label_replace(routable_peers, "family", "none_of_all", "", "")', []),
    ],
)
def test_what_is_not_there_is_found(expression: str, found: list[str]) -> None:
    """Metrics and labels, and no words of the language."""
    assert list(wrong(expression, THERE)) == found
