"""The least power: what the agent holds, what it leaves readable, and what its port tells."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.lab import Node, built, eventually

CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_PTRACE, CAP_SYS_ADMIN = 12, 13, 19, 21


@pytest.fixture
def node() -> Iterator[Node]:
    """One with a pod, under a umask that would leave everything readable."""
    before = os.umask(0)
    try:
        with built(nodes=1, backend="vxlan", family="dual") as lab:
            lab.nodes[0].add(arguments="K8S_POD_NAMESPACE=secret;K8S_POD_NAME=name")
            yield lab.nodes[0]
    finally:
        os.umask(before)


def test_few_capabilities_are_all_that_can_be_had(node: Node) -> None:
    """Neither the agent nor what it starts can have others: CAP_NET_ADMIN, CAP_SYS_ADMIN for setns, CAP_SYS_PTRACE for
    namespaces that are named by a process, and CAP_NET_RAW for iptables-legacy."""
    assert node.agent is not None
    status = Path(f"/proc/{node.agent.pid}/status").read_text()
    lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    wanted = (CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_PTRACE, CAP_SYS_ADMIN)
    assert int(lines["CapBnd"], 16) == sum(1 << one for one in wanted)
    assert int(lines["CapEff"], 16) & ~int(lines["CapBnd"], 16) == 0


def test_what_it_keeps_is_for_its_user_alone(node: Node) -> None:
    """Journal, socket, spool and what lies in it, whatever the umask."""
    node.stop()
    pod = node.pods[0]
    node.runtime.call("DEL", pod.container, "")  # the executable keeps it in the spool
    paths = {name: Path(path) for name, path in node.settings["paths"].items()}
    kept = list(paths["spool"].iterdir())
    assert len(kept) == 1
    assert [stat.S_IMODE(path.stat().st_mode) for path in (paths["spool"], *kept)] == [0o700, 0o600]
    node.start()
    eventually("the spool is served", lambda: node.status()["spooled"] == 0)
    files = list(paths["state"].parent.glob("state.db*"))
    assert len(files) >= 3
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (*files, paths["socket"])}
    assert set(modes.values()) == {0o600}, modes


def test_the_port_names_no_pod(node: Node) -> None:
    """Whoever may run something on the node can read it: counts and blocks, no names, no addresses of pods."""
    page = node.metrics()
    assert "routable_leases 1.0" in page
    secrets = ["secret", node.pods[0].container, *node.pods[0].addresses, str(node.pods[0].place.path)]
    assert [secret for secret in secrets if secret in page] == []
