"""rtnetlink's messages about addresses, neighbours, nexthop objects, routes and rules, both ways: ours as items,
others' as much as concerns us. Pure; numbers: include/uapi/linux/{rtnetlink,neighbour,nexthop,fib_rules,if_addr}.h."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from socket import AF_BRIDGE, AF_INET, AF_INET6, AF_UNSPEC, inet_ntop, inet_pton
from typing import Final, NamedTuple

from pyroute2.netlink import NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE
from pyroute2.netlink.rtnl import (
    RTM_DELADDR,
    RTM_DELNEIGH,
    RTM_DELROUTE,
    RTM_DELRULE,
    RTM_NEWADDR,
    RTM_NEWNEIGH,
    RTM_NEWROUTE,
    RTM_NEWRULE,
)

from dataplane import ours
from dataplane.items import MAIN, PROTOCOL, Addr, Item, Neigh, Nexthop, Place, Route, Rule
from dataplane.links import Fdb
from dataplane.rtnl import U8, U32, Message, attr, attrs, family_of, mac_bytes, text

RTM_NEWNEXTHOP: Final = 104
RTM_DELNEXTHOP: Final = 105
RTM_GETNEXTHOP: Final = 106
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS, IFA_F_NODAD = 1, 2, 8, 0x02
NDA_DST, NDA_LLADDR, NUD_PERMANENT, NTF_SELF = 1, 2, 0x80, 0x02
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_METRICS, RTA_TABLE, RTA_NH_ID, RTAX_MTU = (
    1, 4, 5, 6, 7, 8, 15, 30, 2,
)  # fmt: skip
RTPROT_KERNEL: Final = 2
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RT_SCOPE_HOST, RTN_UNICAST, RTN_LOCAL, RTN_UNREACHABLE, RTN_THROW = (
    0, 253, 254, 1, 2, 7, 9,
)  # fmt: skip
RTNH_F_ONLINK: Final = 4
FRA_DST, FRA_SRC, FRA_PRIORITY, FRA_FWMARK, FRA_SUPPRESS_IFGROUP, FRA_TABLE, FRA_FWMASK, FRA_PROTOCOL = (
    1, 2, 6, 10, 13, 15, 16, 21,
)  # fmt: skip
FR_ACT_TO_TBL, _FRA_L3MDEV, _FRA_NO_GROUP = 1, 19, 0xFFFFFFFF
MAIN_RULE: Final = 32766
"""The priority of the kernel's own rule for the main table (ip-rule(8)); the one for the local table has 0."""
NHA_ID, NHA_OIF, NHA_GATEWAY = 1, 5, 6

IFADDR = struct.Struct("=BBBBi")  # family, prefix length, flags, scope, index
RTMSG = struct.Struct("=8BI")  # family, dst length, src length, tos, table, protocol, scope, type, flags
RULE = struct.Struct("=5BxxBI")  # family, dst length, src length, tos, table, action, flags
NDMSG = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type
NHMSG = struct.Struct("=BBBxI")  # family, scope, protocol, flags

AF: Final[Mapping[int, int]] = {4: AF_INET, 6: AF_INET6}


def _split(prefix: str) -> tuple[int, bytes, int]:
    address, _, length = prefix.partition("/")
    family = family_of(address)
    return family, inet_pton(family, address), int(length)


def _addr(item: Addr, index: int) -> bytes:
    family, packed, length = _split(item.address)
    body = IFADDR.pack(family, length, 0, 0, index) + attr(IFA_LOCAL, packed)
    return body + attr(IFA_ADDRESS, packed) + attr(IFA_FLAGS, U32.pack(IFA_F_NODAD))


def _neigh(item: Neigh, index: int) -> bytes:
    family = family_of(item.address)
    body = NDMSG.pack(family, index, NUD_PERMANENT, 0, 0) + attr(NDA_DST, inet_pton(family, item.address))
    return body + attr(NDA_LLADDR, mac_bytes(item.mac))


