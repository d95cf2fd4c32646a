"""A VPC made of network namespaces. What the emulated EC2 says *is* this network: it is followed all the time.

A router namespace is the VPC. Attaching an interface makes a device with its hardware address appear in the node's
namespace. The router delivers a packet only to the interface that has its destination, as an address or within a
prefix, and drops what leaves an interface with a source that is not its own (the source/destination check).
"""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from netaddr import IPAddress, IPNetwork

from demo import lab
from demo.lab import Node, eventually
from demo.place import Place
from tests.cloud.endpoint import Ec2, Imds
from tests.cloud.region import Nic, Region

CIDR: Final = "10.0.0.0/16"
SUBNET: Final = "10.0.0.0/20"
CIDR6: Final = "2001:db8:0:1::/64"
OUTSIDE: Final = "203.0.113.9"
"""The address of a machine that is in no VPC."""
FOLLOW: Final = 0.02
"""Seconds between looks at what EC2 says."""
_NUMBERS = itertools.count(1)
_LISTEN: Final = 64


@dataclass(frozen=True, slots=True)
class Port:
    """The router's end of an attached interface: its link, and what is delivered there."""

    link: str
    node: str
    mac: str
    address: IPAddress
    blocks: frozenset[IPNetwork]

    @property
    def networks(self) -> list[str]:
        """What it owns, in text."""
        return [f"{self.address}/32", *(str(one) for one in sorted(self.blocks))]


class Router:
    """The VPC itself, in the namespace *place*."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._ports: dict[str, Port] = {}
        self._numbers = itertools.count(1)
        lab.route(place, (4, 6))
        gateway = IPAddress(IPNetwork(SUBNET).first + 1)
        place.ip(f"address add {gateway}/32 dev lo")
        place.ip(f"route add blackhole {CIDR}")
        place.ip(f"-6 route add blackhole {CIDR6}")
        place.run(
            *("nft", "-f", "-"),
            stdin="""
