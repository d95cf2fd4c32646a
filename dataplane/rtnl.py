"""rtnetlink messages for our items, both ways: pure bytes, no sockets (rtnetlink(7), include/uapi/linux/rtnetlink.h).

pyroute2 spends 0.45 ms on encoding one veth and 0.1 ms on decoding one route: more than the kernel needs to make
them. An ADD is a handful of messages and a pass over 5,000 peers decodes 20,000, so this file writes and reads just
the attributes that our items have. The numbers come from pyroute2; contract tests hold every item against a real
kernel, and unit tests the encoding against pyroute2's own decoder.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from socket import AF_BRIDGE, AF_INET, AF_INET6, AF_UNSPEC, inet_ntop, inet_pton
from typing import Final, NamedTuple

from pyroute2.netlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE
from pyroute2.netlink.rtnl import (
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELNEIGH,
    RTM_DELROUTE,
    RTM_DELRULE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWNEIGH,
    RTM_NEWROUTE,
    RTM_NEWRULE,
)
from pyroute2.netlink.rtnl.ifinfmsg import IFF_LOOPBACK, IFF_LOWER_UP, IFF_UP

from dataplane import ours
from dataplane.items import MAIN, PROTOCOL, Addr, Item, Neigh, Nexthop, Place, Route, Rule
from dataplane.links import Fdb, Port, Veth, Vxlan

RTM_NEWNEXTHOP: Final = 104
RTM_DELNEXTHOP: Final = 105
RTM_GETNEXTHOP: Final = 106

_IFLA_LINK_NETNSID: Final = 37
_NETNSA_NSID, _NETNSA_FD = 1, 3
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_LINKINFO, IFLA_IFALIAS, IFLA_AF_SPEC, IFLA_GROUP = (
    1, 3, 4, 10, 18, 20, 26, 27,
)  # fmt: skip
IFLA_NET_NS_FD: Final = 28
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE, IPV6_MTU_MIN = 8, 1, 1280
IFLA_INET_CONF, IFLA_INET6_CONF = 1, 2
_GUARD: Final = {1: 1, 4: 0}
"""What `Veth.is_guarded` means of IPv4 (linux/ip.h, IPV4_DEVCONF_*): FORWARDING, ACCEPT_REDIRECTS."""
GUARD6: Final = {"accept_ra": 3, "accept_redirects": 4, "autoconf": 5}
"""And of IPv6, where each is 0: sysctls by their numbers (linux/ipv6.h, DEVCONF_*)."""
_DISABLE_IPV6: Final = 26
IFLA_VXLAN_ID, IFLA_VXLAN_LOCAL, IFLA_VXLAN_LEARNING, IFLA_VXLAN_PORT, IFLA_VXLAN_LOCAL6 = 1, 4, 7, 15, 17
IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS = 29, 1 << 3
IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES = 31, 32
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS, IFA_F_NODAD = 1, 2, 8, 0x02
NDA_DST, NDA_LLADDR, NUD_PERMANENT, NTF_SELF = 1, 2, 0x80, 0x02
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_METRICS, RTA_TABLE, RTA_NH_ID, RTAX_MTU = (
    1, 4, 5, 6, 7, 8, 15, 30, 2,
)  # fmt: skip
RTPROT_KERNEL: Final = 2
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RTN_UNICAST, RTN_UNREACHABLE, RTNH_F_ONLINK, LOCAL = 0, 253, 1, 7, 4, 255
FRA_DST, FRA_SRC, FRA_PRIORITY, FRA_FWMARK, FRA_SUPPRESS_IFGROUP, FRA_TABLE, FRA_FWMASK, FRA_PROTOCOL = (
    1, 2, 6, 10, 13, 15, 16, 21,
)  # fmt: skip
FR_ACT_TO_TBL, _FRA_L3MDEV, _FRA_NO_GROUP = 1, 19, 0xFFFFFFFF
MAIN_RULE: Final = 32766
"""The priority of the kernel's own rule for the main table (ip-rule(8)); the one for the local table has 0."""
NHA_ID, NHA_OIF, NHA_GATEWAY = 1, 5, 6