def _fdb(item: Fdb, index: int) -> bytes:
    body = NDMSG.pack(AF_BRIDGE, index, NUD_PERMANENT, NTF_SELF, 0) + attr(NDA_LLADDR, mac_bytes(item.mac))
    return body + attr(NDA_DST, inet_pton(family_of(item.dst), item.dst))


def _nexthop(item: Nexthop, index: int) -> bytes:
    family = family_of(item.via)
    body = NHMSG.pack(family, 0, PROTOCOL, RTNH_F_ONLINK if item.onlink else 0)
    body += attr(NHA_ID, U32.pack(item.id)) + attr(NHA_OIF, U32.pack(index))
    return body + attr(NHA_GATEWAY, inet_pton(family, item.via))


def _route(item: Route, index: int) -> bytes:
    family, packed, length = _split(item.dst)
    scope = RT_SCOPE_LINK if item.dev and not item.via and family == AF_INET else RT_SCOPE_UNIVERSE
    kind = RTN_UNREACHABLE if item.unreachable else RTN_THROW if item.throw else RTN_UNICAST
    if item.local:
        scope, kind = RT_SCOPE_HOST, RTN_LOCAL
    flags = RTNH_F_ONLINK if item.onlink else 0
    body = RTMSG.pack(family, length, 0, 0, _byte(item.table), PROTOCOL, scope, kind, flags) + attr(RTA_DST, packed)
    if item.table != MAIN:
        body += attr(RTA_TABLE, U32.pack(item.table))
    if item.nhid:
        body += attr(RTA_NH_ID, U32.pack(item.nhid))
    if item.dev:
        body += attr(RTA_OIF, U32.pack(index))
    if item.via:
        body += attr(RTA_GATEWAY, inet_pton(family_of(item.via), item.via))
    if item.src:
        body += attr(RTA_PREFSRC, inet_pton(family, item.src))
    if item.mtu:
        body += attr(RTA_METRICS, attr(RTAX_MTU, U32.pack(item.mtu)))
    return body


def _rule(item: Rule, index: int) -> bytes:
    family, sides, lengths = AF[item.family], b"", [0, 0]
    for at, (kind, prefix) in enumerate(((FRA_DST, item.dst), (FRA_SRC, item.src))):
        if prefix:
            _, packed, lengths[at] = _split(prefix)
            sides += attr(kind, packed)
    body = RULE.pack(family, *lengths, 0, _byte(item.table), FR_ACT_TO_TBL, 0) + sides
    body += attr(FRA_PRIORITY, U32.pack(item.priority)) + attr(FRA_TABLE, U32.pack(item.table))
    body += attr(FRA_PROTOCOL, U8.pack(PROTOCOL))
    if item.mask:
        body += attr(FRA_FWMARK, U32.pack(item.mark)) + attr(FRA_FWMASK, U32.pack(item.mask))
    if item.suppress is not None:
        body += attr(FRA_SUPPRESS_IFGROUP, U32.pack(item.suppress))
    return body


def _byte(table: int) -> int:
    """A table's number in a header: 0 for those that only an attribute has room for."""
    return table if table < 256 else 0


_Encoder = Callable[..., bytes]
_FORMS: Final[Mapping[type, tuple[int, int, _Encoder]]] = {
    Addr: (RTM_NEWADDR, RTM_DELADDR, _addr),
    Neigh: (RTM_NEWNEIGH, RTM_DELNEIGH, _neigh),
    Fdb: (RTM_NEWNEIGH, RTM_DELNEIGH, _fdb),
    Nexthop: (RTM_NEWNEXTHOP, RTM_DELNEXTHOP, _nexthop),
    Route: (RTM_NEWROUTE, RTM_DELROUTE, _route),
    Rule: (RTM_NEWRULE, RTM_DELRULE, _rule),
}


