"""The agent in a container of its own image, as the DaemonSet has it run: it serves pods of the machine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from demo import traffic
from demo.lab import Node, built, eventually, toml
from demo.place import Failed
from tests.conformance.conftest import REFERENCE
from tests.conformance.podman import Podman, is_root, prepare
from tests.deploy.image import NAME, ROOT, archive
from tests.deploy.manifests import Pods, rendered

pytestmark = [
    pytest.mark.runtime,
    pytest.mark.skipif(shutil.which("podman") is None, reason="podman is not installed"),
    pytest.mark.skipif(not is_root(), reason="podman needs real root"),
]
OVERLAY = rendered("overlays/static")
AGENT, BIRD = OVERLAY.pods(), rendered("overlays/bgp").pods("routable-bird")
CONFLIST = tomllib.loads(OVERLAY.config)["cni"]["conflist"]
SHARED = ("/run/netns", "/proc/sys/net")
"""What of the machine is the node's here, too; all else is below a directory of the node's own."""


def on_host(node: Node, path: str) -> Path:
    """Where *path* of the machine is for this node."""
    return Path(path) if path in SHARED else node.directory / "host" / path.lstrip("/")


def options(node: Node, pods: Pods = AGENT) -> list[str]:
    """What the manifest says of the container of *pods*, in podman's words, but for its mounts, and for ``hostPID``:
    where podman makes no control groups, as in these tests, it wants each container to have processes of its own."""
    context, pod = pods.container["securityContext"], pods.spec
    words = ["--network=host"] if pod["hostNetwork"] else []
    words += ["--read-only", "--read-only-tmpfs=false"] if context["readOnlyRootFilesystem"] else []
    words += [f"--cap-drop={one}" for one in context["capabilities"]["drop"]]
    words += [f"--cap-add={one}" for one in context["capabilities"]["add"]]
    words += [f"--env={one['name']}={node.name}" for one in pods.container.get("env", ())]
    return words


def mounts(node: Node, pods: Pods = AGENT, config: str = "config") -> list[str]:
    """The same of its mounts, and what kubelet makes of those that are not there; *config* is the node's directory that
    stands for the ConfigMap."""
    words = []
    for path, mount in pods.mounted().items():
        flags = "ro" if mount.get("readOnly") else "rw"
        flags += ",rslave" * (mount.get("mountPropagation") == "HostToContainer")
        if "emptyDir" in mount:
            words.append(f"--tmpfs={path}")
        elif "configMap" in mount:
            words.append(f"--volume={node.directory / config}:{path}:{flags}")
        else:
            source = on_host(node, mount["hostPath"]["path"])
            if mount["hostPath"]["type"] == "FileOrCreate":
                source.parent.mkdir(parents=True, exist_ok=True)
                source.touch()
            else:
                source.mkdir(parents=True, exist_ok=True)
            words.append(f"--volume={source}:{path}:{flags}")
    return words


def configured(node: Node) -> None:
    """Write the overlay's configuration for the node: its peers are in a file, and nobody is told of it."""
    (node.directory / "config").mkdir()
    document: dict[str, Any] = tomllib.loads(OVERLAY.config)
    document |= {"nodes": {"file": "/etc/routable/nodes.toml"}, "kubernetes": {}}
    (node.directory / "config" / "agent.toml").write_text(toml(document))
    shutil.copy(node.settings["nodes"]["file"], node.directory / "config")


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node; its executable and its socket are where the container's agent puts them."""
    with built(nodes=1, family="dual", is_started=False) as lab:
        (node,) = lab.nodes
        configured(node)
        node.runtime = replace(
            node.runtime,
            executable=on_host(node, "/opt/cni/bin") / "routable",
            socket=on_host(node, "/run/routable") / "agent.sock",
            spool=on_host(node, "/var/lib/routable") / "spool",
        )
        executables = on_host(node, "/opt/cni/bin")
        executables.mkdir(parents=True)
        for one in ("loopback", "portmap"):
            shutil.copy(REFERENCE / one, executables)
        yield node