_NLA = struct.Struct("=HH")
_U8, _U32, I32, _BE16 = struct.Struct("=B"), struct.Struct("=I"), struct.Struct("=i"), struct.Struct("!H")
IFINFO = struct.Struct("=BxHiII")  # family, type, index, flags, change
IFADDR = struct.Struct("=BBBBi")  # family, prefix length, flags, scope, index
RTMSG = struct.Struct("=8BI")  # family, dst length, src length, tos, table, protocol, scope, type, flags
RULE = struct.Struct("=5BxxBI")  # family, dst length, src length, tos, table, action, flags
NDMSG = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type
NHMSG = struct.Struct("=BBBxI")  # family, scope, protocol, flags


# A veth uses one queue each way unless it is told otherwise, but the kernel makes as many as there are processors,
# each with its directory in sysfs: with two processors that is a sixth of what a pod's link costs.
_ONE_QUEUE: Final = struct.pack("=HHIHHI", 8, IFLA_NUM_TX_QUEUES, 1, 8, IFLA_NUM_RX_QUEUES, 1)


class Message(NamedTuple):
    """A request without its header: type, flags beyond REQUEST and ACK, and what follows the header."""

    type: int
    flags: int
    body: bytes


def attr(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    length = len(payload) + 4
    return _NLA.pack(length, kind) + payload + b"\0" * (-length & 3)


def attrs(data: bytes, at: int, end: int) -> dict[int, bytes]:
    """The attributes between two offsets by their type (flag bits removed); the last of equal types wins."""
    found: dict[int, bytes] = {}
    unpack = _NLA.unpack_from
    while at + 4 <= end:
        length, kind = unpack(data, at)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def mac_bytes(mac: str) -> bytes:
    """Six bytes of ``02:00:…``."""
    return bytes.fromhex(mac.replace(":", ""))


def family_of(address: str) -> int:
    """AF_INET or AF_INET6 of an address or prefix in text."""
    return AF_INET6 if ":" in address else AF_INET


def _split(prefix: str) -> tuple[int, bytes, int]:
    address, _, length = prefix.partition("/")
    family = family_of(address)
    return family, inet_pton(family, address), int(length)


def text(packed: bytes) -> str:
    """An address of four or sixteen bytes."""
    return inet_ntop(AF_INET if len(packed) == 4 else AF_INET6, packed)


def _name(kind: int, text: str) -> bytes:
    return attr(kind, text.encode() + b"\0")


# --- encoding -----------------------------------------------------------------------------------------------

_GUARD_SPEC: Final = attr(
    AF_INET, attr(IFLA_INET_CONF, b"".join(attr(number, _U32.pack(value)) for number, value in _GUARD.items()))
)
"""The IPv4 half of a link's guard; of IPv6 no message has it (inet6_set_link_af()): see `kernel.Kernel`."""


def create_veth(veth: Veth, index: int, netns: int, peer_mtu: int) -> Message:
    """A veth with an interface *index* of our choice whose peer appears directly in the namespace open as *netns*;
    creating first and moving then costs 10 ms more. What cannot be given at creation is `finish_link`'s: by the index
    it may follow in the same send, since the kernel goes on after a refusal, but then there is no such index."""
    peer = IFINFO.pack(AF_UNSPEC, 0, 0, 0, 0) + _name(IFLA_IFNAME, veth.peer_name) + _ONE_QUEUE
    peer += attr(IFLA_ADDRESS, mac_bytes(veth.peer_mac)) + attr(IFLA_MTU, _U32.pack(peer_mtu))
    peer += attr(IFLA_NET_NS_FD, I32.pack(netns))
    body = IFINFO.pack(AF_UNSPEC, 0, index, 0, 0) + _name(IFLA_IFNAME, veth.name) + _ONE_QUEUE
    body += attr(IFLA_ADDRESS, mac_bytes(veth.mac)) + attr(IFLA_MTU, _U32.pack(veth.mtu))
    body += attr(IFLA_GROUP, _U32.pack(veth.group))
    info = _name(IFLA_INFO_KIND, "veth") + attr(IFLA_INFO_DATA, attr(VETH_INFO_PEER, peer))
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body + attr(IFLA_LINKINFO, info))


