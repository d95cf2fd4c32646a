"""Chained with Debian's real portmap, bandwidth and tuning, as a runtime runs a conflist."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from demo import traffic
from demo.lab import Lab, built, eventually
from demo.place import Place
from tests.conformance.conftest import REFERENCE

VERSION = "1.0.0"
"""The newest that Debian's plugins speak."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One node, and a machine outside."""
    with built(nodes=1) as lab:
        yield lab


@dataclass(slots=True)
class Chain:
    """A conflist run by hand: each plugin in the node's namespace, with the result of the one before."""

    lab: Lab
    plugins: Sequence[Mapping[str, Any]]
    place: Place
    runtime: Mapping[str, Any]
    result: dict[str, Any] = field(default_factory=dict)

    def call(self, verb: str, plugin: Mapping[str, Any], prev: Mapping[str, Any] | None) -> dict[str, Any]:
        """Call one plugin."""
        node = self.lab.nodes[0]
        kind = str(plugin["type"])
        executable = node.runtime.executable if kind == "routable" else REFERENCE / kind
        config = {**plugin, "cniVersion": VERSION, "name": "pods"}
        if "capabilities" in plugin:
            config["runtimeConfig"] = {key: self.runtime[key] for key in plugin["capabilities"] if key in self.runtime}
        if prev is not None:
            config["prevResult"] = prev
        environment = {
            "PATH": os.environ["PATH"],
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": self.place.name,
            "CNI_NETNS": str(self.place.path),
            "CNI_IFNAME": "eth0",
            "CNI_PATH": f"{node.runtime.executable.parent}:{REFERENCE}",
            "ROUTABLE_SOCKET": str(node.runtime.socket),
            "ROUTABLE_SPOOL": str(node.runtime.spool),
        }
        done = subprocess.run(
            node.place.enter(str(executable)),
            input=json.dumps(config),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{kind} {verb}: {done.stdout}{done.stderr}"
        answer: dict[str, Any] = json.loads(done.stdout or "{}")
        return answer

    def add(self) -> None:
        """In order; the last one's result is the runtime's."""
        prev: dict[str, Any] | None = None
        for plugin in self.plugins:
            prev = self.call("ADD", plugin, prev)
        self.result = prev or {}

    def check(self) -> None:
        """In order, each with the whole chain's result."""
        for plugin in self.plugins:
            self.call("CHECK", plugin, self.result)

    def delete(self) -> None:
        """In reverse."""
        for plugin in reversed(self.plugins):
            self.call("DEL", plugin, self.result)


@pytest.fixture
def place(lab: Lab) -> Iterator[Place]:
    """A pod's namespace."""
    place = lab.nodes[0].pod_place()
    yield place
    place.remove()


ROUTABLE: Mapping[str, Any] = {"type": "routable"}


def test_a_host_port_answers_from_outside(lab: Lab, place: Place) -> None:
    """portmap translates the node's port to the pod; the pod sees the client's own address; DEL takes it away."""
    ports = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
    chain = Chain(
        lab, [ROUTABLE, {"type": "portmap", "capabilities": {"portMappings": True}}], place, {"portMappings": ports}
    )
    chain.add()
    node = lab.nodes[0]
    (pod,) = (ip["address"].partition("/")[0] for ip in chain.result["ips"])
    assert asked(lab.outside, node.address(4), 8080, place, pod) == lab.outside_address(4)
    assert "8080" in node.place.run("iptables-save", "-t", "nat")
    chain.delete()
    assert "8080" not in node.place.run("iptables-save", "-t", "nat")
    assert node.status()["leases"] == []


def test_tuning_may_change_the_pods_end(lab: Lab, place: Place) -> None:
    """What tuning made of hardware address, MTU and sysctls is no difference to CHECK, and packets still arrive."""
    tuning = {
        "type": "tuning",
        "mac": "0a:58:00:00:00:42",
        "mtu": 1400,
        "promisc": True,
        "sysctl": {"net.ipv4.conf.eth0.arp_notify": "1"},
    }
    chain = Chain(lab, [ROUTABLE, tuning], place, {})
    chain.add()
    assert "0a:58:00:00:00:42" in place.ip("link show eth0")
    chain.check()
    (pod,) = (ip["address"].partition("/")[0] for ip in chain.result["ips"])
    node = lab.nodes[0]

    def is_reached() -> bool:
        try:
            return traffic.seen_by_tcp(lab.outside, place, pod) == lab.outside_address(4)
        except OSError:
            return False

    eventually("the host knows the pod's new hardware address", is_reached)
    chain.check()
    assert "mtu 1400" in place.ip("link show eth0"), "the agent must not put it back"
    assert [lease["mac"] for lease in node.status()["leases"]] == ["0a:58:00:00:00:42"]
    chain.delete()
    assert node.status()["leases"] == []


def test_bandwidth_limits_the_pods_link(lab: Lab, place: Place) -> None:
    """bandwidth finds the host's end in our result and puts its queues on it; repair leaves them alone."""
    limit = {"ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 8_000_000, "egressBurst": 800_000}
    chain = Chain(lab, [ROUTABLE, {"type": "bandwidth", **limit}], place, {})
    chain.add()
    node = lab.nodes[0]
    link = chain.result["interfaces"][0]["name"]
    assert "tbf" in node.place.run("tc", "qdisc", "show", "dev", link)
    chain.check()
    repairs = node.status()["repairs"]
    chain.delete()
    assert node.status()["leases"] == []
    assert repairs.keys() <= {"link", "neigh"}, "what was mended before belongs to other tests of this lab"


def asked(client: Place, address: str, port: int, server: Place, own: str) -> str:
    """The address that a server in the pod sees of a client that connects to *address* and *port*."""
    with (
        closing(server.socket(socket.AF_INET, socket.SOCK_STREAM)) as listener,
        closing(client.socket(socket.AF_INET, socket.SOCK_STREAM)) as caller,
    ):
        for end in (listener, caller):
            end.settimeout(traffic.PATIENCE)
        listener.bind((own, 80))
        listener.listen()
        caller.connect((address, port))
        accepted, peer = listener.accept()
        accepted.close()
        return str(peer[0])


def test_the_samples_run_as_they_are(lab: Lab, place: Place) -> None:
    """The chained conflist of conf/ with what a runtime adds to it."""
    sample = json.loads((Path(__file__).parents[2] / "conf" / "10-routable-chained.conflist").read_text())
    runtime = {
        "portMappings": [{"hostPort": 8081, "containerPort": 80, "protocol": "tcp"}],
        "bandwidth": {"ingressRate": 8_000_000, "ingressBurst": 800_000},
        "mac": "0a:58:00:00:00:43",
        "ips": ["10.244.1.99"],
    }
    chain = Chain(lab, sample["plugins"], place, runtime)
    chain.add()
    assert [ip["address"] for ip in chain.result["ips"]] == ["10.244.1.99/32"]
    assert asked(lab.outside, lab.nodes[0].address(4), 8081, place, "10.244.1.99") == lab.outside_address(4)
    chain.delete()
    assert lab.nodes[0].status()["leases"] == []
