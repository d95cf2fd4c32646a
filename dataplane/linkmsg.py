"""rtnetlink's messages about links, both ways: ours as items, others' as much as concerns us. Pure; include/uapi/linux/
if_link.h has the numbers."""

from __future__ import annotations

import struct
from socket import AF_INET, AF_INET6, AF_UNSPEC, inet_pton
from typing import Final, NamedTuple

from pyroute2.netlink import NLM_F_CREATE, NLM_F_EXCL
from pyroute2.netlink.rtnl import RTM_DELLINK, RTM_NEWLINK
from pyroute2.netlink.rtnl.ifinfmsg import IFF_LOOPBACK, IFF_LOWER_UP, IFF_UP

from dataplane import ours
from dataplane.items import Item, Place
from dataplane.links import Port, Veth, Vxlan
from dataplane.rtnl import BE16, I32, U8, U32, Message, attr, attrs, family_of, mac_bytes, named, text

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

IFINFO = struct.Struct("=BxHiII")  # family, type, index, flags, change

# A veth uses one queue each way unless it is told otherwise, but the kernel makes as many as there are processors,
# each with its directory in sysfs: with two processors that is a sixth of what a pod's link costs.
_ONE_QUEUE: Final = struct.pack("=HHIHHI", 8, IFLA_NUM_TX_QUEUES, 1, 8, IFLA_NUM_RX_QUEUES, 1)

_GUARD_SPEC: Final = attr(
    AF_INET, attr(IFLA_INET_CONF, b"".join(attr(number, U32.pack(value)) for number, value in _GUARD.items()))
)
"""The IPv4 half of a link's guard; of IPv6 no message has it (inet6_set_link_af()): see `dataplane.linking.Linking`."""


def create_veth(veth: Veth, index: int, netns: int, peer_mtu: int) -> Message:
    """A veth with an interface *index* of our choice whose peer appears directly in the namespace open as *netns*;
    creating first and moving then costs 10 ms more. What cannot be given at creation is `finish_link`'s: by the index
    it may follow in the same send, since the kernel goes on after a refusal, but then there is no such index."""
    peer = IFINFO.pack(AF_UNSPEC, 0, 0, 0, 0) + named(IFLA_IFNAME, veth.peer_name) + _ONE_QUEUE
    peer += attr(IFLA_ADDRESS, mac_bytes(veth.peer_mac)) + attr(IFLA_MTU, U32.pack(peer_mtu))
    peer += attr(IFLA_NET_NS_FD, I32.pack(netns))
    body = IFINFO.pack(AF_UNSPEC, 0, index, 0, 0) + named(IFLA_IFNAME, veth.name) + _ONE_QUEUE
    body += attr(IFLA_ADDRESS, mac_bytes(veth.mac)) + attr(IFLA_MTU, U32.pack(veth.mtu))
    body += attr(IFLA_GROUP, U32.pack(veth.group))
    info = named(IFLA_INFO_KIND, "veth") + attr(IFLA_INFO_DATA, attr(VETH_INFO_PEER, peer))
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body + attr(IFLA_LINKINFO, info))


def create_vxlan(vxlan: Vxlan, index: int) -> Message:
    """A VXLAN device with an interface *index* of our choice. It neither floods nor learns: its FDB holds what we put
    there."""
    family = family_of(vxlan.local)
    data = attr(IFLA_VXLAN_ID, U32.pack(vxlan.vni)) + attr(IFLA_VXLAN_PORT, BE16.pack(vxlan.port))
    data += attr(IFLA_VXLAN_LEARNING, U8.pack(0))
    local = IFLA_VXLAN_LOCAL if family == AF_INET else IFLA_VXLAN_LOCAL6
    data += attr(local, inet_pton(family, vxlan.local))
    body = IFINFO.pack(AF_UNSPEC, 0, index, 0, 0) + named(IFLA_IFNAME, vxlan.name)
    body += attr(IFLA_ADDRESS, mac_bytes(vxlan.mac)) + attr(IFLA_MTU, U32.pack(vxlan.mtu))
    info = named(IFLA_INFO_KIND, "vxlan") + attr(IFLA_INFO_DATA, data)
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
        spec += attr(AF_INET6, attr(IFLA_INET6_ADDR_GEN_MODE, U8.pack(IN6_ADDR_GEN_MODE_NONE)))
    return Message(RTM_NEWLINK, 0, body + attr(IFLA_AF_SPEC, spec))