def create_vxlan(vxlan: Vxlan, index: int) -> Message:
    """A VXLAN device with an interface *index* of our choice. It neither floods nor learns: its FDB holds what we put
    there."""
    family = family_of(vxlan.local)
    data = attr(IFLA_VXLAN_ID, _U32.pack(vxlan.vni)) + attr(IFLA_VXLAN_PORT, _BE16.pack(vxlan.port))
    data += attr(IFLA_VXLAN_LEARNING, _U8.pack(0))
    local = IFLA_VXLAN_LOCAL if family == AF_INET else IFLA_VXLAN_LOCAL6
    data += attr(local, inet_pton(family, vxlan.local))
    body = IFINFO.pack(AF_UNSPEC, 0, index, 0, 0) + _name(IFLA_IFNAME, vxlan.name)
    body += attr(IFLA_ADDRESS, mac_bytes(vxlan.mac)) + attr(IFLA_MTU, _U32.pack(vxlan.mtu))
    info = _name(IFLA_INFO_KIND, "vxlan") + attr(IFLA_INFO_DATA, data)
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body + attr(IFLA_LINKINFO, info))


def finish_link(link: Veth | Vxlan, index: int, has_ipv6: bool = True) -> Message:
    """Give a link that was just created what cannot be given at creation: alias, the guard's IPv4 half and address
    mode; and bring it up.
    *has_ipv6*: this kernel has; on a link too small for it (RFC 8200, section 5) it has not, and knows no such mode."""
    body = IFINFO.pack(AF_UNSPEC, 0, index, IFF_UP if link.up else 0, IFF_UP)
    body += attr(IFLA_IFALIAS, link.alias.encode())
    # No link-local address on our end: it would cost a second of duplicate address detection, multicast
    # memberships and traffic per pod, and nothing needs it, since every neighbour is permanent.
    spec = _GUARD_SPEC
    if has_ipv6 and link.mtu >= IPV6_MTU_MIN:
        spec += attr(AF_INET6, attr(IFLA_INET6_ADDR_GEN_MODE, _U8.pack(IN6_ADDR_GEN_MODE_NONE)))
    return Message(RTM_NEWLINK, 0, body + attr(IFLA_AF_SPEC, spec))


def set_link(link: Veth | Vxlan | Port, old: Item | None) -> Message:
    """Bring an existing link, known by its name, from *old* to what the item says.

    Only what differs is said: the kernel forgets a link's permanent neighbours at every address it is told, be it
    the same. A pod's end has just been created with all but its state where *old* is None.
    """
    body = _named(link)
    if isinstance(old, Veth | Vxlan | Port):
        if link.mtu != old.mtu:
            body += attr(IFLA_MTU, _U32.pack(link.mtu))
        if link.mac != old.mac:
            body += attr(IFLA_ADDRESS, mac_bytes(link.mac))
        if isinstance(link, Veth | Vxlan) and isinstance(old, Veth | Vxlan):
            body += attr(IFLA_IFALIAS, link.alias.encode()) if link.alias != old.alias else b""
            body += attr(IFLA_AF_SPEC, _GUARD_SPEC) if link.is_guarded and not old.is_guarded else b""
        if isinstance(link, Veth) and isinstance(old, Veth):
            body += attr(IFLA_GROUP, _U32.pack(link.group)) if link.group != old.group else b""
            body += attr(IFLA_MASTER, _U32.pack(0)) if old.is_enslaved else b""
    return Message(RTM_NEWLINK, 0, body)


