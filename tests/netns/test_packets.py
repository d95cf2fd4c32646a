"""Packets between pods, nodes and the outside, on every backend and in both families."""

from __future__ import annotations

import errno
import socket
import struct
from contextlib import closing

import pytest

from demo import show, traffic
from demo.lab import Lab
from demo.place import Place

HEADERS = {4: 28, 6: 48}
"""Bytes of IP and UDP."""


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def family(request: pytest.FixtureRequest) -> int:
    """Both families, over the same lab."""
    return int(request.param)


def test_every_pod_is_reached_and_sees_the_senders_own_address(lab: Lab, family: int) -> None:
    """By TCP and UDP from pods of both nodes, from both nodes and from the outside machine: no NAT anywhere."""
    faults = [f"{one.sender.label} -> {one.receiver.label}: {one.fault}" for one in show.reachability(lab, family)]
    assert len(faults) == 4 * 3 + 2 * 4 + 4
    assert [fault for fault in faults if not fault.endswith(": ")] == []


def test_pods_reach_nodes_and_the_outside_with_their_own_address(lab: Lab, family: int) -> None:
    """The other direction: whoever a pod talks to sees the pod's address."""
    for _, pod in lab.pods:
        address = pod.address(family)
        for node in lab.nodes:
            assert traffic.seen_by_tcp(pod.place, node.place, node.address(family)) == address
            assert traffic.seen_by_udp(pod.place, node.place, node.address(family)) == address
        assert traffic.seen_by_tcp(pod.place, lab.outside, lab.outside_address(family)) == address
        assert traffic.seen_by_udp(pod.place, lab.outside, lab.outside_address(family)) == address


def test_much_data_gets_through_whole(lab: Lab, family: int) -> None:
    """A megabyte each way over TCP, between pods of two nodes: full segments, offloads, and all."""
    (_, first), (_, last) = lab.pods[0], lab.pods[-1]
    assert traffic.seen_by_tcp(first.place, last.place, last.address(family), size=1 << 20) == first.address(family)


def test_a_packet_of_exactly_the_mtu_gets_through_and_a_larger_one_is_refused(lab: Lab, family: int) -> None:
    """Nothing is cut up on the way, and whoever sends too much is told at once, not left waiting."""
    (_, first), (_, last) = lab.pods[0], lab.pods[-1]
    mtu = first.result["interfaces"][1]["mtu"]
    link = first.place.ip("-j link show eth0")
    assert f'"mtu":{mtu}' in link
    whole = mtu - HEADERS[family]
    address = last.address(family)
    assert send_unfragmented(first.place, last.place, address, whole) == whole
    with pytest.raises(OSError, match="too long") as refusal:
        send_unfragmented(first.place, last.place, address, whole + 1)
    assert refusal.value.errno == errno.EMSGSIZE


def test_the_mtu_is_the_uplinks_less_the_overhead(lab: Lab) -> None:
    """1500 for plain routes, 50 less over IPv4 and 70 less over IPv6."""
    settings = lab.nodes[0].settings
    overhead = {"static": 0, "vxlan": 50}[settings["backend"]]
    if settings.get("vxlan", {}).get("underlay") == "ipv6":
        overhead = 70
    assert [end["mtu"] for _, pod in lab.pods for end in pod.result["interfaces"]] == [1500 - overhead] * 8


@pytest.mark.parametrize("protocol", ["udp", "icmp"])
def test_a_forged_source_is_dropped(lab: Lab, family: int, protocol: str) -> None:
    """A pod cannot send from the address of another pod, of a node or of anybody: the receiver gets nothing, while a
    packet made the same way with its own address arrives."""
    (_, forger), (_, neighbour), (_, target) = lab.pods[0], lab.pods[1], lab.pods[-1]
    port = 5300
    with closing(target.place.socket(traffic.family_of(target.address(family)), socket.SOCK_DGRAM)) as receiver:
        receiver.bind((target.address(family), port))
        stranger = "203.0.113.7" if family == 4 else "2001:db8:dead::7"
        for source in (neighbour.address(family), lab.nodes[0].address(family), stranger):
            send_raw(forger.place, family, source, target.address(family), port, protocol)
        send_raw(forger.place, family, forger.address(family), target.address(family), port, "udp")
        receiver.settimeout(traffic.PATIENCE)
        _, peer = receiver.recvfrom(100)  # the first to arrive is the honest one: all went the same way in order
        assert peer[0] == forger.address(family)
        receiver.settimeout(0.2)
        with pytest.raises(TimeoutError):
            receiver.recvfrom(100)


