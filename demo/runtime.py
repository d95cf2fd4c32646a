"""A container runtime as the executable sees it: namespaces, environment, configuration on stdin, cached results."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo.place import Place

VERSION = "1.1.0"
NETWORK = "pods"


class Refused(Exception):
    """The executable answered with an error; *document* is it."""

    def __init__(self, document: Mapping[str, Any], stderr: str) -> None:
        super().__init__(f"code {document.get('code')}: {document.get('msg')}: {document.get('details')}{stderr}")
        self.document = document

    @property
    def code(self) -> int:
        """The CNI error's code."""
        return int(self.document["code"])


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that was added: where it is, and what the executable said."""

    container: str
    place: Place
    result: Mapping[str, Any]
    ifname: str = "eth0"

    @property
    def addresses(self) -> list[str]:
        """Without prefix lengths, IPv4 first."""
        return [ip["address"].partition("/")[0] for ip in self.result["ips"]]

    def address(self, family: int) -> str:
        """The address of family 4 or 6."""
        return next(one for one in self.addresses if (":" in one) == (family == 6))


@dataclass(frozen=True, slots=True)
class Runtime:
    """Calls *executable* for one node, whose agent listens on *socket*."""

    executable: Path
    socket: Path
    spool: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def call(
        self,
        verb: str,
        container: str = "",
        netns: str = "",
        ifname: str = "eth0",
        config: Mapping[str, Any] | None = None,
        stdin: bytes | None = None,
        arguments: str = "",
    ) -> Any:
        """Call the executable; its output as a value, None where it printed nothing. Refused: an error document.

        *config* adds to the network configuration, or with None takes keys out of it; *stdin* replaces it.
        """
        document = {"cniVersion": VERSION, "name": NETWORK, "type": "routable", **(config or {})}
        document = {key: value for key, value in document.items() if value is not None}
        variables = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": netns,
            "CNI_IFNAME": ifname if container else "",
            "CNI_ARGS": arguments,
            "CNI_PATH": str(self.executable.parent),
        }
        done = subprocess.run(
            [self.executable],
            input=json.dumps(document).encode() if stdin is None else stdin,
            env={
                "PATH": os.environ["PATH"],
                "ROUTABLE_SOCKET": str(self.socket),
                "ROUTABLE_SPOOL": str(self.spool),
                **self.environment,
                **{name: value for name, value in variables.items() if value},
            },
            capture_output=True,
            check=False,
        )
        answer = json.loads(done.stdout) if done.stdout else None
        if done.returncode:
            raise Refused(answer or {"code": -done.returncode, "msg": "no document"}, done.stderr.decode())
        return answer

    def add(self, container: str, place: Place, **options: Any) -> Pod:
        """ADD for a pod whose namespace is *place*."""
        result = self.call("ADD", container, str(place.path), **options)
        return Pod(container, place, result, options.get("ifname", "eth0"))

    def check(self, pod: Pod, **options: Any) -> None:
        """CHECK, with the result of the ADD."""
        config = {"prevResult": pod.result, **options.pop("config", {})}
        self.call("CHECK", pod.container, str(pod.place.path), pod.ifname, config, **options)

    def delete(self, pod: Pod, **options: Any) -> None:
        """DEL, with the result of the ADD."""
        config = {"prevResult": pod.result, **options.pop("config", {})}
        self.call("DEL", pod.container, str(pod.place.path), pod.ifname, config, **options)