def _named(link: Veth | Vxlan | Port) -> bytes:
    return IFINFO.pack(AF_UNSPEC, 0, 0, IFF_UP if link.up else 0, IFF_UP) + _name(IFLA_IFNAME, link.name)


def set_group(index: int, group: int) -> Message:
    """Put a link into a link group."""
    return Message(RTM_NEWLINK, 0, IFINFO.pack(AF_UNSPEC, 0, index, 0, 0) + attr(IFLA_GROUP, _U32.pack(group)))


def delete_group(group: int) -> Message:
    """Delete every link of a link group at once: one wait for RCU instead of one per link."""
    return Message(RTM_DELLINK, 0, IFINFO.pack(AF_UNSPEC, 0, 0, 0, 0) + attr(IFLA_GROUP, _U32.pack(group)))


def delete_link(index: int) -> Message:
    """Delete one link."""
    return Message(RTM_DELLINK, 0, IFINFO.pack(AF_UNSPEC, 0, index, 0, 0))


def _addr(item: Addr, index: int) -> bytes:
    family, packed, length = _split(item.address)
    body = IFADDR.pack(family, length, 0, 0, index) + attr(IFA_LOCAL, packed)
    return body + attr(IFA_ADDRESS, packed) + attr(IFA_FLAGS, _U32.pack(IFA_F_NODAD))


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
    body += attr(NHA_ID, _U32.pack(item.id)) + attr(NHA_OIF, _U32.pack(index))
    return body + attr(NHA_GATEWAY, inet_pton(family, item.via))


def _route(item: Route, index: int) -> bytes:
    family, packed, length = _split(item.dst)
    scope = RT_SCOPE_LINK if item.dev and not item.via and family == AF_INET else RT_SCOPE_UNIVERSE
    kind = RTN_UNREACHABLE if item.unreachable else RTN_UNICAST
    flags = RTNH_F_ONLINK if item.onlink else 0
    body = RTMSG.pack(family, length, 0, 0, _byte(item.table), PROTOCOL, scope, kind, flags) + attr(RTA_DST, packed)
    if item.table != MAIN:
        body += attr(RTA_TABLE, _U32.pack(item.table))
    if item.nhid:
        body += attr(RTA_NH_ID, _U32.pack(item.nhid))
    if item.dev:
        body += attr(RTA_OIF, _U32.pack(index))
    if item.via:
        body += attr(RTA_GATEWAY, inet_pton(family_of(item.via), item.via))
    if item.src:
        body += attr(RTA_PREFSRC, inet_pton(family, item.src))
    if item.mtu:
        body += attr(RTA_METRICS, attr(RTAX_MTU, _U32.pack(item.mtu)))
    return body


def _rule(item: Rule, index: int) -> bytes:
    family, sides, lengths = _AF[item.family], b"", [0, 0]
    for at, (kind, prefix) in enumerate(((FRA_DST, item.dst), (FRA_SRC, item.src))):
        if prefix:
            _, packed, lengths[at] = _split(prefix)
            sides += attr(kind, packed)
    body = RULE.pack(family, *lengths, 0, _byte(item.table), FR_ACT_TO_TBL, 0) + sides
    body += attr(FRA_PRIORITY, _U32.pack(item.priority)) + attr(FRA_TABLE, _U32.pack(item.table))
    body += attr(FRA_PROTOCOL, _U8.pack(PROTOCOL))
    if item.mask:
        body += attr(FRA_FWMARK, _U32.pack(item.mark)) + attr(FRA_FWMASK, _U32.pack(item.mask))
    if item.suppress is not None:
        body += attr(FRA_SUPPRESS_IFGROUP, _U32.pack(item.suppress))
    return body


def _byte(table: int) -> int:
    """A table's number in a header: 0 for those that only an attribute has room for."""
    return table if table < 256 else 0


_AF: Final[Mapping[int, int]] = {4: AF_INET, 6: AF_INET6}
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
    return Message(new, flags, encode(item, index))


