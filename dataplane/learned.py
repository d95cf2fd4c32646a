"""Routes of a routing daemon that works for us: what tells them from everybody else's, and their removal.

They are the daemon's as long as it lives, and stay when it dies. When it is to be there no more, they go. What marks
them is the daemon's protocol number *and* a metric that nobody chooses by chance: an administrator's own BIRD has the
same number (linux/rtnetlink.h, RTPROT_BIRD), and 32 as its metric.
"""

from __future__ import annotations

from contextlib import closing
from socket import AF_INET, AF_INET6
from struct import Struct
from typing import Final, NamedTuple

from pyroute2.netlink.rtnl import RTM_DELROUTE, RTM_GETROUTE

from dataplane import routemsg, rtnl
from dataplane.items import MAIN
from dataplane.netlink import Socket
from dataplane.refusal import translated

METRIC: Final = 8282
"""Of such routes: higher than that of ours, which are 0 and, in IPv6, 1024: where there are both, ours counts."""
RTPROT_BIRD: Final = 12
_U32: Final = Struct("=I")


class Learned(NamedTuple):
    """One such route: its range in the kernel's text, and the body that the kernel lists it by."""

    network: str
    body: bytes


def learned() -> list[Learned]:
    """All of them, in the namespace of the calling thread. KernelRefused, TryAgain: they cannot be looked at."""
    with translated("look at the routes that were learned"), closing(Socket()) as sock:
        return sock.dump(RTM_GETROUTE, _asked(), _one)


def forget(routes: list[Learned]) -> int:
    """Remove *routes*; how many were still there. KernelRefused, TryAgain: the kernel cannot be asked."""
    with translated("remove the routes that were learned"), closing(Socket()) as sock:
        messages = [rtnl.Message(RTM_DELROUTE, 0, one.body) for one in routes]
        return len(messages) - len(sock.transact(messages))


def _asked() -> bytes:
    return routemsg.RTMSG.pack(0, 0, 0, 0, MAIN, RTPROT_BIRD, 0, 0, 0)


def _one(body: bytes) -> Learned | None:
    family, length, _, _, table, protocol, _, _, _ = routemsg.RTMSG.unpack_from(body)
    found = rtnl.attrs(body, routemsg.RTMSG.size, len(body))
    priority = _U32.unpack(found.get(routemsg.RTA_PRIORITY, b"\0\0\0\0"))[0]
    if (table, protocol, priority) != (MAIN, RTPROT_BIRD, METRIC) or family not in (AF_INET, AF_INET6):
        return None
    default = "0.0.0.0" if family == AF_INET else "::"
    address = rtnl.text(found[routemsg.RTA_DST]) if length else default
    return Learned(f"{address}/{length}", body)