table inet vpc {
	set owned4 { typeof iifname . ip saddr; flags interval; }
	set owned6 { typeof iifname . ip6 saddr; flags interval; }
	counter dropped { }
	chain check {
		type filter hook prerouting priority raw; policy accept;
		iifname != "eni*" accept
		ip6 saddr fe80::/10 accept
		iifname . ip saddr @owned4 accept
		iifname . ip6 saddr @owned6 accept
		meta protocol { ip, ip6 } counter name dropped drop
	}
}
""",
        )

    def dropped(self) -> int:
        """How many packets were dropped because their source was not their interface's."""
        text = self.place.run("nft", "list", "counter", "inet", "vpc", "dropped")
        return int(text.split("packets")[1].split()[0])

    def follow(self, wanted: Mapping[str, tuple[Place, Nic]]) -> None:
        """Be as EC2 says: *wanted* are the attached interfaces by id, and where."""
        for name in self._ports.keys() - wanted.keys():
            port = self._ports.pop(name)
            self._own("delete", port)
            self.place.ip(f"link delete {port.link}")
        for name, (node, nic) in wanted.items():
            blocks = frozenset(nic.blocks)
            have = self._ports.get(name)
            if have is None:
                have = self._plugged(node, nic)
            if have.blocks != blocks:
                self._changed(have, blocks)
            self._ports[name] = Port(have.link, node.name, nic.mac, nic.address, blocks)

    def _plugged(self, node: Place, nic: Nic) -> Port:
        link = f"eni{next(self._numbers)}"
        assert nic.attachment is not None
        device = f"ens{5 + nic.attachment.index}"
        node.ip(f"link add {device} address {nic.mac} mtu 9001 type veth peer name {link} netns {self.place.name}")
        self.place.ip(f"link set {link} mtu 9001")
        # The VPC knows where every address is: nobody answers for itself, and nobody is asked.
        self.place.sysctl(f"net/ipv4/conf/{link}/proxy_arp", "1")
        self.place.sysctl(f"net/ipv4/neigh/{link}/proxy_delay", "0")
        self.place.ip(f"link set {link} up")
        self.place.ip(f"neigh replace {nic.address} lladdr {nic.mac} dev {link} nud permanent")
        self.place.ip(f"route add {nic.address}/32 dev {link}")
        port = Port(link, node.name, nic.mac, nic.address, frozenset())
        self._own("add", port)
        if nic.attachment.index == 0:
            node.ip(f"link set {device} up")
            node.ip(f"address add {nic.address}/{IPNetwork(SUBNET).prefixlen} dev {device}")
            node.ip(f"route add default via {IPAddress(IPNetwork(SUBNET).first + 1)}")
            self._ipv6(node, device, link, nic)
        return port

    def _ipv6(self, node: Place, device: str, link: str, nic: Nic) -> None:
        """As router advertisements leave it on a primary interface; the router's own address is everywhere the same."""
        own = IPAddress(IPNetwork(CIDR6).first + (int(nic.address) & 0xFFFF))
        self.place.ip(f"-6 address add fe80::ec2:1/64 dev {link} nodad")
        self.place.ip(f"-6 neigh replace {own} lladdr {nic.mac} dev {link} nud permanent")
        self.place.ip(f"-6 route add {own}/128 dev {link}")
        self.place.run("nft", "add", "element", "inet", "vpc", "owned6", f'{{ "{link}" . {own} }}')
        node.ip(f"-6 address add {own}/128 dev {device} nodad")
        node.ip(f"-6 route add default via fe80::ec2:1 dev {device}")

    def _changed(self, port: Port, blocks: frozenset[IPNetwork]) -> None:
        own6 = IPAddress(IPNetwork(CIDR6).first + (int(port.address) & 0xFFFF))
        for verb, which in (("delete", port.blocks - blocks), ("add", blocks - port.blocks)):
            for block in which:
                via = port.address if block.version == 4 else own6
                flags = "onlink" if block.version == 4 else ""
                self.place.ip(f"-{block.version} route {verb} {block} via {via} dev {port.link} {flags}")
            self._own(verb, Port(port.link, port.node, port.mac, port.address, which), is_whole=False)

    def _own(self, verb: str, port: Port, *, is_whole: bool = True) -> None:
        networks = port.networks if is_whole else port.networks[1:]
        for family in (4, 6):
            elements = [f'"{port.link}" . {one}' for one in networks if (":" in one) == (family == 6)]
            if elements:
                self.place.run("nft", verb, "element", "inet", "vpc", f"owned{family}", f"{{ {', '.join(elements)} }}")


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
                nic.id: (node.place, nic)
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
        router = Router(lab.place(cleanup, f"{name}-router"))
        outside = lab.place(cleanup, f"{name}-outside")
        _join_outside(router.place, outside)
        vpc = Vpc(region, router, [], {}, outside, subnet)
        for number in range(1, nodes + 1):
            own = {"backend": "aws-eni", **(settings or {})}
            node = lab.node_at(cleanup, name, number, directory, executable, own)
            vpc.nodes.append(node)
            vpc.instances[node.name] = region.run_instance(type_, subnet)
            _serve(cleanup, vpc, node)
        vpc.follow()
        stop = threading.Event()
        follower = threading.Thread(target=_follow, args=(vpc, stop), daemon=True)
        follower.start()
        cleanup.callback(follower.join)
        cleanup.callback(stop.set)
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


def _follow(vpc: Vpc, stop: threading.Event) -> None:
    while not stop.wait(FOLLOW):
        vpc.follow()


def _serve(cleanup: ExitStack, vpc: Vpc, node: Node) -> None:
    """EC2 and the metadata, on the node's own loopback."""

    def listener() -> socket.socket:
        made = node.place.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.bind(("127.0.0.1", 0))
        made.listen(_LISTEN)
        return made

    ec2 = cleanup.enter_context(Ec2(vpc.region, listener()))
    imds = cleanup.enter_context(Imds(vpc.region, vpc.instances[node.name], listener()))
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


def _join_outside(router: Place, outside: Place) -> None:
    router.ip(f"link add out type veth peer name eth0 netns {outside.name}")
    router.ip("link set out up")
    router.ip("address add 203.0.113.1/24 dev out")
    outside.ip("link set eth0 up")
    outside.ip(f"address add {OUTSIDE}/24 dev eth0")
    outside.ip("route add default via 203.0.113.1")
    router.ip("-6 address add 2001:db8:ffff::1/64 dev out nodad")
    outside.ip("-6 address add 2001:db8:ffff::9/64 dev eth0 nodad")
    outside.ip("-6 route add default via 2001:db8:ffff::1")