def set_link(link: Veth | Vxlan | Port, old: Item | None) -> Message:
    """Bring an existing link, known by its name, from *old* to what the item says.

    Only what differs is said: the kernel forgets a link's permanent neighbours at every address it is told, be it
    the same. A pod's end has just been created with all but its state where *old* is None.
    """
    body = _named(link)
    if isinstance(old, Veth | Vxlan | Port):
        if link.mtu != old.mtu:
            body += attr(IFLA_MTU, U32.pack(link.mtu))
        if link.mac != old.mac:
            body += attr(IFLA_ADDRESS, mac_bytes(link.mac))
        if isinstance(link, Veth | Vxlan) and isinstance(old, Veth | Vxlan):
            body += attr(IFLA_IFALIAS, link.alias.encode()) if link.alias != old.alias else b""
            body += attr(IFLA_AF_SPEC, _GUARD_SPEC) if link.is_guarded and not old.is_guarded else b""
            body += attr(IFLA_MASTER, U32.pack(0)) if old.is_enslaved else b""
        if isinstance(link, Veth) and isinstance(old, Veth):
            body += attr(IFLA_GROUP, U32.pack(link.group)) if link.group != old.group else b""
    return Message(RTM_NEWLINK, 0, body)


def _named(link: Veth | Vxlan | Port) -> bytes:
    return IFINFO.pack(AF_UNSPEC, 0, 0, IFF_UP if link.up else 0, IFF_UP) + named(IFLA_IFNAME, link.name)


def set_group(index: int, group: int) -> Message:
    """Put a link into a link group."""
    return Message(RTM_NEWLINK, 0, IFINFO.pack(AF_UNSPEC, 0, index, 0, 0) + attr(IFLA_GROUP, U32.pack(group)))


def delete_group(group: int) -> Message:
    """Delete every link of a link group at once: one wait for RCU instead of one per link."""
    return Message(RTM_DELLINK, 0, IFINFO.pack(AF_UNSPEC, 0, 0, 0, 0) + attr(IFLA_GROUP, U32.pack(group)))


def delete_link(index: int) -> Message:
    """Delete one link."""
    return Message(RTM_DELLINK, 0, IFINFO.pack(AF_UNSPEC, 0, index, 0, 0))


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
        (vni,) = U32.unpack(found[IFLA_VXLAN_ID])
        (port,) = BE16.unpack(found[IFLA_VXLAN_PORT])
        local = found.get(IFLA_VXLAN_LOCAL) or found.get(IFLA_VXLAN_LOCAL6) or b"\0\0\0\0"
        guarded, _ = self._settings()
        return Vxlan(
            self.name,
            vni,
            port,
            text(local),
            self.mac,
            self.mtu,
            tx_checksum,
            self.up,
            self.alias,
            is_guarded=guarded,
            is_enslaved=self.is_enslaved,
        )

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
        U32.unpack(found[IFLA_MTU])[0] if IFLA_MTU in found else 0,
        found.get(IFLA_ADDRESS, b"").hex(":"),
        bool(flags & IFF_UP),
        inner.get(IFLA_INFO_DATA, b""),
        bool(flags & IFF_LOWER_UP),
        U32.unpack(found[IFLA_GROUP])[0] if IFLA_GROUP in found else 0,
        bool(flags & IFF_LOOPBACK),
        I32.unpack(found[_IFLA_LINK_NETNSID])[0] if _IFLA_LINK_NETNSID in found else None,
        found.get(IFLA_AF_SPEC, b""),
        IFLA_MASTER in found,
    )
