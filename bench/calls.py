"""Calling plugins as a runtime does: each call a process, its stdin a file, its answer a file.

Both sides are started by the same few lines, so what these cost is in both.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from demo.place import Place


class Call(NamedTuple):
    """One finished call: seconds from its start to its end, CPU seconds of the process and its children."""

    wall: float
    cpu: float
    stdout: bytes


class Side(Protocol):
    """A plugin as it is called."""

    name: str

    def command(self, verb: str, place: Place) -> tuple[str, dict[str, str], bytes]:
        """Executable, environment, standard input."""


@dataclass(slots=True)
class Routable:
    """This plugin, with a running agent."""

    executable: Path
    socket: Path
    spool: Path
    name: str = "routable"
    results: dict[str, Any] = field(default_factory=dict)

    def command(self, verb: str, place: Place) -> tuple[str, dict[str, str], bytes]:
        """See `Side.command`."""
        config: dict[str, Any] = {"cniVersion": "1.0.0", "name": "bench", "type": "routable"}
        if place.name in self.results and verb != "ADD":
            config["prevResult"] = self.results[place.name]
        more = {"ROUTABLE_SOCKET": str(self.socket), "ROUTABLE_SPOOL": str(self.spool)}
        return str(self.executable), environment(verb, place, more), json.dumps(config).encode()


@dataclass(slots=True)
class Reference:
    """Debian's ptp with host-local, doing the same job."""

    directory: Path
    data: Path
    name: str = "ptp + host-local"
    results: dict[str, Any] = field(default_factory=dict)

    def command(self, verb: str, place: Place) -> tuple[str, dict[str, str], bytes]:
        """See `Side.command`."""
        config: dict[str, Any] = {
            "cniVersion": "1.0.0",
            "name": "bench",
            "type": "ptp",
            "ipMasq": False,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.99.0.0/16"}]],
                "routes": [{"dst": "0.0.0.0/0"}],
                "dataDir": str(self.data),
            },
        }
        if place.name in self.results and verb != "ADD":
            config["prevResult"] = self.results[place.name]
        return (
            str(self.directory / "ptp"),
            environment(verb, place, {"CNI_PATH": str(self.directory)}),
            json.dumps(config).encode(),
        )


def environment(verb: str, place: Place, more: Mapping[str, str]) -> dict[str, str]:
    """The CNI_* variables."""
    return {
        "PATH": os.environ["PATH"],
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": place.name,
        "CNI_NETNS": str(place.path),
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/nowhere",
        **more,
    }


def burst(side: Side, verb: str, places: Sequence[Place], scratch: Path) -> tuple[float, list[Call]]:
    """Call for all *places* at once; the answer is the seconds until the last has ended, and each call.

    RuntimeError: one of them failed, with what it said.
    """
    prepared = []
    for number, place in enumerate(places):
        executable, variables, stdin = side.command(verb, place)
        source, target = scratch / f"in{number}", scratch / f"out{number}"
        source.write_bytes(stdin)
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, str(source), os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(target), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
        ]
        prepared.append((executable, variables, actions, target))
    started = time.perf_counter()
    begun: dict[int, tuple[int, float]] = {}
    for number, (executable, variables, actions, _) in enumerate(prepared):
        at = time.perf_counter()
        pid = os.posix_spawn(executable, [executable], variables, file_actions=actions)
        begun[pid] = number, at
    calls: dict[int, Call] = {}
    while begun:
        pid, status, usage = os.wait4(-1, 0)
        if pid not in begun:
            continue
        number, at = begun.pop(pid)
        wall = time.perf_counter() - at
        output = prepared[number][3].read_bytes()
        if status:
            raise RuntimeError(f"{side.name} {verb}: {output.decode()}")
        calls[number] = Call(wall, usage.ru_utime + usage.ru_stime, output)
    took = time.perf_counter() - started
    return took, [calls[number] for number in range(len(places))]
