"""5,000 Nodes of an API server, as the agent hears of them: memory, processor and requests.

``python -m bench.nodes``. The API server is the tests' own, the agent's part is a process of its own: what it imports
anyway is in memory before. Each Node has 50 images, as kubelet tells of them, which makes it some 15 kB.
"""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

COUNT: Final = 5000
CHANGED: Final = 500
MARKS: Final = (f"{COUNT} heartbeats", f"{CHANGED} changes")
SETTLE: Final = 0.05
"""As `agent.keep.reconciler.SETTLE`: what comes in a burst is looked at once."""


def measured() -> dict[str, float]:
    """Numbers, by what they are of."""
    from cluster.kubernetes import Pace
    from tests.cluster.apiserver import ApiServer
    from tests.cluster.store import node

    with tempfile.TemporaryDirectory() as scratch, socket.create_server(("127.0.0.1", 0)) as listener:
        directory = Path(scratch)
        api = ApiServer(listener, "127.0.0.1", directory)

        def put(number: int, version: int = 0) -> None:
            addresses = f"10.200.{number // 250}.{number % 250 + 1}", f"2001:db8:ffff::{number:x}"
            cidrs = f"10.{number // 256}.{number % 256}.0/24", f"fd00:{number:x}:{version:x}::/64"
            api.store.put(node(f"node-{number}", addresses, cidrs, images=50))

        for number in range(COUNT):
            put(number)
        (directory / "token").write_text("token-1")
        (directory / "ca.crt").write_text(api.authority.pem)
        (directory / "kubeconfig").write_text(api.kubeconfig())
        line = [sys.executable, "-m", "bench.nodes", str(directory / "kubeconfig")]
        with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            found: dict[str, float] = json.loads(child.stdout.readline())
            found["requests to list and watch all"] = len(api.requests)
            for number in range(COUNT):
                api.store.touch(f"node-{number}")
            api.store.put(node(MARKS[0], ["10.250.0.1"], None))
            found |= json.loads(child.stdout.readline())
            for number in range(CHANGED):
                if number % 2:
                    put(number, 1)
                else:
                    api.store.delete(f"node-{number}")
                    put(COUNT + number)
                time.sleep(0.01)
            api.store.put(node(MARKS[1], ["10.250.0.2"], None))
            found |= json.loads(child.stdout.readline())
            found["all requests"] = len(api.requests)
            child.kill()
        api.close()
        found["requests per hour, at rest"] = 3600 / (sum(Pace().watch) / 2)
    return found


def listen(kubeconfig_: str) -> None:
    """The agent's part: tell of each step on standard output."""
    import agent.main  # noqa: F401 (what the agent has in memory anyway)
    from cluster.apiserver import Api
    from cluster.kubeconfig import kubeconfig
    from cluster.kubernetes import KubernetesNodes

    before = _memory()
    woken = threading.Event()
    source = KubernetesNodes(Api(kubeconfig(Path(kubeconfig_))), "bench", time.monotonic, random.random)
    threading.Thread(target=source.live, args=(woken.set,), daemon=True).start()
    looks = 0

    def until(is_so: Callable[[], bool]) -> dict[str, float]:
        nonlocal looks
        began, processor, looks = time.perf_counter(), time.process_time(), 0
        while not is_so():
            woken.wait()
            time.sleep(SETTLE)
            woken.clear()
            looks += source.refresh()
        return {"": time.perf_counter() - began, "CPU": time.process_time() - processor}

    took = until(lambda: len(source.nodes) >= COUNT)
    memory = {"memory, MB": _memory() - before, "memory at most, MB": _memory("VmHWM") - before}
    _tell({"list, s": took[""], "list, CPU, s": took["CPU"], **memory})
    for mark in MARKS:
        took = until(lambda mark=mark: any(one.name == mark for one in source.nodes))  # type: ignore[misc]
        _tell({f"{mark}, CPU, s": took["CPU"], f"{mark}, looks": looks, f"{mark}, memory, MB": _memory() - before})


def _memory(what: str = "VmRSS") -> float:
    # Not getrusage(2): what a process begins with there is its parent's.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:")) / 1024


def _tell(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    if sys.argv[1:]:
        listen(sys.argv[1])
    else:
        for key, value in measured().items():
            print(f"{key:36} {value:9.2f}")
