"""What ``kubectl apply -k`` would send."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
KUBECTL: Final = Path(sys.executable).parent / "kubectl"
OVERLAYS: Final = sorted(one.name for one in (DEPLOY / "overlays").iterdir())


@dataclass(frozen=True, slots=True)
class Pods:
    """What a DaemonSet makes: *spec* is a pod's."""

    spec: dict[str, Any]

    @property
    def container(self) -> dict[str, Any]:
        """The only one."""
        (found,) = self.spec["containers"]
        return dict(found)

    def mounted(self) -> dict[str, dict[str, Any]]:
        """What is mounted in the container, by path: the mount and its volume, in one."""
        volumes = {one["name"]: one for one in self.spec["volumes"]}
        return {one["mountPath"]: {**volumes[one["name"]], **one} for one in self.container["volumeMounts"]}


@dataclass(frozen=True, slots=True)
class Rendered:
    """All objects of one folder."""

    objects: tuple[dict[str, Any], ...]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Those of a *kind*."""
        return [one for one in self.objects if one["kind"] == kind]

    def named(self, name: str) -> dict[str, Any]:
        """The DaemonSet whose name begins so."""
        return next(one for one in self.of("DaemonSet") if one["metadata"]["name"].startswith(name))

    @property
    def daemonset(self) -> dict[str, Any]:
        """The agent's."""
        return self.named("routable-agent")

    def pods(self, name: str = "routable-agent") -> Pods:
        """What the DaemonSet makes whose name begins so."""
        return Pods(self.named(name)["spec"]["template"]["spec"])

    @property
    def pod(self) -> dict[str, Any]:
        """The spec of the agents' pods."""
        return self.pods().spec

    @property
    def agent(self) -> dict[str, Any]:
        """Their only container."""
        return self.pods().container

    def mounted(self) -> dict[str, dict[str, Any]]:
        """What is mounted in that."""
        return self.pods().mounted()

    @property
    def config(self) -> str:
        """The agent's configuration, as the pod has it."""
        name = next(one["configMap"]["name"] for one in self.pod["volumes"] if "configMap" in one)
        (found,) = (one for one in self.of("ConfigMap") if one["metadata"]["name"] == name)
        return str(found["data"]["agent.toml"])


@cache
def rendered(folder: str) -> Rendered:
    """The objects of ``deploy/FOLDER``."""
    command = [str(KUBECTL), "kustomize", str(DEPLOY / folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Rendered(tuple(yaml.safe_load_all(done.stdout)))
