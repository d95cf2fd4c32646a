"""Google's VPC made of network namespaces. What the emulated Compute Engine says *is* this network.

Machines are as Google's images have them: one interface (ens4, MTU 1460) with its address as a /32, a route to the
gateway and the default one by it, from DHCP; reverse paths are checked; and there is the guest agent, which adds local
routes for alias ranges. The VPC delivers a range to the machine that has it, and drops what leaves a machine with a
source that is neither its address nor of its ranges (canIpForward is false).
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from netaddr import IPNetwork

from demo import lab
from demo.lab import Node
from demo.place import Place
from demo.router import Plug, Router, following, join_outside, listener
from demo.vpc import start
from tests.gcp.compute import Compute
from tests.gcp.metadata_server import Metadata
from tests.gcp.project import Project
from tests.gcp.tokens import Tokens

CIDR: Final = "10.128.0.0/20"
PODS: Final = "10.64.0.0/16"
"""The subnet's secondary range for pods."""
NETWORK, SUBNETWORK, RANGE = "default", "nodes", "pods"
DEVICE: Final = "ens4"
_NUMBERS = itertools.count(1)


class GuestAgent:
    """What Google's guest agent does with alias ranges on the machine *place*, whenever the metadata, as *read* answers
    it, is another than it was (GoogleCloudPlatform/guest-agent, addresses.go: ip_aliases is true by default).

    Routes of its protocol that it does not want, it removes, whoever made them; that somebody removed one of its own it
    does not see before the next change.
    """

    PROTOCOL = 66

    def __init__(self, place: Place, read: Callable[[], frozenset[str]]) -> None:
        self._place = place
        self._read = read
        self._last: frozenset[str] | None = None

    def look(self) -> None:
        """Once."""
        wanted = self._read()
        if wanted == self._last:
            return
        have = self.routes()
        for verb, which in (("add", wanted - have), ("delete", have - wanted)):
            for one in sorted(which):
                self._place.ip(f"route {verb} to local {one} scope host dev {DEVICE} proto {self.PROTOCOL}")
        self._last = wanted

    def routes(self) -> frozenset[str]:
        """Those of its protocol."""
        words = f"route list table local type local scope host dev {DEVICE} proto {self.PROTOCOL}"
        lines = self._place.ip(words).splitlines()
        return frozenset(str(IPNetwork(line.removeprefix("local ").split()[0])) for line in lines if line.strip())


@dataclass(frozen=True, slots=True)
class Where:
    """Where a node finds its cloud: URLs on its own loopback."""

    compute: str
    metadata: str


@dataclass(slots=True)
class Vpc:
    """The whole: see ``built``. A node's machine has the node's name."""

    project: Project
    router: Router
    tokens: Tokens
    nodes: list[Node]
    outside: Place
    compute: dict[str, Compute] = field(default_factory=dict)
    metadata: dict[str, Metadata] = field(default_factory=dict)
    guests: dict[str, GuestAgent] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def where(self, node: Node) -> Where:
        """For the agent of *node*."""
        return Where(self.compute[node.name].url, self.metadata[node.name].url)

    def ranges(self, node: Node) -> frozenset[IPNetwork]:
        """What its machine has."""
        return self.project.truth(node.name)

    def follow(self) -> None:
        """Once: afterwards the network and the guest agents are what Google said before the call. Any thread may."""
        with self._lock:
            self.router.follow({node.name: self._plug(node) for node in self.nodes})
            for guest in self.guests.values():
                guest.look()

    def _plug(self, node: Node) -> Plug:
        nic = self.project.instances[node.name].nic
        gateway = nic.subnetwork.gateway
        dhcp = f"dev {DEVICE} proto dhcp src {nic.address} metric 100"
        setup = (
            f"link set {DEVICE} up",
            f"address add {nic.address}/32 dev {DEVICE}",
            f"route add {gateway} scope link {dhcp}",
            f"route add default via {gateway} {dhcp}",
        )
        blocks = self.project.delivered(node.name)
        return Plug(node.place, DEVICE, nic.mac, self.project.mtu, nic.address, blocks, setup)


@contextmanager
def built(
    *,
    nodes: int = 2,
    settings: Callable[[Where], Mapping[str, Any]] = lambda where: {},
    prepare: Callable[[Project], None] = lambda project: None,
    pods: str = PODS,
    is_started: bool = True,
    has_guest_agent: bool = True,
) -> Iterator[Vpc]:
    """A VPC with nodes whose agents serve, and a machine outside of it; taken down whatever happens. *settings* are
    added to every agent's configuration; *prepare* may change the project when the machines are in it."""
    name = f"gcp{os.getpid()}-{next(_NUMBERS)}"
    with ExitStack() as cleanup:
        directory, executable = lab.home(cleanup)
        project = Project(time.time)
        subnetwork = project.add_subnetwork(SUBNETWORK, CIDR, **{RANGE: pods})
        router = Router(lab.place(cleanup, f"{name}-router"), (CIDR, pods), subnetwork.gateway)
        outside = lab.place(cleanup, f"{name}-outside")
        join_outside(router.place, outside)
        vpc = Vpc(project, router, Tokens(), [], outside)
        for number in range(1, nodes + 1):
            node = lab.node_at(cleanup, name, number, directory, executable, {"backend": "gcp-alias"})
            project.run_instance(node.name, SUBNETWORK)
            vpc.nodes.append(node)
            _serve(cleanup, vpc, node)
            node.settings.update(settings(vpc.where(node)))
            if has_guest_agent:
                vpc.guests[node.name] = GuestAgent(node.place, lambda one=node.name: _aliases(project, one))  # type: ignore[misc]
        prepare(project)
        vpc.follow()
        following(cleanup, vpc.follow)
        if is_started:
            start(vpc.nodes)
        yield vpc


def _aliases(project: Project, name: str) -> frozenset[str]:
    """As the metadata of a machine has them."""
    (nic,) = project.metadata(name)["instance"]["network-interfaces"]
    return frozenset(nic["ip-aliases"])


def _serve(cleanup: ExitStack, vpc: Vpc, node: Node) -> None:
    """Compute Engine and the metadata, on the node's own loopback."""
    compute = cleanup.enter_context(Compute(vpc.project, vpc.tokens, listener(node.place)))
    metadata = cleanup.enter_context(Metadata(vpc.project, node.name, vpc.tokens, listener(node.place)))
    vpc.compute[node.name], vpc.metadata[node.name] = compute, metadata
    # Google's own libraries ask there, whoever uses them.
    node.environment.update({"GCE_METADATA_HOST": metadata.host, "GCE_METADATA_IP": metadata.host})
