"""The router of a VPC made of network namespaces, whichever cloud it is that says who has what.

A router namespace is the VPC. An interface is a device with its hardware address in the node's namespace, and a port of
the router. The router delivers a packet only to the port that has its destination, as an address or within a block, and
drops what comes in by a port with a source that is not its own.
"""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Final

from netaddr import IPAddress, IPNetwork

from demo import lab
from demo.place import Place

OUTSIDE: Final = "203.0.113.9"
"""The address of a machine that is in no VPC."""
FOLLOW: Final = 0.02
"""Seconds between looks at what the cloud says."""
ROUTER6: Final = "fe80::ec2:1"
"""The router's own address on every port with IPv6."""
_LISTEN: Final = 64


@dataclass(frozen=True, slots=True)
class Plug:
    """What the cloud says of an interface that is attached to the machine *node*, as *device*; *setup* are ``ip``
    commands, which the machine's own system would do with it."""

    node: Place
    device: str
    mac: str
    mtu: int
    address: IPAddress
    blocks: frozenset[IPNetwork]
    setup: tuple[str, ...] = ()
    address6: IPAddress | None = None


@dataclass(frozen=True, slots=True)
class Port:
    """The router's end of an interface."""

    link: str
    plug: Plug

    def own(self, blocks: Iterable[IPNetwork], *, is_whole: bool) -> dict[int, list[str]]:
        """Elements of the sets of sources, by family: of *blocks*, and of its addresses if it is whole."""
        networks = [IPNetwork(self.plug.address)] if is_whole else []
        if is_whole and self.plug.address6 is not None:
            networks.append(IPNetwork(self.plug.address6))
        networks += sorted(blocks)
        return {six: [f'"{self.link}" . {one}' for one in networks if one.version == six] for six in (4, 6)}


class Router:
    """The VPC itself, in the namespace *place*: of *networks*, with a *gateway* address."""

    def __init__(self, place: Place, networks: Iterable[str], gateway: IPAddress) -> None:
        self.place = place
        self._ports: dict[str, Port] = {}
        self._numbers = itertools.count(1)
        lab.route(place, (4, 6))
        place.ip(f"address add {gateway}/32 dev lo")
        for one in map(IPNetwork, networks):
            place.ip(f"-{one.version} route add blackhole {one}")
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

    def follow(self, wanted: Mapping[str, Plug]) -> None:
        """Be as the cloud says: *wanted* are the attached interfaces, by id."""
        for name in self._ports.keys() - wanted.keys():
            port = self._ports.pop(name)
            self._own("delete", port, port.plug.blocks, is_whole=True)
            self.place.ip(f"link delete {port.link}")
        for name, plug in wanted.items():
            have = self._ports.get(name) or self._plugged(plug)
            # A block that moves is taken from the one before the other gets it: the kernel has one route to it.
            if gone := have.plug.blocks - plug.blocks:
                self._changed("delete", have, gone)
            self._ports[name] = Port(have.link, replace(plug, blocks=have.plug.blocks & plug.blocks))
        for name, plug in wanted.items():
            have = self._ports[name]
            if come := plug.blocks - have.plug.blocks:
                self._changed("add", have, come)
            self._ports[name] = Port(have.link, plug)

    def _plugged(self, plug: Plug) -> Port:
        link, node, place = f"eni{next(self._numbers)}", plug.node, self.place
        node.ip(
            f"link add {plug.device} address {plug.mac} mtu {plug.mtu} type veth peer name {link} netns {place.name}"
        )
        place.ip(f"link set {link} mtu {plug.mtu}")
        # The VPC knows where every address is: nobody answers for itself, and nobody is asked.
        place.sysctl(f"net/ipv4/conf/{link}/proxy_arp", "1")
        place.sysctl(f"net/ipv4/neigh/{link}/proxy_delay", "0")
        place.ip(f"link set {link} up")
        place.ip(f"neigh replace {plug.address} lladdr {plug.mac} dev {link} nud permanent")
        place.ip(f"route add {plug.address}/32 dev {link}")
        if plug.address6 is not None:
            place.ip(f"-6 address add {ROUTER6}/64 dev {link} nodad")
            place.ip(f"-6 neigh replace {plug.address6} lladdr {plug.mac} dev {link} nud permanent")
            place.ip(f"-6 route add {plug.address6}/128 dev {link}")
        port = Port(link, replace(plug, blocks=frozenset()))
        self._own("add", port, (), is_whole=True)
        for line in plug.setup:
            node.ip(line)
        return port

    def _changed(self, verb: str, port: Port, blocks: frozenset[IPNetwork]) -> None:
        for block in blocks:
            via = port.plug.address if block.version == 4 else port.plug.address6
            flags = "onlink" if block.version == 4 else ""
            self.place.ip(f"-{block.version} route {verb} {block} via {via} dev {port.link} {flags}")
        self._own(verb, port, blocks, is_whole=False)

    def _own(self, verb: str, port: Port, blocks: Iterable[IPNetwork], *, is_whole: bool) -> None:
        for family, elements in port.own(blocks, is_whole=is_whole).items():
            if elements:
                self.place.run("nft", verb, "element", "inet", "vpc", f"owned{family}", f"{{ {', '.join(elements)} }}")


def following(cleanup: ExitStack, follow: Callable[[], None]) -> None:
    """*follow* again and again, in a thread that goes with the lab."""
    stop = threading.Event()

    def again() -> None:
        while not stop.wait(FOLLOW):
            follow()

    thread = threading.Thread(target=again, daemon=True)
    thread.start()
    cleanup.callback(thread.join)
    cleanup.callback(stop.set)


def listener(place: Place) -> socket.socket:
    """A socket on the loopback of *place*, where a part of the cloud is to be served."""
    made = place.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.bind(("127.0.0.1", 0))
    made.listen(_LISTEN)
    return made


def join_outside(router: Place, outside: Place) -> None:
    """*outside* is a machine beyond the VPC."""
    router.ip(f"link add out type veth peer name eth0 netns {outside.name}")
    router.ip("link set out up")
    router.ip("address add 203.0.113.1/24 dev out")
    outside.ip("link set eth0 up")
    outside.ip(f"address add {OUTSIDE}/24 dev eth0")
    outside.ip("route add default via 203.0.113.1")
    router.ip("-6 address add 2001:db8:ffff::1/64 dev out nodad")
    outside.ip("-6 address add 2001:db8:ffff::9/64 dev eth0 nodad")
    outside.ip("-6 route add default via 2001:db8:ffff::1")