@pytest.fixture(scope="module")
def podman(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """Podman on the node, with the image."""
    place = tmp_path_factory.mktemp("podman")
    with prepare(place, node.place.path, [], [place], {}) as podman:
        podman("load", f"--input={archive()}")
        yield podman


@pytest.fixture(scope="module")
def agent(podman: Podman, node: Node) -> Iterator[str]:
    """The agent in its container, which serves; the container's name."""
    podman("run", "--detach", "--name=agent", "--pull=never", *options(node), *mounts(node), NAME)
    eventually("the agent serves", lambda: b"ready" in logs(podman) or not is_running(podman))
    assert is_running(podman), logs(podman).decode()
    eventually("the runtime is told", lambda: on_host(node, CONFLIST).exists())
    yield "agent"


def once(podman: Podman, program: str, *words: str) -> str:
    """What *program* prints in a container of its own."""
    return podman("run", "--rm", "--pull=never", "--network=none", f"--entrypoint={program}", NAME, *words)


def logs(podman: Podman, name: str = "agent") -> bytes:
    """What the container said."""
    done = subprocess.run([*podman.command, "logs", name], env=podman.environment, capture_output=True, check=True)
    return done.stdout + done.stderr


def is_running(podman: Podman, name: str = "agent") -> bool:
    """Whether the container is."""
    return podman.inspect(name, "{{.State.Running}}") == "true"


def test_the_version_says_which_commit_it_is_of(podman: Podman) -> None:
    """Of agent and routablectl alike, and that there was more than the commit where there was."""
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    said = once(podman, "routable-agent", "--version")
    assert re.fullmatch(rf"\d+\.\d+\.\d+\+g{head[:12]}(\.changed)?", said)
    assert once(podman, "routablectl", "--version") == said


def test_the_image_holds_what_the_agent_needs_and_little_else(podman: Podman) -> None:
    """No cloud's library, no pip, no compiler; the executable is compiled, and needs nothing of the machine's. All
    bytecode is there, and valid whatever the times of its sources are (PEP 552): nothing can be written at a start."""
    assert int(podman("image", "inspect", "--format={{.Size}}", NAME)) < 110e6
    said = once(podman, "python3", "-c", LOOKS)
    assert json.loads(said) == {
        "programs": ["nft", "iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy", "routable"],
        "modules": ["yaml"],
        "is_compiled": True,
        "is_static": True,
        "bytecode": [1],
    }


LOOKS = """
import importlib.util, json, pathlib, shutil, struct
tables = [f"{family}tables-{form}" for family in ("ip", "ip6") for form in ("nft", "legacy")]
programs = ["nft", *tables, "routable", "cc", "gcc", "ld", "pip", "apt-get", "perl"]
modules = ["yaml", "boto3", "google", "pip", "setuptools", "pytest"]
program = pathlib.Path("/opt/routable/bin/routable").read_bytes()
# elf(5): a static one has no segment that names an interpreter (PT_INTERP).
begin, size, count = struct.unpack_from("<32xQ14xHH", program)
library = pathlib.Path("/opt/routable/lib")
bytecode = {one.read_bytes()[4] for one in library.rglob("*.pyc")}
segments = [struct.unpack_from("<I", program, begin + size * one)[0] for one in range(count)]
print(json.dumps({
    "programs": [one for one in programs if shutil.which(one)],
    "modules": [one for one in modules if importlib.util.find_spec(one)],
    "is_compiled": program.startswith(bytes([127]) + b"ELF"),
    "is_static": 3 not in segments,
    "bytecode": sorted(bytecode),
}))
"""


def test_pods_of_the_machine_are_served_through_the_executable_that_it_installed(agent: str, node: Node) -> None:
    """Their namespaces come after the agent's container: packets flow between them, both families, and none stays."""
    first, second = node.add(), node.add()
    try:
        for family in (4, 6):
            seen = traffic.seen_by_tcp(first.place, second.place, second.address(family))
            assert seen == first.address(family)
            assert traffic.seen_by_tcp(first.place, node.place, node.address(family)) == first.address(family)
        node.runtime.check(first)
        # Its own /proc/sys is read-only, yet a pod's settings are made: see paths.sysctls.
        link = first.result["interfaces"][0]["name"]
        assert node.place.run("cat", f"/proc/sys/net/ipv6/conf/{link}/accept_ra").strip() == "0"
        assert node.place.run("cat", "/proc/sys/net/ipv4/ip_forward").strip() == "1"
        # Debian 12's portmap speaks no CNI 1.1.0, which is told.
        assert [one for one in node.status()["problems"] if "/portmap " not in one["msg"]] == []
    finally:
        node.delete(first)
        node.delete(second)
    assert node.status()["leases"] == []


BEGINS = """
import ctypes, os, time
child = os.fork()
if child:
    print(child, flush=True)
    os._exit(0)
for one in range(3):
    os.close(one)
assert ctypes.CDLL(None).unshare(0x40000000) == 0  # CLONE_NEWNET
os.setuid(65534)
time.sleep(600)
"""


def test_a_namespace_that_is_named_by_a_process_is_served(agent: str, podman: Podman, node: Node) -> None:
    """As cri-dockerd and others name them: of a process of another user's."""
    pid = podman("exec", "--privileged", agent, "python3", "-c", BEGINS)
    path = f"/proc/{pid}/ns/net"
    eventually("it is in a namespace of its own", lambda: podman.exec(agent, "python3", "-c", SAME, path) == "False")
    assert len(node.runtime.call("ADD", "by-process", path)["ips"]) == 2
    node.runtime.call("DEL", "by-process", path)
    assert node.status()["leases"] == []


SAME = "import os, sys; print(os.readlink(sys.argv[1]) == os.readlink('/proc/self/ns/net'))"


def test_the_probes_of_the_manifest_are_answered(agent: str, node: Node) -> None:
    """Where kubelet would ask them."""
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert " 200 " in node.probe(OVERLAY.agent[probe]["httpGet"]["path"]).partition("\r\n")[0]


def test_it_ends_within_the_time_that_it_is_given_and_goes_on_where_it_was(
    agent: str, podman: Podman, node: Node
) -> None:
    """SIGTERM; another container of it knows the pods, and an ADD that came meanwhile waited for it."""
    pod = node.add()
    try:
        podman("stop", f"--time={OVERLAY.pod['terminationGracePeriodSeconds']}", agent)
        assert podman.inspect(agent, "{{.State.ExitCode}}") == "0"
        podman("start", agent)
        late = node.add()
        assert {one["container"] for one in node.status()["leases"]} == {pod.container, late.container}
        node.delete(late)
    finally:
        node.delete(pod)


def test_uninstalling_in_the_same_image_leaves_nothing(agent: str, podman: Podman, node: Node) -> None:
    """As the DaemonSet of deploy/uninstall does, with a pod's address still held."""
    pod = node.add()
    podman("stop", agent)
    before = json.loads(node.place.ip("-json link show"))
    assert any(one["ifname"].startswith("rt") for one in before)
    (first,) = rendered("uninstall").pod["initContainers"]
    program, *words = first["command"]
    run = ("run", "--rm", "--pull=never", *options(node), *mounts(node), f"--entrypoint={program}", NAME, *words)
    assert "left there, the runtime calls it when the pods end: /opt/cni/bin/routable" in podman(*run)
    assert [one["ifname"] for one in json.loads(node.place.ip("-json link show"))] == ["lo", "eth0"]
    assert node.place.run("nft", "list", "ruleset") == ""
    assert node.place.ip("route show proto 82") == node.place.ip("nexthop show") == ""
    assert not on_host(node, CONFLIST).exists()
    podman(*run)
    assert not node.runtime.executable.exists()
    node.pods.remove(pod)
    pod.place.remove()


BIRD_CONF = """
router id 192.0.2.1;
graceful restart wait 2;
protocol device {}
protocol kernel { metric 8282; persist; graceful restart; ipv4 { export all; }; }
protocol static { ipv4; route 198.51.100.0/24 via "eth0"; }
"""


def test_bird_in_a_container_of_its_own_leaves_its_routes_to_the_next_one(podman: Podman, node: Node) -> None:
    """As the DaemonSet of the overlay bgp has it: it waits for its configuration, answers by its socket, and is
    replaced without a word to its neighbours, by one that takes up what is there."""
    directory = on_host(node, "/run/routable") / "bgp"
    control = "/run/routable/bgp/bird.ctl"

    def answers() -> bool:
        if not is_running(podman, "bird"):
            raise Failed(logs(podman, "bird").decode())
        return (directory / "bird.ctl").exists() and "up and running" in podman.exec(
            "bird", "sh", "-c", f"birdc -s {control} show status 2>&1 || true"
        )

    (node.directory / "bgp").mkdir()
    (node.directory / "bgp" / "agent.toml").write_text(rendered("overlays/bgp").config)
    program, *words = BIRD.container["command"]
    run = [*options(node, BIRD), *mounts(node, BIRD, "bgp"), f"--entrypoint={program}"]
    podman("run", "--detach", "--name=bird", "--pull=never", *run, NAME, *words)
    directory.mkdir(mode=0o700, exist_ok=True)
    (directory / "bird.conf").write_text(BIRD_CONF)
    eventually("BIRD answers", answers)
    eventually("its route is there", lambda: "198.51.100.0/24" in node.place.ip("route show proto bird"))
    for _ in range(2):
        podman("stop", f"--time={BIRD.spec['terminationGracePeriodSeconds']}", "bird")
        assert "198.51.100.0/24" in node.place.ip("route show proto bird")
        podman("start", "bird")
        eventually("the next one answers", answers)
        assert f"{control} -R" in podman.exec("bird", "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    podman("rm", "--force", "--time=0", "bird")
