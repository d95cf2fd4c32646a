"""What kubelet makes of the DaemonSet's pod: the manifest, as it is applied, in the words of CRI."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from demo.place import run
from tests.deploy.manifests import Rendered
from tests.runtime.cri import NODE, Pod, Sandbox
from tests.runtime.daemon import Machine

PROPAGATION: Final = {"None": 0, "HostToContainer": 1, "Bidirectional": 2}
ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
SECCOMP: Final = {"RuntimeDefault": 0, "Unconfined": 1}
# kubelet's own, for a container whose procMount is Default: pkg/securitycontext/util.go.
MASKED: Final = (
    *(f"/proc/{one}" for one in ("asound", "acpi", "kcore", "keys", "latency_stats", "timer_list", "timer_stats")),
    *("/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"),
)
READ_ONLY: Final = tuple(f"/proc/{one}" for one in ("bus", "fs", "irq", "sys", "sysrq-trigger"))


@dataclass(slots=True)
class AgentPod:
    """The pod of *manifest* on one node, of *image*, which is there already. *configuration* is its ConfigMap's; the
    API server is at *server* (host, port), and *account* what a service account has of it."""

    machine: Machine
    manifest: Rendered
    image: str
    configuration: Path
    server: tuple[str, int] | None = None
    account: Path | None = None
    sandbox: Sandbox | None = None
    container: str = ""

    def begin(self) -> None:
        """Begin one, of a name that was not there before. Its log is where the node's agent has it else."""
        keys = {"hostNetwork": "network", "hostPID": "pid", "hostIPC": "ipc"}
        shared = tuple(name for key, name in keys.items() if self.manifest.pod.get(key))
        uid, metadata = uuid.uuid4().hex[:5], self.manifest.daemonset["metadata"]
        logs = str(self.machine.node.directory)
        pod = Pod(f"{metadata['name']}-{uid}", uid, metadata["namespace"], namespaces=shared, logs=logs)
        self.sandbox = self.machine.cri.run(pod)
        agent = self.manifest.agent
        self.container = self.machine.cri.start(
            self.sandbox,
            self.image,
            agent.get("command", ()),
            args=agent.get("args", ()),
            envs=[{"key": name, "value": value} for name, value in self._environment().items()],
            mounts=self._mounts(),
            linux={"security_context": _security(agent["securityContext"], shared)},
            log_path=self.machine.node.log.name,
        )

    def end(self) -> None:
        """End it, within the time that it is given."""
        assert self.sandbox is not None
        self.machine.cri.end(self.container, self.manifest.pod["terminationGracePeriodSeconds"])
        self.machine.delete(self.sandbox)

    def _environment(self) -> dict[str, str]:
        fields = {"spec.nodeName": self.machine.node.name}
        made = {
            one["name"]: one["value"] if "value" in one else fields[one["valueFrom"]["fieldRef"]["fieldPath"]]
            for one in self.manifest.agent["env"]
        }
        if self.server is not None:
            made |= {"KUBERNETES_SERVICE_HOST": self.server[0], "KUBERNETES_SERVICE_PORT": str(self.server[1])}
        return made

    def _mounts(self) -> list[dict[str, Any]]:
        mounts = [self._mount(path, one) for path, one in self.manifest.mounted().items()]
        if self.account is not None:
            mounts.append({"container_path": ACCOUNT, "host_path": str(self.account), "readonly": True})
        return mounts

    def _mount(self, path: str, mount: Mapping[str, Any]) -> dict[str, Any]:
        if "configMap" in mount:
            source = str(self.configuration)
        elif "emptyDir" in mount:
            source = str(self.machine.directory / "empty" / mount["name"])
            Path(source).mkdir(parents=True, exist_ok=True)
        else:
            source = mount["hostPath"]["path"]
            make = {"DirectoryOrCreate": "mkdir -p", "FileOrCreate": "touch", "Directory": "test -d"}
            run(*self.machine.enter, "sh", "-c", f"{make[mount['hostPath']['type']]} {source}")
        return {
            "container_path": path,
            "host_path": source,
            "readonly": mount.get("readOnly", False),
            "propagation": PROPAGATION[mount.get("mountPropagation", "None")],
        }


def _security(context: Mapping[str, Any], shared: tuple[str, ...]) -> dict[str, Any]:
    return {
        "capabilities": {
            "add_capabilities": context["capabilities"]["add"],
            "drop_capabilities": context["capabilities"]["drop"],
        },
        "privileged": context["privileged"],
        "namespace_options": dict.fromkeys(shared, NODE),
        "run_as_user": {"value": context["runAsUser"]},
        "readonly_rootfs": context["readOnlyRootFilesystem"],
        "masked_paths": MASKED,
        "readonly_paths": READ_ONLY,
        "seccomp": {"profile_type": SECCOMP[context["seccompProfile"]["type"]]},
    }
