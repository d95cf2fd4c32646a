"""What kubelet makes of the DaemonSet's pod: the manifest, as it is applied, in the words of CRI."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from demo.place import run
from tests.deploy.manifests import Rendered
from tests.runtime.cri import NODE, Pod, Sandbox
from tests.runtime.daemon import Machine

PROPAGATION: Final = {"None": 0, "HostToContainer": 1, "Bidirectional": 2}
SECCOMP: Final = {"RuntimeDefault": 0, "Unconfined": 1}
# kubelet's own, for a container whose procMount is Default: pkg/securitycontext/util.go.
MASKED: Final = (
    *(f"/proc/{one}" for one in ("asound", "acpi", "kcore", "keys", "latency_stats", "timer_list", "timer_stats")),
    *("/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"),
)
READ_ONLY: Final = tuple(f"/proc/{one}" for one in ("bus", "fs", "irq", "sys", "sysrq-trigger"))


def pod(manifest: Rendered, uid: str, logs: Path) -> Pod:
    """The sandbox that is asked for; the agent's log is *logs*/agent.log."""
    keys = {"hostNetwork": "network", "hostPID": "pid", "hostIPC": "ipc"}
    shared = tuple(name for key, name in keys.items() if manifest.pod.get(key))
    name = f"{manifest.daemonset['metadata']['name']}-{uid}"
    return Pod(name, uid, manifest.daemonset["metadata"]["namespace"], namespaces=shared, logs=str(logs))


def start(machine: Machine, sandbox: Sandbox, manifest: Rendered, image: str, configuration: Path) -> str:
    """The agent's container of *image*, which is on the node already; its id. *configuration* is the ConfigMap's."""
    agent = manifest.agent
    context = agent["securityContext"]
    security = {
        "capabilities": {
            "add_capabilities": context["capabilities"]["add"],
            "drop_capabilities": context["capabilities"]["drop"],
        },
        "privileged": context["privileged"],
        "namespace_options": dict.fromkeys(sandbox.pod.namespaces, NODE),
        "run_as_user": {"value": context["runAsUser"]},
        "readonly_rootfs": context["readOnlyRootFilesystem"],
        "masked_paths": MASKED,
        "readonly_paths": READ_ONLY,
        "seccomp": {"profile_type": SECCOMP[context["seccompProfile"]["type"]]},
    }
    return machine.cri.start(
        sandbox,
        image,
        agent.get("command", ()),
        args=agent.get("args", ()),
        envs=[{"key": one["name"], "value": _value(one, machine.node.name)} for one in agent["env"]],
        mounts=[_mount(machine, path, one, configuration) for path, one in manifest.mounted().items()],
        linux={"security_context": security},
        log_path="agent.log",
    )


def _value(variable: Mapping[str, Any], node: str) -> str:
    if "value" in variable:
        return str(variable["value"])
    return {"spec.nodeName": node}[variable["valueFrom"]["fieldRef"]["fieldPath"]]


def _mount(machine: Machine, path: str, mount: Mapping[str, Any], configuration: Path) -> dict[str, Any]:
    if "configMap" in mount:
        source = str(configuration)
    elif "emptyDir" in mount:
        source = str(machine.directory / "empty" / mount["name"])
        Path(source).mkdir(parents=True, exist_ok=True)
    else:
        source = mount["hostPath"]["path"]
        make = {"DirectoryOrCreate": "mkdir -p", "FileOrCreate": "touch", "Directory": "test -d"}
        run(*machine.enter, "sh", "-c", f"{make[mount['hostPath']['type']]} {source}")
    return {
        "container_path": path,
        "host_path": source,
        "readonly": mount.get("readOnly", False),
        "propagation": PROPAGATION[mount.get("mountPropagation", "None")],
    }
