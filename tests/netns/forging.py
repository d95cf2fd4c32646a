"""Packets as only those make them who mean harm."""

from __future__ import annotations

import json
import socket
import struct
from contextlib import closing
from typing import Final

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
