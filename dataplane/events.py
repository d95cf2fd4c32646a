"""Netlink's word that something of the node's own may have changed, so that a pass comes at once (rtnetlink(7)).

Another program's routes, neighbours and links wake nobody, and neither do the links of single pods, which come and go
with every request and are looked at one by one anyway.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack, suppress
from typing import Final

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
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV4_NETCONF,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV4_RULE,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV6_NETCONF,
    RTNLGRP_IPV6_ROUTE,
    RTNLGRP_IPV6_RULE,
    RTNLGRP_LINK,
    RTNLGRP_NEIGH,
)

from dataplane import linkmsg, routemsg, rtnl
from dataplane.items import HOST, PROTOCOL
from dataplane.netlink import make_room, messages
from dataplane.ours import DEVICES, NEXTHOPS, has_pod_link_name
from dataplane.refusal import translated

RTM_NEWNETCONF: Final = 80
RTM_DELNETCONF: Final = 81
RTNLGRP_NEXTHOP: Final = 32

_GROUPS: Final = (
    RTNLGRP_LINK,
    RTNLGRP_NEIGH,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV6_ROUTE,
    RTNLGRP_IPV4_RULE,
    RTNLGRP_IPV6_RULE,
    RTNLGRP_IPV4_NETCONF,
    RTNLGRP_IPV6_NETCONF,
    RTNLGRP_NEXTHOP,
)
_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP = 270, 1
_RECEIVE: Final = 1 << 16
_CALM: Final = 0.05


class Events:
    """A subscription in the calling thread's namespace. One thread waits; any may ``wake`` it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._watched: frozenset[str] = frozenset()
        with translated("subscribe to the kernel's events"), ExitStack() as opened:
            kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            self._socket = opened.enter_context(socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE))
            self._subscribe()
            self._waker = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            opened.callback(os.close, self._waker)
            self._names: dict[int, str] = dict(socket.if_nameindex())
            opened.pop_all()

    def _subscribe(self) -> None:
        make_room(self._socket)
        self._socket.bind((0, 0))
        for group in _GROUPS:
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)

    def watch(self, links: Collection[str]) -> None:
        """From now on the state and the addresses of these links concern us; where there are none, every link's do."""
        self._watched = frozenset(links)

    def wait(self, timeout: float) -> bool:
        """Whether something of ours may have changed: False after *timeout* seconds without, or when woken."""
        deadline = self._clock() + timeout
        while True:
            ready, _, _ = select.select(
                [self._socket.fileno(), self._waker], [], [], max(0.0, deadline - self._clock())
            )
            if self._drain():
                return True
            if ready and self._waker not in ready:
                # Chatter, of our own requests first of all: look again when more of it has come together.
                ready, _, _ = select.select([self._waker], [], [], min(_CALM, max(0.0, deadline - self._clock())))
                if not ready:
                    continue
            if self._waker in ready:
                with suppress(BlockingIOError):
                    os.eventfd_read(self._waker)
                return False
            if not ready:
                return False

    def wake(self) -> None:
        """End a wait now."""
        os.eventfd_write(self._waker, 1)

    def close(self) -> None:
        """End the subscription."""
        self._socket.close()
        os.close(self._waker)

    def _drain(self) -> bool:
        concerns = is_lost = False
        while True:
            try:
                data = self._socket.recv(_RECEIVE)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                concerns = is_lost = True  # some were lost: they may have been about anything
                continue
            for kind, _, _, body in messages(data):
                concerns = self._concerns(kind, body) or concerns
        if is_lost:
            with suppress(OSError):
                self._names = dict(socket.if_nameindex())
        return concerns

    def _concerns(self, kind: int, body: bytes) -> bool:
        judge = _JUDGES.get(kind)
        try:
            return judge is not None and judge(self, kind, body)
        except (struct.error, LookupError, ValueError):
            return True  # it cannot be read, so it may be about anything

    def _of_link(self, kind: int, body: bytes) -> bool:
        link = linkmsg.link(body)
        was = self._names.get(link.ifindex, "")
        if kind == RTM_DELLINK:
            self._names.pop(link.ifindex, None)
        else:
            self._names[link.ifindex] = link.name
        return self._is_ours(link.name) or self._is_ours(was)  # one that is called otherwise now makes room

    def _of_addr(self, kind: int, body: bytes) -> bool:
        return self._is_ours(self._names.get(routemsg.IFADDR.unpack_from(body)[4], ""))

    def _of_neigh(self, kind: int, body: bytes) -> bool:
        _, index, state, _, _ = routemsg.NDMSG.unpack_from(body)
        return self._names.get(index) in DEVICES and (kind == RTM_DELNEIGH or bool(state & routemsg.NUD_PERMANENT))

    def _of_route(self, kind: int, body: bytes) -> bool:
        route = routemsg.route(body, "", self._names)
        return route is not None and not has_pod_link_name(route.dev)

    def _of_rule(self, kind: int, body: bytes) -> bool:
        return routemsg.rule(body, HOST) is not None

    def _of_nexthop(self, kind: int, body: bytes) -> bool:
        # Another program's in the place of one of ours, too.
        return bool(routemsg.NHMSG.unpack_from(body)[2] == PROTOCOL) or routemsg.nexthop_id(body) in NEXTHOPS

    def _of_netconf(self, kind: int, body: bytes) -> bool:
        found = rtnl.attrs(body, 4, len(body))
        (index,) = rtnl.I32.unpack(found.get(_NETCONFA_IFINDEX, b"\0\0\0\0"))
        return index < 0 or self._is_ours(self._names.get(index, ""))

    def _is_ours(self, name: str) -> bool:
        if has_pod_link_name(name):
            return False
        return name in DEVICES or name in self._watched or not self._watched


_NETCONFA_IFINDEX: Final = 1
_JUDGES: Final[Mapping[int, Callable[[Events, int, bytes], bool]]] = {
    RTM_NEWLINK: Events._of_link,
    RTM_DELLINK: Events._of_link,
    RTM_NEWADDR: Events._of_addr,
    RTM_DELADDR: Events._of_addr,
    RTM_NEWNEIGH: Events._of_neigh,
    RTM_DELNEIGH: Events._of_neigh,
    RTM_NEWROUTE: Events._of_route,
    RTM_DELROUTE: Events._of_route,
    RTM_NEWRULE: Events._of_rule,
    RTM_DELRULE: Events._of_rule,
    routemsg.RTM_NEWNEXTHOP: Events._of_nexthop,
    routemsg.RTM_DELNEXTHOP: Events._of_nexthop,
    RTM_NEWNETCONF: Events._of_netconf,
    RTM_DELNETCONF: Events._of_netconf,
}
