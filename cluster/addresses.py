"""IP addresses and CIDRs as people write them in configuration, strictly read.

Every function raises ``ValueError`` whose text finishes the sentence '"<value>" …'; the caller, who knows
file and key, puts it into a ``ConfigInvalid``.
"""

from __future__ import annotations

import re
import socket
from typing import Final, Literal, NamedTuple

from netaddr import IPAddress, IPNetwork

Family = Literal[4, 6]
_BITS: Final[dict[Family, int]] = {4: 32, 6: 128}
_LENGTH: Final = re.compile(r"0|[1-9][0-9]{0,2}", re.ASCII)


MTU_MIN: Final = {4: 576, 6: 1280}
"""Bytes, by family: what every IPv4 host must take (RFC 791) and every IPv6 link must carry (RFC 8200, section 5)."""


class Reserved(NamedTuple):
    """A range that is never a node's address nor a pod's (IANA special-purpose address registries)."""

    network: IPNetwork
    meaning: str

    def __str__(self) -> str:
        return f"{self.network} ({self.meaning})"


# 240.0.0.0/4 is deliberately absent: clusters that ran out of RFC 1918 space do use it for pods.
RESERVED: Final = tuple(
    Reserved(IPNetwork(cidr), meaning)
    for cidr, meaning in (
        ("0.0.0.0/8", "this network, RFC 791"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local; the pods' gateway lives there"),
        ("224.0.0.0/4", "multicast"),
        ("255.255.255.255/32", "broadcast"),
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("::ffff:0:0/96", "IPv4-mapped"),
        ("fe80::/10", "link-local; the pods' gateway lives there"),
        ("ff00::/8", "multicast"),
    )
)


def _packed(text: str) -> tuple[Family, int]:
    """The address as (family, number).

    ``inet_pton`` takes the strict form alone and is 20 times faster than netaddr's parser.
    """
    family: Family = 6 if ":" in text else 4
    try:
        raw = socket.inet_pton(socket.AF_INET6 if family == 6 else socket.AF_INET, text)
    except (OSError, ValueError):  # ValueError: a NUL or a letter that is not ASCII
        raise ValueError("is not an IPv4 or IPv6 address, such as 192.0.2.1 or 2001:db8::1") from None
    return family, int.from_bytes(raw, "big")


def address(text: str) -> IPAddress:
    """The address that *text* is, without prefix length or zone."""
    family, number = _packed(text)
    return IPAddress(number, family)


def cidr(text: str) -> IPNetwork:
    """The range that *text* is, such as 10.1.0.0/24: a prefix length, and no bits set beyond it."""
    head, slash, tail = text.partition("/")
    if not slash:
        raise ValueError("has no prefix length, such as the /24 in 10.1.0.0/24")
    family, number = _packed(head)
    bits = _BITS[family]
    if not _LENGTH.fullmatch(tail) or int(tail) > bits:
        raise ValueError(f"has a prefix length that is not a number from 0 to {bits}")
    length = int(tail)
    base = number >> (bits - length) << (bits - length)
    if base != number:
        meant = IPNetwork((base, length), version=family)
        raise ValueError(f"has host bits set; the range that holds this address is {meant}")
    return IPNetwork((number, length), version=family)


def refuse_reserved(network: IPNetwork | IPAddress) -> None:
    """Nothing when *network* stays clear of every ``RESERVED`` range, else ValueError."""
    if isinstance(network, IPAddress):
        network = IPNetwork(network)
    first, last = network.first, network.last
    for one in RESERVED:
        if one.network.version == network.version and first <= one.network.last and one.network.first <= last:
            verb = "lies in" if first >= one.network.first and last <= one.network.last else "takes in"
            raise ValueError(f"{verb} {one}, which no node or pod can have")
