"""What is in deploy/: it is valid for Kubernetes, and what it says to the agent and of the agent is so."""

from __future__ import annotations

import configparser
import re
import subprocess
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest

import backends
from agent.config import load as configuration
from agent.config.schema import Config
from deploy.lock import ROOT, asked
from tests.deploy.manifests import DEPLOY, KUBECTL, OVERLAYS, rendered

FOLDERS = [*(f"overlays/{one}" for one in OVERLAYS), "uninstall"]
VERSIONS = ["1.30", kubernetes_validate.latest_version()]
"""The oldest that docs/kubernetes.md promises, and the newest whose schemas are to be had."""
OVERLAID = pytest.mark.parametrize("overlay", OVERLAYS)


@pytest.fixture
def config(overlay: str, tmp_path: Path) -> Config:
    """The configuration of an overlay, as the agent reads it."""
    file = tmp_path / "agent.toml"
    file.write_text(rendered(f"overlays/{overlay}").config)
    return configuration.load(str(file), hostname="node-a")


def test_kubectl_is_a_current_one() -> None:
    """Its kustomize is what people have."""
    said = subprocess.run([KUBECTL, "version", "--client"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"v1\.(\d+)", said)
    assert found is not None
    assert int(found[1]) >= 36


def test_every_backend_has_an_overlay_of_its_name() -> None:
    """And no other folder is there."""
    assert set(OVERLAYS) == set(backends.BACKENDS)


@pytest.mark.parametrize("folder", [*FOLDERS, "monitoring"])
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_accepts_every_object(folder: str, version: str) -> None:
    """By its own schemas, unknown fields refused."""
    for one in rendered(folder).objects:
        kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_is_in_a_namespace_is_in_the_one_of_the_system(folder: str) -> None:
    """A priority class of the system is nowhere as surely allowed as there."""
    for one in rendered(folder).objects:
        if not one["kind"].startswith("Cluster"):
            assert one["metadata"]["namespace"] == "kube-system", one["metadata"]["name"]


@OVERLAID
def test_the_agent_takes_its_configuration(overlay: str, config: Config) -> None:
    """It chooses the backend that the folder is called after, and takes its peers from the API server, where it needs
    any."""
    assert config.backend == overlay
    if backends.load(overlay).needs_nodes:
        assert config.nodes.source == "kubernetes"


@OVERLAID
def test_what_the_agent_keeps_and_what_the_runtime_reads_is_the_machines(overlay: str, config: Config) -> None:
    """Socket, journal, spool, conflist and executables are where the machine has them, by the same paths: the
    executable runs there, and an agent without a container would find the same."""
    mounts = rendered(f"overlays/{overlay}").mounted()
    for path in (config.paths.socket, config.paths.state, f"{config.paths.spool}/1", config.cni.conflist):
        place = next(one for one in mounts if Path(path).is_relative_to(one))
        assert mounts[place]["hostPath"]["path"] == place
    assert mounts[config.cni.executables]["hostPath"]["path"] == config.cni.executables
    assert mounts[f"{config.paths.sysctls}/net"]["hostPath"] == {"path": "/proc/sys/net", "type": "Directory"}
    for path in ("/run/netns", "/var/run/netns"):
        assert mounts[path]["mountPropagation"] == "HostToContainer"
        assert mounts[path]["hostPath"]["path"] == "/run/netns"


@OVERLAID
def test_the_probes_ask_where_the_agent_answers(overlay: str, config: Config) -> None:
    """kubelet is on the same network, so the loopback address will do."""
    agent = rendered(f"overlays/{overlay}").agent
    assert config.metrics.endpoint is not None
    host, port = config.metrics.endpoint
    for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert agent[probe]["httpGet"] == {"host": host, "port": port, "path": path}


@OVERLAID
def test_the_agent_has_the_power_that_the_unit_gives_it_and_no_more(overlay: str) -> None:
    """Not privileged; the same capabilities as systemd's unit has. Where SELinux is enforced it may write what is the
    node's, by files that are of no category."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.read(DEPLOY / "routable-agent.service")
    context = rendered(f"overlays/{overlay}").agent["securityContext"]
    assert context["privileged"] is False
    assert context["capabilities"]["drop"] == ["ALL"]
    has = {f"CAP_{one}" for one in context["capabilities"]["add"]}
    assert has == set(unit["Service"]["CapabilityBoundingSet"].split())
    assert context["seLinuxOptions"] == {"type": "spc_t", "level": "s0"}


@OVERLAID
def test_the_agent_runs_on_every_node_before_all_else(overlay: str) -> None:
    """Whatever the node is tainted with, on the node's network, and it is not thrown out for others."""
    one = rendered(f"overlays/{overlay}")
    assert one.pod["tolerations"] == [{"operator": "Exists"}]
    assert one.pod["priorityClassName"] == "system-node-critical"
    assert one.pod["hostNetwork"] is True
    assert one.daemonset["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"]
    assert one.agent["resources"]["requests"].keys() == {"cpu", "memory"}


@OVERLAID
def test_where_the_image_is_from_is_one_patch(overlay: str) -> None:
    """Name, tag and pull policy are in image.yaml alone; the tag is this version's, and names the cloud whose library
    is in it. No registry is needed where the image was loaded by hand."""
    text = (DEPLOY / "overlays" / overlay / "image.yaml").read_text()
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    table = backends.BACKENDS[overlay]
    extra = table if table in asked((ROOT / "setup.cfg").read_text()) else ""
    image = f"localhost/routable:{setup['metadata']['version']}{extra and f'-{extra}'}"
    for one in rendered(f"overlays/{overlay}").of("DaemonSet"):
        (container,) = one["spec"]["template"]["spec"]["containers"]
        assert (container["image"], container["imagePullPolicy"]) == (image, "IfNotPresent")
    assert text.count(image) == text.count("IfNotPresent") == 1
    others = [one.read_text() for one in DEPLOY.rglob("*.yaml") if one.name != "image.yaml"]
    assert not any("imagePullPolicy" in one or "localhost/" in one for one in others)


def test_uninstalling_runs_once_and_then_says_that_it_is_done() -> None:
    """By pods that no agent's DaemonSet takes for its own, with what the agent has, so that it can be undone."""
    one = rendered("uninstall")
    (first,) = one.pod["initContainers"]
    assert first["command"] == ["routablectl", "uninstall", "--yes"]
    assert one.agent["command"] == ["sleep", "infinity"]
    assert first["name"] != one.agent["name"]
    agents = rendered("overlays/static")
    assert one.daemonset["spec"]["selector"] != agents.daemonset["spec"]["selector"]
    assert one.daemonset["metadata"]["name"] != agents.daemonset["metadata"]["name"]
    assert first["volumeMounts"] == agents.agent["volumeMounts"]
    assert first["securityContext"] == agents.agent["securityContext"]
    assert not one.of("ClusterRole") and not one.of("ClusterRoleBinding")
    ours, theirs = tomllib.loads(one.config), tomllib.loads(agents.config)
    assert (ours["paths"], ours["cni"]) == (theirs["paths"], theirs["cni"])


def test_the_rules_and_the_dashboard_come_as_they_are() -> None:
    """In ConfigMaps of fixed names; Grafana's sidecar knows the dashboard by its label."""
    rules, dashboard = sorted(rendered("monitoring").of("ConfigMap"), key=lambda one: str(one["metadata"]["name"]))
    assert rules["metadata"]["name"] == "routable-alerts"
    assert rules["data"] == {"alerts.yaml": (DEPLOY / "monitoring/alerts.yaml").read_text()}
    assert dashboard["metadata"] == {"name": "routable-dashboard", "labels": {"grafana_dashboard": "1"}}
    assert dashboard["data"] == {"dashboard.json": (DEPLOY / "monitoring/dashboard.json").read_text()}


def test_bird_has_pods_of_its_own() -> None:
    """So that a new agent ends no session; of the agent's image, with its configuration and the directory that it
    writes to; started by nobody else."""
    one = rendered("overlays/bgp")
    agent, bird = one.agent, one.pods("routable-bird").container
    assert (bird["image"], bird["imagePullPolicy"]) == (agent["image"], agent["imagePullPolicy"])
    assert bird["command"] == ["routablectl", "bgp", "run"]
    assert bird["securityContext"]["seLinuxOptions"] == agent["securityContext"]["seLinuxOptions"]
    assert tomllib.loads(one.config)["bgp"]["start_bird"] is False
    assert all(mount in agent["volumeMounts"] for mount in bird["volumeMounts"])
    assert [mount["name"] for mount in bird["volumeMounts"]] == ["config", "run"]
    assert one.daemonset["spec"]["selector"] != one.named("routable-bird")["spec"]["selector"]
    assert one.pod["hostPID"] is True  # by its number the agent knows whom it speaks with
