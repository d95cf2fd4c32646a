"""deploy/monitoring as Prometheus itself takes it: the rules, what they tell when, the queries, the targets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import yaml

PLACE: Final = Path(__file__).parents[2] / "deploy/monitoring"
RULES: Final = [
    rule for group in yaml.safe_load((PLACE / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
]
SELECTED: Final = "app.kubernetes.io/name=routable,app.kubernetes.io/component=agent"
VARIABLES: Final = {"$__rate_interval": "5m", "$cluster": ".*", "$instance": "a"}


def promtool(*words: str | Path) -> str:
    """What it printed; it has nothing to object to."""
    run = Path(sys.prefix) / "debian/run"
    done = subprocess.run([run, "promtool", *words], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def plain(expression: str) -> str:
    """A query of the dashboard as Grafana sends it."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def test_prometheus_takes_the_rules() -> None:
    """All of them."""
    assert f"SUCCESS: {len(RULES)} rules found" in promtool("check", "rules", PLACE / "alerts.yaml")


def test_the_alerts_say_what_their_tests_say() -> None:
    """Each fires with its labels and in its words, and is silent where it nearly fires."""
    assert "SUCCESS" in promtool("test", "rules", PLACE / "alerts_test.yaml", PLACE / "alerts_hours_test.yaml")


def test_prometheus_takes_each_query(tmp_path: Path) -> None:
    """Tried as the rule that would record it."""
    panels = json.loads((PLACE / "dashboard.json").read_text())["panels"]
    queries = [plain(target["expr"]) for panel in panels for target in panel.get("targets", ())]
    rules = [{"record": f"q:{at}", "expr": query} for at, query in enumerate(queries)]
    file = tmp_path / "queries.yaml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML, too
    assert f"SUCCESS: {len(rules)} rules found" in promtool("check", "rules", file)


def test_prometheus_takes_the_scrape_configuration(tmp_path: Path) -> None:
    """With targets of a list: Debian's Prometheus is built without Kubernetes."""
    document = yaml.safe_load((PLACE / "scrape.yaml").read_text())
    (job,) = document["scrape_configs"]
    assert job["job_name"] == "routable"
    (found,) = job.pop("kubernetes_sd_configs")
    assert found == {"role": "pod", "selectors": [{"role": "pod", "label": SELECTED}]}
    job["static_configs"] = [{"targets": ["192.0.2.1:9472"]}]
    (tmp_path / "alerts.yaml").symlink_to(PLACE / "alerts.yaml")
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(document))
    assert "SUCCESS" in promtool("check", "config", tmp_path / "prometheus.yaml")
