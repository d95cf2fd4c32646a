"""The VPC of namespaces, without any agent: it delivers and drops what the emulated Compute Engine says."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from netaddr import IPNetwork

from demo import traffic
from demo.gcpvpc import DEVICE, RANGE, Vpc, built
from demo.lab import Node
from demo.place import Place
from demo.router import OUTSIDE
from tests.gcp.strangers import Hands

PATIENCE = 0.3
"""Seconds after which a packet that was dropped does not come any more."""


@pytest.fixture(scope="module")
def vpc() -> Iterator[Vpc]:
    """Two machines with a /28 each, no agent."""
    with built(is_started=False) as found:
        for node in found.nodes:
            Hands(found.project).add(node.name, range_=RANGE)
        found.follow()
        yield found


@contextmanager
def pod(node: Node, address: str) -> Iterator[Place]:
    """With a route to it on the machine, as every wiring by host route has it."""
    place = node.pod_place()
    try:
        link = place.name.replace("-", "")[-12:]
        node.place.ip(f"link add {link} type veth peer name eth0 netns {place.name}")
        node.place.sysctl("net/ipv4/ip_forward", "1")
        node.place.sysctl(f"net/ipv4/conf/{link}/proxy_arp", "1")
        node.place.sysctl(f"net/ipv4/neigh/{link}/proxy_delay", "0")
        node.place.ip(f"link set {link} up")
        place.ip("link set eth0 up")
        place.ip(f"address add {address}/32 dev eth0")
        place.ip("route add default dev eth0")
        node.place.ip(f"route add {address}/32 dev {link}")
        yield place
    finally:
        place.remove()


def held(vpc: Vpc, node: Node) -> IPNetwork:
    """The first range of its machine."""
    return min(vpc.ranges(node))


def test_machines_are_as_googles_images_have_them(vpc: Vpc) -> None:
    """A /32 on an interface of MTU 1460, the gateway by the link, all else by the gateway."""
    place, address = vpc.nodes[0].place, vpc.project.instances["node-a"].nic.address
    assert f"inet {address}/32" in place.ip(f"address show dev {DEVICE}")
    assert "mtu 1460" in place.ip(f"link show dev {DEVICE}")
    routes = place.ip("route").splitlines()
    dhcp = f"proto dhcp {{}}src {address} metric 100"
    assert [line.strip() for line in routes[:2]] == [
        f"default via 10.128.0.1 dev {DEVICE} {dhcp.format('')}",
        f"10.128.0.1 dev {DEVICE} {dhcp.format('scope link ')}",
    ]


def test_the_vpc_delivers_ranges_to_the_machines_that_have_them(vpc: Vpc) -> None:
    """Pod to pod, machine to pod and outside to pod, without translation and at full size; nothing is dropped."""
    one, other = vpc.nodes
    addresses = [str(held(vpc, node)[3]) for node in vpc.nodes]
    before = vpc.router.dropped()
    with pod(one, addresses[0]) as here, pod(other, addresses[1]) as there:
        assert traffic.seen_by_tcp(here, there, addresses[1], size=100_000) == addresses[0]
        assert traffic.seen_by_udp(there, here, addresses[0], size=1400) == addresses[1]
        assert traffic.seen_by_tcp(vpc.outside, there, addresses[1]) == OUTSIDE
        own = str(vpc.project.instances[one.name].nic.address)
        assert traffic.seen_by_tcp(one.place, there, addresses[1]) == own
    assert vpc.router.dropped() == before


def test_what_is_of_no_range_of_the_machine_is_dropped(vpc: Vpc) -> None:
    """As a source; and as a destination it is delivered nowhere."""
    one, other = vpc.nodes
    good, bad = str(held(vpc, other)[4]), "10.64.200.1"
    before = vpc.router.dropped()
    with pod(one, bad) as here, pod(other, good) as there:
        with pytest.raises(OSError, match="timed out"):
            traffic.seen_by_udp(here, there, good, patience=PATIENCE)
        assert vpc.router.dropped() > before
        with pytest.raises(OSError, match=r"timed out|unreachable|No route"):
            traffic.seen_by_udp(there, here, bad, patience=PATIENCE)


def test_a_range_that_moves_is_delivered_to_the_other_machine_later(vpc: Vpc) -> None:
    """And for as long where it was."""
    one, other = vpc.nodes
    hands = Hands(vpc.project)
    network = hands.add(one.name, range_=RANGE)
    vpc.project.become(moving=(3.0, 3.0))
    try:
        hands.move(network, one.name, other.name)
        assert network in vpc.ranges(other)
        assert network in vpc.project.delivered(one.name)
        address = str(network[1])
        with pod(other, address) as there:
            with pytest.raises(OSError, match="timed out"):
                traffic.seen_by_udp(vpc.outside, there, address, patience=0.1)
            assert traffic.seen_by_tcp(vpc.outside, there, address) == OUTSIDE
    finally:
        vpc.project.become(moving=(0.0, 0.0))
        hands.take(other.name, network)


def test_the_guest_agent_makes_the_host_answer_for_its_pods(vpc: Vpc) -> None:
    """Its routes are there for every alias range and go with it. Alone they do no harm, since the pods' are longer;
    once there is a rule, the table with them comes first, and the host refuses its pods' connections."""
    node, guest = vpc.nodes[0], vpc.guests["node-a"]
    network = held(vpc, node)
    address = str(network[5])
    assert guest.routes() == {str(network)}
    with pod(node, address) as place:
        assert traffic.seen_by_tcp(vpc.outside, place, address) == OUTSIDE
        node.place.ip("rule add priority 30000 lookup main")
        try:
            with pytest.raises(OSError, match="refused") as caught:
                traffic.seen_by_tcp(vpc.outside, place, address)
            assert caught.value.errno == errno.ECONNREFUSED
            node.place.ip(f"route delete local {network} dev {DEVICE} table local")
            vpc.follow()
            assert guest.routes() == frozenset()
            assert traffic.seen_by_tcp(vpc.outside, place, address) == OUTSIDE
        finally:
            node.place.ip("rule delete priority 30000")
    hands = Hands(vpc.project)
    more = hands.add(node.name, range_=RANGE)
    vpc.follow()
    assert guest.routes() == {str(network), str(more)}
    hands.take(node.name, more)
    vpc.follow()
    assert guest.routes() == {str(network)}


def test_each_machine_asks_its_own_metadata_on_its_loopback(vpc: Vpc) -> None:
    """And Compute Engine there."""
    for node in vpc.nodes:
        where = vpc.where(node)
        for url in (where.metadata, where.compute):
            host, _, port = url.removeprefix("http://").partition(":")
            with node.place.socket(socket.AF_INET, socket.SOCK_STREAM) as stream:
                stream.settimeout(60)
                stream.connect((host, int(port)))
                line = "GET /computeMetadata/v1/instance/name HTTP/1.0\r\nMetadata-Flavor: Google\r\n\r\n"
                stream.sendall(line.encode())
                answer = b""
                while data := stream.recv(4096):
                    answer += data
            if url == where.metadata:
                assert answer.endswith(f"\r\n\r\n{node.name}".encode())
            else:
                assert b" 401 " in answer.splitlines()[0]