def drop(item: Item, index: int) -> Message:
    """The message that removes *item*."""
    _, delete, encode = _FORMS[type(item)]
    if isinstance(item, Nexthop):  # the kernel refuses anything but the id here
        return Message(delete, 0, NHMSG.pack(AF_UNSPEC, 0, 0, 0) + attr(NHA_ID, _U32.pack(item.id)))
    return Message(delete, 0, encode(item, index))


# --- decoding -----------------------------------------------------------------------------------------------


class Link(NamedTuple):
    """What a link dump says of one link, as far as we care."""

    ifindex: int
    name: str
    kind: str
    alias: str
    mtu: int
    mac: str
    up: bool
    data: bytes
    carrier: bool = True
    group: int = 0
    is_loopback: bool = False
    peer: int | None = None
    """The number of the namespace that its other end is in, None where that is in this one."""
    spec: bytes = b""
    """Its settings, by family."""
    is_enslaved: bool = False

    @property
    def is_pod_link(self) -> bool:
        """Whether it is ours: the host's end of a pod's link."""
        return ours.is_pod_link(self.name, self.kind, self.alias, self.group)

    @property
    def is_device(self) -> bool:
        """Whether it is ours: a backend's device."""
        return ours.is_device(self.name, self.kind, self.alias, self.mac)

    def veth(self) -> Veth:
        guarded, off = self._settings()
        return Veth(
            self.name,
            self.alias,
            self.mtu,
            self.mac,
            self.up,
            group=self.group,
            is_guarded=guarded,
            is_ipv6_off=off,
            is_enslaved=self.is_enslaved,
        )

    def port(self, place: Place) -> Port:
        return Port(place, self.name, self.mtu, self.mac, self.up)

    def vxlan(self, tx_checksum: bool) -> Vxlan:
        found = attrs(self.data, 0, len(self.data))
        (vni,) = _U32.unpack(found[IFLA_VXLAN_ID])
        (port,) = _BE16.unpack(found[IFLA_VXLAN_PORT])
        local = found.get(IFLA_VXLAN_LOCAL) or found.get(IFLA_VXLAN_LOCAL6) or b"\0\0\0\0"
        guarded, _ = self._settings()
        return Vxlan(self.name, vni, port, text(local), self.mac, self.mtu, tx_checksum, self.up, self.alias, guarded)

    def _settings(self) -> tuple[bool, bool]:
        """See `Veth.is_guarded` and `Veth.is_ipv6_off`."""
        families = attrs(self.spec, 0, len(self.spec))
        four, six = (
            attrs(families.get(family, b""), 0, len(families.get(family, b""))).get(kind, b"")
            for family, kind in ((AF_INET, IFLA_INET_CONF), (AF_INET6, IFLA_INET6_CONF))
        )
        guarded = not four or all(_number(four, number - 1) == value for number, value in _GUARD.items())
        if not six:
            return guarded, False
        guarded = guarded and not any(_number(six, number) for number in GUARD6.values())
        return guarded, bool(_number(six, _DISABLE_IPV6))


def _number(array: bytes, index: int) -> int:
    return int(I32.unpack_from(array, index * I32.size)[0])


def nsid_of(descriptor: int) -> bytes:
    """The body of RTM_GETNSID: which number the namespace open as *descriptor* has in this one."""
    return I32.pack(AF_UNSPEC) + attr(_NETNSA_FD, I32.pack(descriptor))


def nsid(body: bytes) -> int | None:
    """Decode one RTM_NEWNSID; None: it has none, so no link leads there."""
    (number,) = I32.unpack(attrs(body, I32.size, len(body))[_NETNSA_NSID])
    return int(number) if number >= 0 else None


