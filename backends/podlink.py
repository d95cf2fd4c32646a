"""A pod's link: the same for every backend that has addresses of its own node on it. Pure.

One veth per pod. The pod has its address as a /32 or /128 and a default route to a link-local gateway that is on-link
at the host's end, which answers for it with a fixed hardware address, so that neither side ever asks for the other: a
pod looks the same on every node, and no address of the node's is spent on it. On the host one route per address leads
to the link, and every packet is routed, never bridged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from netaddr import IPAddress

from backends.site import Site
from cluster.addresses import MTU_MIN
from cni.spec import Attachment
from dataplane.items import HOST, POD_LINK_PREFIX, Addr, Item, Key, Neigh, Route, Rule, Space, Sysctl, plan
from dataplane.links import Port, Veth
from dataplane.ours import ALIAS, RULES
from ipam.store import Record

GATEWAYS: Final[Mapping[int, IPAddress]] = MappingProxyType({4: IPAddress("169.254.1.1"), 6: IPAddress("fe80::1")})
"""Of every pod, by family."""
HOST_MAC: Final = "ee:ee:ee:ee:ee:ee"
"""The host's end of every pod's link: locally administered, and the links do not share a segment."""
DEFAULT: Final[Mapping[int, str]] = MappingProxyType({4: "0.0.0.0/0", 6: "::/0"})
BITS: Final[Mapping[int, int]] = MappingProxyType({4: 32, 6: 128})
_TABLES: Final = 1 << 30
"""The first number of a routing table in a pod: beyond those that people choose."""
_ALIAS_MAX: Final = 255
"""IFALIASZ less the terminating NUL (linux/if.h)."""


class Named(NamedTuple):
    """What a link's alias says: whose it is and, unless that was too long, the path of its namespace."""

    who: Attachment
    netns: str


def link_name(who: Attachment) -> str:
    """The name of the host's end: from the attachment alone, so that DEL needs nothing else."""
    return POD_LINK_PREFIX + hashlib.sha256("/".join(who).encode()).hexdigest()[:11]


def remains(who: Attachment, record: Record | None = None) -> dict[Key, Item]:
    """What there may be of an attachment, for having it removed: its link, with which all else goes but its rules in
    the pod, which the *record* of it tells. A link is removed by its name alone, so the rest of what this says of it is
    of no concern, and nothing has to be looked at first."""
    return plan(Veth(link_name(who), "", 0, ""), *(_rules(record) if record is not None else ()))


def alias(who: Attachment, netns: str) -> str:
    """What the host's end says of itself, for people and for a start without a journal."""
    words = ALIAS + " ".join(who)
    whole = f"{words} {netns}"
    fitting = next((one for one in (whole, words) if netns and len(one.encode()) <= _ALIAS_MAX), words)
    return fitting[:_ALIAS_MAX]  # a name is ASCII; of one that was cut nothing is read, for it does not fit the link's


def parse_alias(text: str) -> Named | None:
    """What an alias says; None for one that is not ours."""
    words = text.removeprefix(ALIAS).split(" ", 3)
    if not text.startswith(ALIAS) or len(words) < 3 or not all(words[:3]):
        return None
    return Named(Attachment(*words[:3]), words[3] if len(words) == 4 else "")


def own_table(link: str) -> int:
    """The routing table in a pod that is this attachment's alone; *link* is the host's end."""
    return _TABLES | int(link.removeprefix(POD_LINK_PREFIX), 16) % _TABLES


def pod_mac(addresses: Sequence[IPAddress]) -> str:
    """The hardware address of a pod for whom nobody asked for one: unique among its node's pods.

    0a:58, as Kubernetes' own plugins use, and the IPv4 address; of an IPv6 address its hash.
    """
    first = addresses[0]
    octets = first.packed if first.version == 4 else hashlib.sha256(first.packed).digest()[:4]
    return "0a:58:" + octets.hex(":")


def pod(record: Record, path_mtu: int, site: Site) -> dict[Key, Item]:
    """The plan of one pod at *site*. *path_mtu* (bytes) is what the way to other nodes carries: where that is less than
    the link's own MTU, the pod's route says so."""
    return plan(*_items(record, path_mtu, site))


def place(record: Record) -> Space | None:
    """The pod's namespace; None where it is not known which that is."""
    return Space(record.netns, record.space) if record.netns and record.space is not None else None


def _is_ipv6_off(record: Record, site: Site) -> bool:
    """Hardened hosts switch IPv6 off on every new link. A pod that has an address of it needs it; for another it stays
    as the host has it, where the link is large enough for any."""
    has_none = all(address.version != 6 for address in record.lease.addresses)
    return has_none and site.host.is_ipv6_off and record.mtu >= MTU_MIN[6]


def _items(record: Record, path_mtu: int, site: Site) -> Iterator[Item]:
    who, netns, mac = record.lease.who, place(record), record.mac
    ifname, link = who.ifname, link_name(who)
    yield Veth(
        link,
        alias(who, record.netns),
        record.mtu,
        HOST_MAC,
        peer_netns=netns or "",
        peer_name=ifname,
        peer_mac=mac,
        is_ipv6_off=_is_ipv6_off(record, site),
    )
    if netns is not None:
        yield Port(netns, ifname, record.mtu, mac)
    route_mtu = path_mtu if path_mtu < record.mtu else 0
    for address in record.lease.addresses:
        family, text = address.version, f"{address}/{BITS[address.version]}"
        gateway = str(GATEWAYS[family])
        yield Neigh(HOST, link, str(address), mac)
        node = site.here.address(family) if family in site.host.speaks_as else None
        yield Route(HOST, text, dev=link, src=str(node or ""))
        if netns is None:
            continue
        if family == 6:  # some runtimes switch IPv6 off in every namespace they make
            yield Sysctl(netns, f"net/ipv6/conf/{ifname}/disable_ipv6", "0")
        yield Addr(netns, ifname, text)
        yield Neigh(netns, ifname, gateway, HOST_MAC)
        default = Route(netns, DEFAULT[family], dev=ifname, via=gateway, onlink=True, mtu=route_mtu)
        if family in record.beside:
            # What has this address goes by this link: answers, and what is sent from it. By another network's the host
            # would drop it for forged. The rest of the pod's ways is not ours.
            default = default._replace(table=own_table(link))
        yield default
    yield from _rules(record)


def _rules(record: Record) -> Iterator[Rule]:
    """Of a pod that has another network, too: what leads to the table of its own."""
    netns = place(record)
    if netns is None or not record.beside:
        return
    table = own_table(link_name(record.lease.who))
    for address in record.lease.addresses:
        if address.version in record.beside:
            text = f"{address}/{BITS[address.version]}"
            yield Rule(address.version, RULES.start, table, src=text, place=netns)