def put(item: Item, index: int, replace: bool) -> Message:
    """The message that creates *item* on the link with *index*, or replaces what has its key.

    Neighbours are always replaced: a dynamic entry may stand where ours goes.
    """
    new, _, encode = _FORMS[type(item)]
    flags = NLM_F_CREATE | (NLM_F_REPLACE if replace or isinstance(item, Neigh | Fdb) else NLM_F_EXCL)
    if isinstance(item, Route) and item.local:  # beside the one that comes with an address on a link
        flags = NLM_F_CREATE | NLM_F_APPEND
    return Message(new, flags, encode(item, index))


def drop(item: Item, index: int) -> Message:
    """The message that removes *item*."""
    _, delete, encode = _FORMS[type(item)]
    if isinstance(item, Nexthop):  # the kernel refuses anything but the id here
        return Message(delete, 0, NHMSG.pack(AF_UNSPEC, 0, 0, 0) + attr(NHA_ID, U32.pack(item.id)))
    return Message(delete, 0, encode(item, index))


def addr(body: bytes, place: Place, names: Mapping[int, str]) -> Addr | None:
    """Decode one RTM_NEWADDR on one of the links in *names*; the kernel's own link-local ones are not ours."""
    family, length, _, scope, index = IFADDR.unpack_from(body)
    dev = names.get(index)
    if dev is None or (family == AF_INET6 and scope == RT_SCOPE_LINK):
        return None
    found = attrs(body, IFADDR.size, len(body))
    packed = found.get(IFA_LOCAL) or found[IFA_ADDRESS]
    return Addr(place, dev, f"{text(packed)}/{length}")


def neigh(body: bytes, place: Place, names: Mapping[int, str]) -> Neigh | None:
    """Decode one RTM_NEWNEIGH: permanent entries on one of the links in *names*."""
    _, index, state, _, _ = NDMSG.unpack_from(body)
    dev = names.get(index)
    if dev is None or not state & NUD_PERMANENT:
        return None
    found = attrs(body, NDMSG.size, len(body))
    if NDA_DST not in found or NDA_LLADDR not in found:
        return None
    return Neigh(place, dev, text(found[NDA_DST]), found[NDA_LLADDR].hex(":"))


def fdb(body: bytes, dev: str) -> Fdb | None:
    """Decode one RTM_NEWNEIGH of family AF_BRIDGE."""
    found = attrs(body, NDMSG.size, len(body))
    if NDA_DST not in found or NDA_LLADDR not in found:
        return None
    return Fdb(dev, found[NDA_LLADDR].hex(":"), text(found[NDA_DST]))


def nexthop(body: bytes, names: Mapping[int, str]) -> Nexthop | None:
    """Decode one RTM_NEWNEXTHOP with our protocol number."""
    _, _, protocol, flags = NHMSG.unpack_from(body)
    if protocol != PROTOCOL:
        return None
    found = attrs(body, NHMSG.size, len(body))
    (number,) = U32.unpack(found[NHA_ID])
    oif = U32.unpack(found[NHA_OIF])[0] if NHA_OIF in found else 0
    via = text(found[NHA_GATEWAY]) if NHA_GATEWAY in found else ""
    item = Nexthop(number, via, names.get(oif, f"#{oif}"), bool(flags & RTNH_F_ONLINK))
    return item if ours.is_nexthop(item) else None


def nexthop_id(body: bytes) -> int:
    """The id that one RTM_NEWNEXTHOP is about, whosesoever it is."""
    return int(U32.unpack(attrs(body, NHMSG.size, len(body))[NHA_ID])[0])


def is_foreign_nexthop(body: bytes) -> bool:
    """Whether one RTM_NEWNEXTHOP is about another program's object."""
    return nexthop(body, {}) is None


def route(body: bytes, place: Place, names: Mapping[int, str]) -> Route | None:
    """Decode one RTM_NEWROUTE; None for one that is not ours."""
    family, _, _, _, _, protocol, _, _, _ = RTMSG.unpack_from(body)
    if protocol != PROTOCOL or family not in (AF_INET, AF_INET6):  # of MPLS, say: anybody may write our number on it
        return None
    found = attrs(body, RTMSG.size, len(body))
    item = _any_route(body, found, place, names)
    return item if ours.is_route(item, U32.unpack(found.get(RTA_PRIORITY, b"\0\0\0\0"))[0]) else None


