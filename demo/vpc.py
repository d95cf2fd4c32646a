"""A VPC made of network namespaces. What the emulated EC2 says *is* this network: it is followed all the time.

Attaching an interface makes a device with its hardware address appear in the node's namespace. The rest is the
router's; that it drops what leaves an interface with a source that is not its own is the source/destination check.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from netaddr import IPAddress, IPNetwork

from demo import lab
from demo.lab import Node, eventually
from demo.place import Place
from demo.router import OUTSIDE, ROUTER6, Plug, Router, following, join_outside, listener
from tests.cloud.endpoint import Ec2, Imds
from tests.cloud.region import Nic, Region

CIDR: Final = "10.0.0.0/16"
SUBNET: Final = "10.0.0.0/20"
CIDR6: Final = "2001:db8:0:1::/64"
GATEWAY: Final = IPAddress(IPNetwork(SUBNET).first + 1)
_NUMBERS = itertools.count(1)


def plug(node: Place, nic: Nic) -> Plug:
    """An interface that is attached to *node*: what its system does with the primary one, IPv6 as router advertisements
    leave it; with others it does nothing."""
    assert nic.attachment is not None
    device = f"ens{5 + nic.attachment.index}"
    found = Plug(node, device, nic.mac, 9001, nic.address, frozenset(nic.blocks))
    if nic.attachment.index:
        return found
    own6 = IPAddress(IPNetwork(CIDR6).first + (int(nic.address) & 0xFFFF))
    setup = (
        f"link set {device} up",
        f"address add {nic.address}/{IPNetwork(SUBNET).prefixlen} dev {device}",
        f"route add default via {GATEWAY}",
        f"-6 address add {own6}/128 dev {device} nodad",
        f"-6 route add default via {ROUTER6} dev {device}",
    )
    return replace(found, setup=setup, address6=own6)


@dataclass(slots=True)
class Vpc:
    """The whole: see ``built``."""

    region: Region
    router: Router
    nodes: list[Node]
    instances: dict[str, str]
    outside: Place
    subnet: str
    imds: dict[str, Imds] = field(default_factory=dict)
    ec2: list[Ec2] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def nic(self, node: Node, index: int) -> Nic:
        """The interface of *node* with that device index, as soon as it is attached."""

        def found() -> Nic | None:
            attached = self.region.attached(self.instances[node.name])
            return next((nic for nic in attached if nic.attachment and nic.attachment.index == index), None)

        nic: Nic = eventually(f"{node.name} has an interface with index {index}", found)
        return nic

    def follow(self) -> None:
        """Once: afterwards the network is what EC2 said before the call, as else it is a moment later. Any thread may
        call."""
        with self._lock:
            wanted = {
                nic.id: plug(node.place, nic)
                for node in self.nodes
                for nic in self.region.attached(self.instances[node.name])
            }
            self.router.follow(wanted)


@contextmanager
def built(
    *,
    nodes: int = 2,
    type_: str = "t3.medium",
    settings: Mapping[str, Any] | None = None,
    prepare: Callable[[Region], None] = lambda region: None,
    is_started: bool = True,
) -> Iterator[Vpc]:
    """A VPC with nodes whose agents serve, and a machine outside of it; taken down whatever happens. *settings* are
    added to every agent's configuration; *prepare* may change the region before anything is in it."""
    name = f"vpc{os.getpid()}-{next(_NUMBERS)}"
    with ExitStack() as cleanup:
        directory, executable = lab.home(cleanup)
        region = Region(time.time)
        region.attach_delay = region.detach_delay = 0.5
        prepare(region)
        vpc_id = region.add_vpc(CIDR)
        subnet = region.add_subnet(vpc_id, SUBNET, CIDR6)
        router = Router(lab.place(cleanup, f"{name}-router"), (CIDR, CIDR6), GATEWAY)
        outside = lab.place(cleanup, f"{name}-outside")
        join_outside(router.place, outside)
        vpc = Vpc(region, router, [], {}, outside, subnet)
        for number in range(1, nodes + 1):
            own = {"backend": "aws-eni", **(settings or {})}
            node = lab.node_at(cleanup, name, number, directory, executable, own)
            vpc.nodes.append(node)
            vpc.instances[node.name] = region.run_instance(type_, subnet)
            _serve(cleanup, vpc, node)
        vpc.follow()
        following(cleanup, vpc.follow)
        if is_started:
            start(vpc.nodes)
        yield vpc


@contextmanager
def nodeport(vpc: Vpc, node: Node, entry: int, target: str) -> Iterator[tuple[str, int]]:
    """As kube-proxy would have it: port 30080 of the node's interface *entry* is *target*. Where that is."""
    address = str(vpc.nic(node, entry).address)
    rule = f"ip daddr {address} meta l4proto {{ tcp, udp }} th dport 30080 dnat to {target}"
    chain = f"chain nodeport {{ type nat hook prerouting priority dstnat; {rule}; }}"
    node.place.run("nft", "-f", "-", stdin=f"table ip services {{ {chain}; }}")
    try:
        yield address, 30080
    finally:
        node.place.run("nft", "delete", "table", "ip", "services")


def start(nodes: Sequence[Node]) -> None:
    """Start the agents and wait until they serve."""
    for node in nodes:
        node.write_config()
        node.launch()
    for node in nodes:
        node.await_ready()


def _serve(cleanup: ExitStack, vpc: Vpc, node: Node) -> None:
    """EC2 and the metadata, on the node's own loopback."""

    ec2 = cleanup.enter_context(Ec2(vpc.region, listener(node.place)))
    imds = cleanup.enter_context(Imds(vpc.region, vpc.instances[node.name], listener(node.place)))
    vpc.ec2.append(ec2)
    vpc.imds[node.name] = imds
    node.environment.update(
        {
            "AWS_ENDPOINT_URL_EC2": ec2.url,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": imds.url,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }
    )


__all__ = ["CIDR", "OUTSIDE", "SUBNET", "Vpc", "built", "nodeport", "start"]
