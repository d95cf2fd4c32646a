"""An agent that keeps the runtime's directories, from its first start to the end of the node."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from agent.announce.conflist import conflist, is_ours
from demo.lab import Lab, built, eventually
from demo.runtime import Pod


def plugins(directory: Path) -> Path:
    """A directory with what the reference plugins are called."""
    directory.mkdir()
    for name in ("portmap", "loopback"):
        (directory / name).write_text("#!/bin/sh\n")
        (directory / name).chmod(0o755)
    return directory


def prepared(lab: Lab) -> tuple[Path, Path]:
    """Have the node's agent keep both; where they are."""
    (node,) = lab.nodes
    path, executables = lab.directory / "net.d" / "10-routable.conflist", plugins(lab.directory / "cni-bin")
    node.settings["cni"] = {"conflist": str(path), "executables": str(executables)}
    return path, executables / "routable"


def test_from_the_start_to_the_end() -> None:
    """The configuration is there once the agent can serve, and not before; what is put there serves a pod; it stays
    over a restart and comes back when somebody removes it; uninstall takes both away."""
    with built(nodes=1, is_started=False) as lab:
        (node,) = lab.nodes
        path, executable = prepared(lab)
        lab.write_nodes([])
        node.start()
        eventually("the executable is there", executable.exists)
        assert node.status()["problems"][0]["by_status"]
        assert not path.exists()
        lab.write_nodes()
        eventually("the configuration is there", path.exists)
        assert path.read_bytes() == conflist().content
        assert not any(one["by_status"] for one in node.status()["problems"])

        path.unlink()
        eventually("it is put back", path.exists)
        assert f"mended {path}, which somebody changed or removed" in node.status()["events"][-1]["text"]

        node.runtime = replace(node.runtime, executable=executable)
        pod: Pod = node.add()
        assert pod.result["ips"]
        node.stop()
        assert is_ours(path.read_bytes())
        before = path.stat().st_ino, executable.stat().st_ino
        node.start()
        node.delete(pod)
        assert (path.stat().st_ino, executable.stat().st_ino) == before
        (executable.parent / "portmap").unlink()
        problem = eventually("it is told", lambda: node.status()["problems"])[0]
        assert (problem["kind"], problem["by_status"]) == ("runtime", False)
        assert problem["msg"] == f"{executable.parent} has no executable portmap"
        assert 'routable_problems{kind="runtime"} 1.0' in node.metrics()

        node.stop()
        said = node.ctl("uninstall")
        assert f"- {path}" in said
        assert f"- {executable}" in said
        assert not path.exists()
        assert [one.name for one in executable.parent.iterdir()] == ["loopback"]


def test_the_end_of_a_node_whose_pods_are_left() -> None:
    """The configuration goes; the executable stays, since the runtime has to call it for them. What is another's
    stays, too."""
    with built(nodes=1, is_started=False) as lab:
        (node,) = lab.nodes
        path, executable = prepared(lab)
        node.start()
        eventually("the configuration is there", path.exists)
        node.add()
        node.stop()
        path.write_text(json.dumps({"name": "another", "plugins": []}))
        with pytest.raises(Exception, match="1 pods on this node have addresses"):
            node.ctl("uninstall")
        said = node.ctl("uninstall", "--yes")
        assert f"left alone, it has no mark of ours: {path}" in said
        assert f"left there, the runtime calls it when the pods end: {executable}" in said
        assert path.exists()
        assert executable.exists()