def link(body: bytes) -> Link:
    """Decode one RTM_NEWLINK."""
    _, _, index, flags, _ = IFINFO.unpack_from(body)
    found = attrs(body, IFINFO.size, len(body))
    info = found.get(IFLA_LINKINFO, b"")
    inner = attrs(info, 0, len(info))
    return Link(
        index,
        found.get(IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace"),
        inner.get(IFLA_INFO_KIND, b"").rstrip(b"\0").decode(errors="replace"),
        found.get(IFLA_IFALIAS, b"").rstrip(b"\0").decode(errors="replace"),
        _U32.unpack(found[IFLA_MTU])[0] if IFLA_MTU in found else 0,
        found.get(IFLA_ADDRESS, b"").hex(":"),
        bool(flags & IFF_UP),
        inner.get(IFLA_INFO_DATA, b""),
        bool(flags & IFF_LOWER_UP),
        _U32.unpack(found[IFLA_GROUP])[0] if IFLA_GROUP in found else 0,
        bool(flags & IFF_LOOPBACK),
        I32.unpack(found[_IFLA_LINK_NETNSID])[0] if _IFLA_LINK_NETNSID in found else None,
        found.get(IFLA_AF_SPEC, b""),
        IFLA_MASTER in found,
    )


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
    (number,) = _U32.unpack(found[NHA_ID])
    oif = _U32.unpack(found[NHA_OIF])[0] if NHA_OIF in found else 0
    via = text(found[NHA_GATEWAY]) if NHA_GATEWAY in found else ""
    item = Nexthop(number, via, names.get(oif, f"#{oif}"), bool(flags & RTNH_F_ONLINK))
    return item if ours.is_nexthop(item) else None


def nexthop_id(body: bytes) -> int:
    """The id that one RTM_NEWNEXTHOP is about, whosesoever it is."""
    return int(_U32.unpack(attrs(body, NHMSG.size, len(body))[NHA_ID])[0])


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
    return item if ours.is_route(item, _U32.unpack(found.get(RTA_PRIORITY, b"\0\0\0\0"))[0]) else None


def _any_route(body: bytes, found: Mapping[int, bytes], place: Place, names: Mapping[int, str]) -> Route:
    family, length, _, _, table, _, _, kind, flags = RTMSG.unpack_from(body)
    table = _U32.unpack(found[RTA_TABLE])[0] if RTA_TABLE in found else table
    packed = found.get(RTA_DST)
    dst = f"{inet_ntop(family, packed)}/{length}" if packed else ("0.0.0.0/0" if family == AF_INET else "::/0")
    if kind == RTN_UNREACHABLE:
        return Route(place, dst, unreachable=True, table=table)
    if RTA_NH_ID in found:  # the kernel repeats the nexthop's own content: it is not the route's
        return Route(place, dst, nhid=_U32.unpack(found[RTA_NH_ID])[0], table=table)
    oif = _U32.unpack(found[RTA_OIF])[0] if RTA_OIF in found else 0
    via = text(found[RTA_GATEWAY]) if RTA_GATEWAY in found else ""
    metrics = attrs(found.get(RTA_METRICS, b""), 0, len(found.get(RTA_METRICS, b"")))
    mtu = _U32.unpack(metrics[RTAX_MTU])[0] if RTAX_MTU in metrics else 0
    dev, onlink = names.get(oif, f"#{oif}"), bool(flags & RTNH_F_ONLINK)
    src = text(found[RTA_PREFSRC]) if RTA_PREFSRC in found else ""
    return Route(place, dst, dev, via, onlink=onlink, mtu=mtu, table=table, src=src)


def default_route(body: bytes, but: int) -> int | None:
    """The family (4, 6) of one RTM_NEWROUTE that is a default route of the main table, by another link than that with
    the index *but*; None for any other route, and for the kernel's own that says there is none."""
    family, length, _, _, table, protocol, _, kind, _ = RTMSG.unpack_from(body)
    is_nothing = protocol == RTPROT_KERNEL and kind != RTN_UNICAST
    if length or table != MAIN or is_nothing or family not in _AF.values():
        return None
    found = attrs(body, RTMSG.size, len(body))
    oif = _U32.unpack(found[RTA_OIF])[0] if RTA_OIF in found else 0
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
        return int(_U32.unpack(found[kind])[0]) if kind in found else 0

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
