"""Where the kernel would send a packet, asked of the kernel itself (RTM_GETROUTE): every rule, table, nexthop and check
of sources that is in force has its say, whoever made it. One question costs some 20 microseconds and sends nothing.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from contextlib import closing
from socket import AF_INET, if_indextoname, inet_pton
from typing import Final, NamedTuple

from pyroute2.netlink.rtnl import RTM_GETROUTE

from dataplane import observe, routemsg, rtnl
from dataplane.items import PROTOCOL
from dataplane.netlink import Socket
from dataplane.refusal import translated

_OF_KERNEL: Final = 2
"""RTPROT_KERNEL: rules that the kernel begins with."""
_RTA_SRC, _RTA_IIF, _RTA_VIA, _RTA_MARK = 2, 3, 18, 16
_KINDS: Final = {1: "unicast", 2: "local", 3: "broadcast", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
_LOOKUP_TABLE: Final = 0x1000
"""RTM_F_LOOKUP_TABLE: say which table the route is of (rtnetlink(7))."""
_SOURCE: Final = "dropped: no packet of that source is taken from that link (rp_filter)"
_REFUSED: Final = {
    errno.ENETUNREACH: "no route",
    errno.EHOSTUNREACH: "no route",
    errno.EACCES: "prohibit",
    errno.EXDEV: _SOURCE,
    errno.EINVAL: _SOURCE,  # of what came in, since Linux 6.13, whatever it is dropped for: blackholes, too
}
"""What the kernel does with a packet that it has no way for, by the errno that it answers."""


class Packet(NamedTuple):
    """A packet to *dst*: of this host itself, or with *iif* one that came in by that link from *src*."""

    dst: str
    src: str = ""
    iif: str = ""
    mark: int = 0


class Course(NamedTuple):
    """What becomes of it: it leaves by *dev* to the next hop *via* ('' where the receiver is on the link itself), by a
    route of *table*; *src* is the source that the host would choose. Another *kind* than "unicast" says why it does not
    leave."""

    kind: str
    dev: str = ""
    via: str = ""
    table: int = 0
    src: str = ""

    def __str__(self) -> str:
        if self.kind != "unicast":
            return f"{self.kind}" + (f" (table {self.table})" if self.table else "")
        table = f" (table {self.table})" if self.table else ""
        return f"dev {self.dev}" + (f" via {self.via}" if self.via else "") + table


def ways(packets: Iterable[Packet]) -> list[Course]:
    """What the kernel would do with each of *packets*, in the namespace of the calling thread.

    KernelRefused, TryAgain: it does not say."""
    with translated("ask for the way of a packet"), closing(Socket()) as sock:
        return [_way(sock, packet) for packet in packets]


def _way(sock: Socket, packet: Packet) -> Course:
    family = rtnl.family_of(packet.dst)
    # IPv6 always says which table a route is of, and refuses to be asked.
    length, flags = (32, _LOOKUP_TABLE) if family == AF_INET else (128, 0)
    body = routemsg.RTMSG.pack(family, length, length if packet.src else 0, 0, 0, 0, 0, 0, flags)
    body += rtnl.attr(routemsg.RTA_DST, inet_pton(family, packet.dst))
    if packet.src:
        body += rtnl.attr(_RTA_SRC, inet_pton(family, packet.src))
    if packet.mark:
        body += rtnl.attr(_RTA_MARK, packet.mark.to_bytes(4, "little"))
    try:
        if packet.iif:
            body += rtnl.attr(_RTA_IIF, sock.index(packet.iif).to_bytes(4, "little"))
        (answer,) = sock.get(RTM_GETROUTE, [body], _decoded)
    except OSError as error:
        if error.errno == errno.EINVAL and not packet.iif:
            return Course("blackhole")
        if error.errno in _REFUSED:
            return Course(_REFUSED[error.errno])
        if error.errno == errno.ENODEV:
            return Course(f"no link {packet.iif}")
        raise
    return answer or Course("no route")


def _decoded(body: bytes) -> Course:
    _, _, _, _, table, _, _, kind, _ = routemsg.RTMSG.unpack_from(body)
    found = rtnl.attrs(body, routemsg.RTMSG.size, len(body))
    via = found.get(routemsg.RTA_GATEWAY) or found.get(_RTA_VIA, b"  ")[2:]
    return Course(
        _KINDS.get(kind, f"route of type {kind}"),
        _name(int.from_bytes(found.get(routemsg.RTA_OIF, b""), "little")),
        rtnl.text(via) if via else "",
        int.from_bytes(found[routemsg.RTA_TABLE], "little") if routemsg.RTA_TABLE in found else table,
        rtnl.text(found[routemsg.RTA_PREFSRC]) if routemsg.RTA_PREFSRC in found else "",
    )


def _name(index: int) -> str:
    try:
        return if_indextoname(index) if index else ""
    except OSError:  # it has just gone
        return f"#{index}"


def explain(packet: Packet, way: Course) -> str:
    """What leads *packet* along *way*: the route that it matches, and other programs' rules that lead to its table, in
    words for the operator. KernelRefused, TryAgain: it cannot be seen."""
    with translated("look at the host's rules"), closing(Socket()) as sock:
        rules = observe.every_rule(sock)
    family = 6 if ":" in packet.dst else 4
    others = [one.rule for one in rules if one.rule.family == family and one.protocol not in (_OF_KERNEL, PROTOCOL)]
    # Where the packet is refused the kernel does not say by which table.
    before = [one for one in others if one.table == way.table or (not way.table and one.priority < routemsg.MAIN_RULE)]
    if before:
        return "the rule is of another program: " + ", ".join(f"{one.priority}: lookup {one.table}" for one in before)
    if way.kind == _SOURCE:
        path = f"net.ipv4.conf.{{all,{packet.iif}}}.rp_filter"
        return f"see the sysctls {path}, which way leads back to {packet.src}, and blackhole routes"
    return f"see ip -{family} route show match {packet.dst}"
