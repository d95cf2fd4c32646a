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
class Rendered:
    """All objects of one folder."""

    objects: tuple[dict[str, Any], ...]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Those of a *kind*."""
        return [one for one in self.objects if one["kind"] == kind]

    @property
    def daemonset(self) -> dict[str, Any]:
        """The agent's."""
        return next(one for one in self.of("DaemonSet") if one["metadata"]["name"].startswith("routable-agent"))

    @property
    def pod(self) -> dict[str, Any]:
        """The spec of its pods."""
        found: dict[str, Any] = self.daemonset["spec"]["template"]["spec"]
        return found

    @property
    def agent(self) -> dict[str, Any]:
        """Their container of the agent, or the only one."""
        (found,) = [one for one in self.pod["containers"] if one["name"] == "agent" or len(self.pod["containers"]) == 1]
        return dict(found)

    @property
    def config(self) -> str:
        """The agent's configuration, as the pod has it."""
        name = next(one["configMap"]["name"] for one in self.pod["volumes"] if "configMap" in one)
        (found,) = (one for one in self.of("ConfigMap") if one["metadata"]["name"] == name)
        return str(found["data"]["agent.toml"])

    def mounted(self) -> dict[str, dict[str, Any]]:
        """What is mounted in the container, by path: the mount and its volume, in one."""
        volumes = {one["name"]: one for one in self.pod["volumes"]}
        return {one["mountPath"]: {**volumes[one["name"]], **one} for one in self.agent["volumeMounts"]}


@cache
def rendered(folder: str) -> Rendered:
    """The objects of ``deploy/FOLDER``."""
    command = [str(KUBECTL), "kustomize", str(DEPLOY / folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Rendered(tuple(yaml.safe_load_all(done.stdout)))