def test_an_address_that_no_pod_has_is_unreachable_at_once(lab: Lab, family: int) -> None:
    """No loop between the node and its router, no waiting."""
    free = "10.244.1.200" if family == 4 else "2001:db8:1::200"
    for place in (lab.pods[0][1].place, lab.nodes[0].place, lab.pods[-1][1].place):
        with closing(place.socket(traffic.family_of(free), socket.SOCK_STREAM)) as client:
            client.settimeout(traffic.PATIENCE)
            with pytest.raises(OSError, match=r"[Nn]o route to host|unreachable"):
                client.connect((free, 1))


def test_a_pod_looks_as_it_should_from_inside(lab: Lab) -> None:
    """One address per family, a default route by the link-local gateway, permanent neighbours, no waiting for
    duplicate address detection."""
    for _, pod in lab.pods:
        inside = pod.place
        assert f"inet {pod.address(4)}/32 scope global eth0" in inside.ip("-4 address show eth0")
        six = inside.ip("-6 address show eth0 scope global")
        assert f"inet6 {pod.address(6)}/128" in six
        assert "tentative" not in six
        assert inside.ip("-4 route show").strip() == "default via 169.254.1.1 dev eth0 proto 82 onlink"
        assert "default via fe80::1 dev eth0 proto 82" in inside.ip("-6 route show default")
        assert sorted(inside.ip("neigh show nud permanent").split("\n"))[1:] == [
            "169.254.1.1 dev eth0 lladdr ee:ee:ee:ee:ee:ee PERMANENT ",
            "fe80::1 dev eth0 lladdr ee:ee:ee:ee:ee:ee PERMANENT ",
        ]


def send_unfragmented(sender: Place, receiver: Place, address: str, size: int) -> int:
    """Send one datagram that must not be cut up; the answer is what arrived. OSError: it was refused."""
    family = traffic.family_of(address)
    level, option, value = (
        (socket.IPPROTO_IP, 10, 2) if family == socket.AF_INET else (socket.IPPROTO_IPV6, 23, 2)
    )  # IP_MTU_DISCOVER, IPV6_MTU_DISCOVER: always
    with (
        closing(receiver.socket(family, socket.SOCK_DGRAM)) as server,
        closing(sender.socket(family, socket.SOCK_DGRAM)) as client,
    ):
        server.settimeout(traffic.PATIENCE)
        server.bind((address, 0))
        client.setsockopt(level, option, value)
        client.connect(server.getsockname()[:2])
        client.send(bytes(size))
        return len(server.recv(1 << 16))


def send_raw(place: Place, family: int, source: str, target: str, port: int, protocol: str) -> None:
    """Send a packet with any source address, below the checks of the sender's own stack."""
    number = {"udp": socket.IPPROTO_UDP, "icmp": socket.IPPROTO_ICMP if family == 4 else 58}[protocol]
    payload = struct.pack("!HHHH", 1234, port, 12, 0) + b"evil" if protocol == "udp" else b"\x08\0\0\0\0\0\0\0"
    packed = [socket.inet_pton(traffic.family_of(one), one) for one in (source, target)]
    if protocol == "udp":
        pseudo = b"".join(packed) + (
            struct.pack("!BBH", 0, number, len(payload))
            if family == 4
            else struct.pack("!IHBB", len(payload), 0, 0, number)
        )
        payload = payload[:6] + struct.pack("!H", checksum(pseudo + payload)) + payload[8:]
    if family == 4:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, number, 0)
        packet = head + b"".join(packed) + payload
        with closing(place.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)) as raw:
            raw.sendto(packet, (target, 0))
        return
    head = struct.pack("!IHBB", 6 << 28, len(payload), number, 64)
    packet = head + b"".join(packed) + payload
    # AF_PACKET: the IPv6 stack refuses a foreign source even in a raw socket.
    with closing(place.socket(socket.AF_PACKET, socket.SOCK_DGRAM)) as raw:
        raw.sendto(packet, ("eth0", 0x86DD, 0, 1, bytes.fromhex("eeeeeeeeeeee")))


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF or 0xFFFF
