"""For which ranges the host itself answers, because another program says so: a ``local`` route for a whole range.

Such a route does no harm while the kernel keeps its tables local and main as one, where the most specific route decides
and a pod's is that. A rule of anybody's parts them for good (fib_unmerge() in net/ipv4), and from then on the table
local comes first: the host answers for its pods.
"""

from __future__ import annotations

from contextlib import closing
from functools import partial
from socket import AF_INET, inet_ntop
from typing import Final

from netaddr import IPNetwork
from pyroute2.netlink.rtnl import RTM_GETROUTE

from dataplane import routemsg
from dataplane.items import LOCAL
from dataplane.netlink import Socket
from dataplane.refusal import translated
from dataplane.rtnl import attrs

GUEST_AGENT: Final = 66
"""The protocol number of the routes that Google's guest agent makes."""


def answered(protocol: int = GUEST_AGENT) -> frozenset[IPNetwork]:
    """The IPv4 ranges for which a program with that *protocol* number has the host answer.

    KernelRefused, TryAgain: they cannot be looked at."""
    asked = routemsg.RTMSG.pack(AF_INET, 0, 0, 0, LOCAL, protocol, 0, routemsg.RTN_LOCAL, 0)
    with translated("look at the host's local routes"), closing(Socket()) as sock:
        return frozenset(sock.dump(RTM_GETROUTE, asked, partial(_range, protocol)))


def _range(protocol: int, body: bytes) -> IPNetwork | None:
    family, length, _, _, table, found, _, kind, _ = routemsg.RTMSG.unpack_from(body)
    if (family, table, found, kind) != (AF_INET, LOCAL, protocol, routemsg.RTN_LOCAL):
        return None
    packed = attrs(body, routemsg.RTMSG.size, len(body)).get(routemsg.RTA_DST, bytes(4))
    return IPNetwork(f"{inet_ntop(AF_INET, packed)}/{length}")
