"""Packets as only those make them who mean harm."""

from __future__ import annotations

import json
import socket
import struct
from contextlib import closing
from typing import Final

from netaddr import IPAddress

from demo.place import Place

ALL_NODES: Final = "ff02::1"
ROUTER_ADVERTISEMENT, SOLICITATION, REDIRECT, MLD_REPORT, ECHO = 134, 135, 137, 143, 128


def hardware_address(place: Place, link: str) -> bytes:
    """Six bytes."""
    (found,) = json.loads(place.ip(f"-j link show {link}"))
    return bytes.fromhex(found["address"].replace(":", ""))


def advertisement(prefix: str, mac: bytes) -> bytes:
    """A router advertisement (RFC 4861, section 4.2): a default route by its sender, and an address of *prefix*."""
    options = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 86400, 14400, 0) + socket.inet_pton(socket.AF_INET6, prefix)
    return (
        struct.pack("!BBHBBHII", ROUTER_ADVERTISEMENT, 0, 0, 64, 0, 1800, 0, 0)
        + options
        + struct.pack("!BB", 1, 1)
        + mac
    )


def icmpv6(kind: int, target: str = "fe80::1") -> bytes:
    """A message about *target*, of a kind that has one there, or none."""
    return struct.pack("!BBHI", kind, 0, 0, 0) + socket.inet_pton(socket.AF_INET6, target) * 2


def send_icmpv6(place: Place, link: str, source: str, target: str, message: bytes, hops: int = 255) -> None:
    """Send *message* by *link*; *source* is one of its addresses."""
    with closing(place.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)) as sock:
        (found,) = json.loads(place.ip(f"-j link show {link}"))
        index = found["ifindex"]
        for option in (socket.IPV6_MULTICAST_HOPS, socket.IPV6_UNICAST_HOPS):
            sock.setsockopt(socket.IPPROTO_IPV6, option, hops)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        sock.bind((source, 0, 0, index))
        sock.sendto(message, (target, 0, 0, index))


def checksum(data: bytes) -> int:
    """The Internet's (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def udp(source: str, target: str, ports: tuple[int, int], payload: bytes) -> bytes:
    """A UDP datagram with its IP header, of either family."""
    packed = [IPAddress(one).packed for one in (source, target)]
    length = 8 + len(payload)
    pseudo = b"".join(packed) + struct.pack("!II", length, 17)
    found = checksum(pseudo + struct.pack("!4H", *ports, length, 0) + payload) or 0xFFFF
    datagram = struct.pack("!4H", *ports, length, found) + payload
    if len(packed[0]) == 16:
        return struct.pack("!IHBB", 6 << 28, length, 17, 64) + b"".join(packed) + datagram
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 1, 0, 64, 17, 0) + b"".join(packed)
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + datagram


def in_vxlan(vni: int, mac: str, packet: bytes) -> bytes:
    """The payload of UDP by which *packet* comes out of the overlay of the VTEP with the hardware address *mac*."""
    kind = 0x86DD if packet[0] >> 4 == 6 else 0x0800
    frame = bytes.fromhex(mac.replace(":", "")) + b"\x02\x52\xba\xd0\xba\xd0" + struct.pack("!H", kind) + packet
    return struct.pack("!II", 0x08000000, vni << 8) + frame


def in_fragments(packet: bytes, first: int) -> list[bytes]:
    """An IPv6 packet in two, the first with so many bytes (a multiple of eight) of what follows its header."""
    header, rest = packet[:40], packet[40:]
    parts = (rest[:first], 1), (rest[first:], first)
    return [
        header[:4]
        + struct.pack("!HB", 8 + len(part), 44)
        + header[7:]
        + struct.pack("!BBHI", header[6], 0, offset, 0xBAD)
        + part
        for part, offset in parts
    ]


def send(place: Place, packet: bytes, target: str) -> None:
    """Send a packet that has its IP header, by where the way to *target* leads."""
    family = socket.AF_INET if packet[0] >> 4 == 4 else socket.AF_INET6
    with closing(place.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)) as sock:
        sock.sendto(packet, (target, 0))