def _any_route(body: bytes, found: Mapping[int, bytes], place: Place, names: Mapping[int, str]) -> Route:
    family, length, _, _, table, _, _, kind, flags = RTMSG.unpack_from(body)
    table = U32.unpack(found[RTA_TABLE])[0] if RTA_TABLE in found else table
    packed = found.get(RTA_DST)
    dst = f"{inet_ntop(family, packed)}/{length}" if packed else ("0.0.0.0/0" if family == AF_INET else "::/0")
    if kind == RTN_UNREACHABLE:
        return Route(place, dst, unreachable=True, table=table)
    if kind == RTN_THROW:
        return Route(place, dst, table=table, throw=True)
    if RTA_NH_ID in found:  # the kernel repeats the nexthop's own content: it is not the route's
        return Route(place, dst, nhid=U32.unpack(found[RTA_NH_ID])[0], table=table)
    oif = U32.unpack(found[RTA_OIF])[0] if RTA_OIF in found else 0
    via = text(found[RTA_GATEWAY]) if RTA_GATEWAY in found else ""
    metrics = attrs(found.get(RTA_METRICS, b""), 0, len(found.get(RTA_METRICS, b"")))
    mtu = U32.unpack(metrics[RTAX_MTU])[0] if RTAX_MTU in metrics else 0
    dev, onlink = names.get(oif, f"#{oif}"), bool(flags & RTNH_F_ONLINK)
    src = text(found[RTA_PREFSRC]) if RTA_PREFSRC in found else ""
    local = kind == RTN_LOCAL
    return Route(place, dst, dev, via, onlink=onlink, mtu=mtu, table=table, src=src, local=local)


def default_route(body: bytes, but: int) -> int | None:
    """The family (4, 6) of one RTM_NEWROUTE that is a default route of the main table, by another link than that with
    the index *but*; None for any other route, and for the kernel's own that says there is none."""
    family, length, _, _, table, protocol, _, kind, _ = RTMSG.unpack_from(body)
    is_nothing = protocol == RTPROT_KERNEL and kind != RTN_UNICAST
    if length or table != MAIN or is_nothing or family not in AF.values():
        return None
    found = attrs(body, RTMSG.size, len(body))
    oif = U32.unpack(found[RTA_OIF])[0] if RTA_OIF in found else 0
    return None if oif == but != 0 else (4 if family == AF_INET else 6)


class SeenRule(NamedTuple):
    """A rule, whosesoever it is; with *is_l3mdev* it leads to the table of whatever VRF a packet is of."""

    rule: Rule
    protocol: int
    is_l3mdev: bool


def rule(body: bytes, place: Place) -> Rule | None:
    """Decode one RTM_NEWRULE; None for one that is not ours."""
    found = any_rule(body, place)
    return found.rule if found.protocol == PROTOCOL and ours.is_rule(found.rule) else None


def any_rule(body: bytes, place: Place) -> SeenRule:
    """Decode one RTM_NEWRULE."""
    family, dst, src, _, table, _, _ = RULE.unpack_from(body)
    found = attrs(body, RULE.size, len(body))

    def number(kind: int) -> int:
        return int(U32.unpack(found[kind])[0]) if kind in found else 0

    suppress = number(FRA_SUPPRESS_IFGROUP) if FRA_SUPPRESS_IFGROUP in found else _FRA_NO_GROUP
    item = Rule(
        4 if family == AF_INET else 6,
        number(FRA_PRIORITY),
        number(FRA_TABLE) or table,
        f"{text(found[FRA_SRC])}/{src}" if src else "",
        f"{text(found[FRA_DST])}/{dst}" if dst else "",
        number(FRA_FWMARK),
        number(FRA_FWMASK) if number(FRA_FWMARK) else 0,
        None if suppress == _FRA_NO_GROUP else suppress,
        place,
    )
    return SeenRule(item, found.get(FRA_PROTOCOL, b"\0")[0], _FRA_L3MDEV in found)
