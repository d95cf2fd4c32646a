"""Debian's podman runs containers on a network of this plugin: its calls and their order are podman's own."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import pytest

from tests.conformance.podman import Podman, is_root, prepare

NETWORK = "pods"
CONFLIST = {
    "cniVersion": "1.0.0",
    "name": NETWORK,
    "plugins": [{"type": "routable"}, {"type": "portmap", "capabilities": {"portMappings": True}}],
}
GATEWAY, CLIENT = "198.51.100.1", "198.51.100.2"


class Node(Protocol):
    """What the fixture ``node`` gives: one node with its agent running."""

    @property
    def netns(self) -> Path:
        """The node's network namespace, below /run/netns."""

    @property
    def plugins(self) -> Sequence[Path]:
        """Directories with ``routable`` and with the reference plugins."""

    @property
    def environment(self) -> Mapping[str, str]:
        """What leads the executable to this node's agent: ROUTABLE_SOCKET, ROUTABLE_SPOOL."""

    def leased(self) -> set[str]:
        """The addresses that live leases of the agent hold (a missed DEL shows only here: the kernel removes a
        container's link and route with its namespace)."""


pytestmark = [
    pytest.mark.runtime,
    pytest.mark.skipif(shutil.which("podman") is None, reason="podman is not installed"),
    pytest.mark.skipif(not is_root(), reason="podman needs real root"),
]


@pytest.fixture
def podman(node: Node, tmp_path: Path) -> Iterator[Podman]:
    """Podman on the node, with the one network."""
    with prepare(tmp_path, node.netns, [CONFLIST], node.plugins, node.environment) as podman:
        yield podman


@pytest.fixture
def outside(node: Node) -> Iterator[str]:
    """The namespace of a machine beside the node, CLIENT, which has the node as its gateway."""
    name = f"{node.netns.name}-outside"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        ip(node.netns.name, "link add outside0 type veth peer name eth0 netns", name)
        ip(node.netns.name, f"address add {GATEWAY}/30 dev outside0")
        ip(node.netns.name, "link set outside0 up")
        ip(name, f"address add {CLIENT}/30 dev eth0")
        ip(name, "link set eth0 up")
        ip(name, f"route add default via {GATEWAY}")
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def ip(netns: str, words: str, *more: str) -> str:
    """What ``ip`` prints in the namespace *netns*."""
    command = ["ip", "-n", netns, *words.split(), *more]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def routed(node: Node) -> set[str]:
    """The destinations that the node routes to its pods' links."""
    return {
        route["dst"]
        for route in json.loads(ip(node.netns.name, "-json route"))
        if route.get("dev", "").startswith("rt")
    }


def links(node: Node) -> int:
    """How many pods' links the node has."""
    return sum(link["ifname"].startswith("rt") for link in json.loads(ip(node.netns.name, "-json link")))


def serve(podman: Podman, name: str) -> None:
    """Start the web server in the container *name*; it listens when this returns."""
    podman.exec(name, "httpd", "-p", "80", "-h", "/www")


def asked(url: str, netns: str) -> str:
    """The answer to a request for *url* from the namespace *netns*."""
    command = ["ip", "netns", "exec", netns, "busybox", "wget", "-q", "-O", "-", url]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def test_containers_reach_each_other_by_their_own_addresses(podman: Podman, node: Node) -> None:
    """A request between two containers arrives with the sender's own address, and each has a route on the node."""
    for name in ("a", "b"):
        podman.run(name, network=NETWORK)
    a, b = podman.address("a"), podman.address("b")
    serve(podman, "b")
    assert podman.exec("a", "timeout", "60", "wget", "-q", "-O", "-", f"http://{b}/cgi-bin/peer") == a
    podman.exec("b", "ping", "-c", "1", "-W", "30", a)
    assert node.leased() == routed(node) == {a, b}


def test_published_port_and_own_address_answer_from_outside(podman: Podman, outside: str) -> None:
    """From outside, a container answers on a port published by the chained portmap and on its own address, no NAT."""
    podman.run("a", network=NETWORK, options=["--publish=8080:80"])
    serve(podman, "a")
    assert asked(f"http://{GATEWAY}:8080/cgi-bin/peer", outside) == CLIENT
    assert asked(f"http://{podman.address('a')}/cgi-bin/peer", outside) == CLIENT


def test_restarted_container_is_attached_once(podman: Podman, node: Node) -> None:
    """A restart (DEL, then ADD with the same id in a new namespace) leaves one link, one route, one lease and a
    container that is reached."""
    identity = podman.run("a", network=NETWORK)
    podman.run("b", network=NETWORK)
    sandbox = podman.inspect("a", "{{.NetworkSettings.SandboxKey}}")
    podman.restart("a")
    assert podman.inspect("a", "{{.Id}}") == identity
    assert podman.inspect("a", "{{.NetworkSettings.SandboxKey}}") != sandbox
    podman.exec("b", "ping", "-c", "1", "-W", "5", podman.address("a"))
    assert links(node) == 2
    assert node.leased() == routed(node) == {podman.address("a"), podman.address("b")}


def test_container_removed_while_running_leaves_nothing(podman: Podman, node: Node) -> None:
    """After ``podman rm --force`` the node has no link, route, lease or namespace of the container."""
    podman.run("a", network=NETWORK)
    podman.run("b", network=NETWORK)
    sandbox = Path(podman.inspect("a", "{{.NetworkSettings.SandboxKey}}"))
    assert sandbox.exists()
    podman.rm("a")
    assert node.leased() == routed(node) == {podman.address("b")}
    podman.rm("b")
    assert (links(node), routed(node), node.leased()) == (0, set(), set())
    assert not sandbox.exists()


def test_container_that_ends_by_itself_leaves_nothing(podman: Podman, node: Node) -> None:
    """When a container's program ends, the DEL comes from the process that watched it, and reaches the agent."""
    assert "default via" in podman.once("ip", "route", network=NETWORK)
    assert (links(node), routed(node), node.leased()) == (0, set(), set())
