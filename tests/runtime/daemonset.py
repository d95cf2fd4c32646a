"""What kubelet makes of the DaemonSet's pod: the manifest, as it is applied, in the words of CRI."""

from __future__ import annotations

import shutil
import tomllib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cni.errors import Failure
from demo.lab import Lab, eventually, toml
from demo.place import Failed, run
from tests.deploy.manifests import Rendered
from tests.runtime.cri import NODE, Pod
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
    sandbox: str = ""
    container: str = ""

    def start(self) -> None:
        """See `Agent`: one of a name that was not there before."""
        self.begin()
        try:
            eventually("the agent's pod serves", self._serves)
        except Failed as error:
            raise Failed(f"{error}\n{self.machine.node.tail()}") from error

    def begin(self) -> None:
        """The same, not waited for. What is left of another is removed; the log is the node's agent's."""
        if self.sandbox:
            self._removed()
        keys = {"hostNetwork": "network", "hostPID": "pid", "hostIPC": "ipc"}
        shared = tuple(name for key, name in keys.items() if self.manifest.pod.get(key))
        uid, metadata = uuid.uuid4().hex[:5], self.manifest.daemonset["metadata"]
        logs = str(self.machine.node.directory)
        pod = Pod(f"{metadata['name']}-{uid}", uid, metadata["namespace"], namespaces=shared, logs=logs)
        sandbox = self.machine.cri.run(pod)
        self.sandbox = sandbox.id
        agent = self.manifest.agent
        self.container = self.machine.cri.start(
            sandbox,
            self.image,
            agent.get("command", ()),
            args=agent.get("args", ()),
            envs=[{"key": name, "value": value} for name, value in self._environment().items()],
            mounts=self._mounts(),
            linux={"security_context": _security(agent["securityContext"], shared)},
            log_path=self.machine.node.log.name,
        )

    def stop(self) -> None:
        """See `Agent`: within the time that the manifest gives it."""
        self.machine.cri.end(self.container, self.manifest.pod["terminationGracePeriodSeconds"])
        self._removed()

    def kill(self) -> None:
        """See `Agent`."""
        self.machine.cri.end(self.container, 0)
        self.container = ""

    def is_running(self) -> bool:
        """See `Agent`."""
        return bool(self.container)

    def _removed(self) -> None:
        self.machine.cri.stop(self.sandbox)
        self.machine.cri.remove(self.sandbox)
        self.sandbox = self.container = ""

    def _serves(self) -> bool:
        try:
            return not self.machine.cri.network() and bool(self.machine.node.status())
        except Failure:
            return False

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
        "selinux_options": context["seLinuxOptions"],
        "seccomp": {"profile_type": SECCOMP[context["seccompProfile"]["type"]]},
    }


def configured(lab: Lab, manifest: Rendered, directory: Path) -> Path:
    """The overlay's configuration as its ConfigMap would have it, for nodes without an API server: peers are in a file,
    and nobody is told of the node."""
    directory.mkdir()
    document = tomllib.loads(manifest.config)
    document |= {"nodes": {"file": "/etc/routable/nodes.toml"}, "kubernetes": {}}
    (directory / "agent.toml").write_text(toml(document))
    shutil.copy(lab.directory / "nodes.toml", directory)
    return directory
