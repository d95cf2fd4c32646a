"""What containerd makes of a directory of network configurations and of STATUS, and kubelet of that.

The behaviours, and where they are from (containerd's `internal/cri/server`, github.com/containerd/go-cni,
github.com/containernetworking/cni `libcni`); `tests/runtime/test_network_ready.py` holds this to real ones:

- the first of *.conf, *.conflist and *.json by name counts alone; one that cannot be read counts as none: go-cni
  opts.go, `loadFromConfDir`, and cni.go, `Load`, which forgets all before;
- without one the network is not ready: go-cni cni.go, `ready`. Releases before 1.1.11, in containerd 1.6 and 1.7, ask
  no more;
- later ones ask STATUS of every plugin in the list, in its order and with nothing of CNI_* but command and path, for
  each CRI `Status`; the first error is the answer: cni.go, `Status`; libcni api.go, `GetStatusNetworkList`, `args`;
- but only in version 1.1.0, the highest of `cniVersions` that libcni speaks counting: libcni conf.go,
  `NetworkConfFromBytes`. Older ones know no `cniVersions`;
- there is no time limit: `Status` is given `context.Background()`;
- kubelet asks again 5 s after each answer, and each answer is the node's condition Ready: pkg/kubelet/kubelet.go,
  `updateRuntimeUp`.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

SPOKEN: Final = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
"""The versions that a libcni of release 1.2 or newer speaks."""
REASON: Final = "NetworkPluginNotReady: Network plugin returns error: "


@dataclass(frozen=True, slots=True)
class GoCni:
    """containerd's side: *directory* has the configurations, *plugins* the executables. *has_status*: of a release that
    asks STATUS."""

    directory: Path
    plugins: Path
    environment: Mapping[str, str]
    has_status: bool

    def network(self) -> str:
        """Why the CRI condition NetworkReady is false; "" where it is true."""
        chosen = self._chosen()
        if chosen is None:
            return f"{REASON}cni plugin not initialized"
        if not self.has_status or _version(chosen) != SPOKEN[-1]:
            return ""
        for plugin in chosen["plugins"]:
            error = self._asked({**plugin, "name": chosen["name"], "cniVersion": SPOKEN[-1]})
            if error:
                return REASON + error
        return ""

    def _chosen(self) -> dict[str, Any] | None:
        files = sorted(one for one in self.directory.iterdir() if one.suffix in (".conf", ".conflist", ".json"))
        try:
            chosen: dict[str, Any] = json.loads(files[0].read_text()) if files else {}
        except (OSError, ValueError):
            return None
        return chosen if chosen.get("plugins") else None

    def _asked(self, plugin: Mapping[str, Any]) -> str:
        named = ("CNI_CONTAINERID", "CNI_NETNS", "CNI_ARGS", "CNI_IFNAME")
        done = subprocess.run(
            [self.plugins / plugin["type"]],
            input=json.dumps(plugin).encode(),
            env={
                "PATH": os.environ["PATH"],
                **self.environment,
                **dict.fromkeys(named, ""),
                "CNI_COMMAND": "STATUS",
                "CNI_PATH": str(self.plugins),
            },
            capture_output=True,
            check=False,
        )
        if not done.returncode:
            return ""
        error = json.loads(done.stdout)
        return str(error["msg"]) + (f"; {error['details']}" if error.get("details") else "")


def _version(chosen: Mapping[str, Any]) -> str:
    listed = [*chosen.get("cniVersions", ()), chosen.get("cniVersion", "0.1.0")]
    return str(max((one for one in listed if one in SPOKEN), key=SPOKEN.index))


@dataclass(slots=True)
class Watched:
    """What a kubelet was told: why its node was not Ready, each time that it was not, and how often it asked."""

    reasons: list[str] = field(default_factory=list)
    answers: int = 0


class Cri(Protocol):
    """What a kubelet asks: a containerd, real or not."""

    def network(self) -> str:
        """Why the CRI condition NetworkReady is false; "" where it is true."""


@contextmanager
def kubelet(runtime: Cri, every: float = 0.1) -> Iterator[Watched]:
    """A kubelet that asks *runtime* until the end of the body, *every* so many seconds after each answer."""
    watched, over = Watched(), threading.Event()

    def ask() -> None:
        while not over.is_set():
            reason = runtime.network()
            watched.answers += 1
            if reason:
                watched.reasons.append(reason)
            over.wait(every)

    thread = threading.Thread(target=ask, name="kubelet")
    thread.start()
    try:
        yield watched
    finally:
        over.set()
        thread.join()
