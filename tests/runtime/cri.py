"""What kubelet asks of a container runtime, over CRI gRPC, in kubelet's order."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

# grpc would complain of the programs that the tests start while calls are under way; none of them uses it.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc

from tests.runtime.messages import CLASSES

PATIENCE: Final = 120.0
"""Seconds for a call: what kubelet waits."""
NODE: Final = 2
"""The namespace mode in which a pod has the node's own."""


class CallFailed(Exception):
    """The runtime answered a call with an error; the text is its own."""


@dataclass(frozen=True, slots=True)
class Pod:
    """What kubelet tells of a pod. *ports*: host port to the container's; *namespaces*: those of the node's that it has
    instead of its own; *logs*: the directory for its containers' logs."""

    name: str
    uid: str
    namespace: str = "default"
    attempt: int = 0
    ports: Mapping[int, int] = field(default_factory=dict)
    namespaces: tuple[str, ...] = ()
    logs: str = ""

    def again(self) -> Pod:
        """The same pod in a new sandbox, as kubelet asks for it where the last one failed or is gone."""
        return replace(self, attempt=self.attempt + 1)

    @property
    def config(self) -> dict[str, Any]:
        """As PodSandboxConfig."""
        return {
            "metadata": {
                "name": self.name,
                "uid": self.uid,
                "namespace": self.namespace,
                "attempt": self.attempt,
            },
            "hostname": "" if "network" in self.namespaces else self.name,
            "log_directory": self.logs,
            "port_mappings": [{"container_port": inner, "host_port": outer} for outer, inner in self.ports.items()],
            "linux": {"security_context": {"namespace_options": dict.fromkeys(self.namespaces, NODE)}},
        }


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A sandbox of the runtime, and the pod it is of."""

    id: str
    pod: Pod


class Cri:
    """A client of the runtime that listens on *socket*. CallFailed: the runtime answered with an error."""

    def __init__(self, socket: Path) -> None:
        self._channel = grpc.insecure_channel(f"unix:{socket}")

    def close(self) -> None:
        """End the connection."""
        self._channel.close()

    def version(self) -> str:
        """The runtime's own version."""
        return str(self._call("Version", "VersionRequest", "VersionResponse").runtime_version)

    def network(self) -> str:
        """Why the network is not ready; "" where it is. kubelet asks every 5 s, and makes the node NotReady."""
        status = self._call("Status", "StatusRequest", "StatusResponse").status
        condition = next(one for one in status.conditions if one.type == "NetworkReady")
        return "" if condition.status else f"{condition.reason}: {condition.message}"

    def run(self, pod: Pod) -> Sandbox:
        """A sandbox of its own for *pod*: where the runtime calls ADD."""
        answer = self._call("RunPodSandbox", "RunPodSandboxRequest", "RunPodSandboxResponse", config=pod.config)
        return Sandbox(answer.pod_sandbox_id, pod)

    def addresses(self, sandbox: Sandbox) -> list[str]:
        """The addresses that kubelet writes into the pod's status."""
        network = self._call(
            "PodSandboxStatus", "PodSandboxRequest", "PodSandboxStatusResponse", pod_sandbox_id=sandbox.id
        ).status.network
        return [network.ip, *(one.ip for one in network.additional_ips)]

    def sandboxes(self) -> list[str]:
        """The ids of all that the runtime knows, ready or not."""
        return [one.id for one in self._call("ListPodSandbox", "Nothing", "ListPodSandboxResponse").items]

    def stop(self, sandbox: str) -> None:
        """End what runs in it: where the runtime calls DEL."""
        self._call("StopPodSandbox", "PodSandboxRequest", pod_sandbox_id=sandbox)

    def remove(self, sandbox: str) -> None:
        """Forget it: where the runtime calls DEL once more."""
        self._call("RemovePodSandbox", "PodSandboxRequest", pod_sandbox_id=sandbox)

    def start(self, sandbox: Sandbox, image: str, command: Sequence[str], **config: Any) -> str:
        """A container in *sandbox*; its id. *config* are further fields of ContainerConfig."""
        whole = {"metadata": {"name": "main"}, "image": {"image": image}, "command": command, **config}
        container = self._call(
            "CreateContainer",
            "CreateContainerRequest",
            "ContainerResponse",
            pod_sandbox_id=sandbox.id,
            config=whole,
            sandbox_config=sandbox.pod.config,
        ).container_id
        self._call("StartContainer", "ContainerRequest", container_id=container)
        return str(container)

    def end(self, container: str, patience: int) -> None:
        """Have a container end: SIGTERM, and SIGKILL after *patience* seconds; then forget it."""
        self._call("StopContainer", "StopContainerRequest", container_id=container, timeout=patience)
        self._call("RemoveContainer", "ContainerRequest", container_id=container)

    def execute(self, container: str, *command: str) -> str:
        """What *command* prints in the container. CallFailed: it did not succeed."""
        done = self._call("ExecSync", "ExecSyncRequest", "ExecSyncResponse", container_id=container, cmd=command)
        if done.exit_code:
            raise CallFailed(f"{' '.join(command)}: exit code {done.exit_code}\n{done.stderr.decode()}")
        return str(done.stdout.decode())

    def _call(self, method: str, request: str, response: str = "Nothing", **fields: Any) -> Any:
        call = self._channel.unary_unary(
            f"/runtime.v1.RuntimeService/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=CLASSES[response].FromString,
        )
        try:
            return call(CLASSES[request](**fields), timeout=PATIENCE)
        except grpc.RpcError as error:
            raise CallFailed(f"{method}: {error.details()}") from error
