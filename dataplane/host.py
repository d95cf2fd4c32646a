"""What others made of this host and our part has to follow: their rules, firewalls, addresses, settings. Read alone."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from socket import AF_INET, AF_UNSPEC, if_indextoname
from typing import Final, NamedTuple

from pyroute2.netlink.rtnl import RTM_GETADDR, RTM_GETRULE

from dataplane import rtnl
from dataplane.forward import Chain, Forward
from dataplane.items import PROTOCOL
from dataplane.netlink import Socket
from dataplane.ours import has_our_name
from dataplane.refusal import translated, unable
from dataplane.settings import PROC_SYS

_MAIN_PRIORITY: Final = 32766
"""Of the kernel's own rule for the main table; the one for the local table has 0."""
_FRA_L3MDEV: Final = 19
_IFA_F_SECONDARY: Final = 0x01


class Facts(NamedTuple):
    """What `look` found.

    *ruled* are the families (4, 6) in which other programs' rules come before the main table: a VPN client's, for one.
    *dropping* are iptables' chains FORWARD that drop by policy. *speaks_as* are the families in which the host itself
    would speak to pods as another address than the node's. *advertised* are the links that take
    router advertisements. *is_ipv6_off*: new links have IPv6 switched off.
    """

    ruled: frozenset[int] = frozenset()
    dropping: frozenset[Chain] = frozenset()
    speaks_as: frozenset[int] = frozenset()
    advertised: frozenset[str] = frozenset()
    is_ipv6_off: bool = False


NOTHING: Final = Facts()
"""A host on which others made nothing that concerns us."""


class Host:
    """Looks at the host, in the namespace of the calling thread; its sysctls are below *settings*. One thread at a time
    calls."""

    def __init__(self, forward: Forward | None = None, settings: Path = PROC_SYS) -> None:
        self._forward = forward or Forward()
        self._settings = settings

    def look(self, uplink: str, addresses: Collection[str]) -> Facts:
        """What there is around the link *uplink* of the node with *addresses*.

        Raises:
            KernelRefused, TryAgain: it cannot be seen.
        """
        with translated("look at the host's rules and addresses"):
            sock = Socket()
            try:
                asked = rtnl.RULE.pack(AF_UNSPEC, 0, 0, 0, 0, 0, 0)
                ruled = frozenset(sock.dump(RTM_GETRULE, asked, _ruled))
                held = sock.dump(RTM_GETADDR, rtnl.IFADDR.pack(AF_UNSPEC, 0, 0, 0, 0), _address)
            finally:
                sock.close()
        links = {uplink, *(_name(one.link) for one in held if ":" in one.address)} - {""}
        return Facts(
            ruled,
            self._forward.look().dropping,
            _speaks_as(held, addresses),
            frozenset(link for link in links if self._sysctl(f"net/ipv6/conf/{link}/accept_ra") in ("1", "2")),
            self._sysctl("net/ipv6/conf/default/disable_ipv6") == "1",
        )

    def _sysctl(self, path: str) -> str:
        try:
            return (self._settings / path).read_text().strip()
        except FileNotFoundError:  # a kernel without IPv6, or a link that has just gone
            return ""
        except OSError as error:
            raise unable(f"read the sysctl {path}", error) from error


def _ruled(body: bytes) -> int | None:
    """The family of a rule of another program's that comes before the main table."""
    family, _, _, _, table, _, _ = rtnl.RULE.unpack_from(body)
    found = rtnl.attrs(body, rtnl.RULE.size, len(body))
    priority = int.from_bytes(found.get(rtnl.FRA_PRIORITY, b""), "little")
    is_ours = found.get(rtnl.FRA_PROTOCOL) == bytes((PROTOCOL,))
    if is_ours or _FRA_L3MDEV in found or table == rtnl.LOCAL or priority >= _MAIN_PRIORITY:
        return None
    return 4 if family == AF_INET else 6


class _Held(NamedTuple):
    link: int
    address: str
    is_chosen: bool
    """Whether the kernel takes it for a link that has no address, if no other comes before it."""


def _address(body: bytes) -> _Held | None:
    family, _, flags, scope, index = rtnl.IFADDR.unpack_from(body)
    if scope >= rtnl.RT_SCOPE_LINK:
        return None
    found = rtnl.attrs(body, rtnl.IFADDR.size, len(body))
    packed = found.get(rtnl.IFA_LOCAL) or found[rtnl.IFA_ADDRESS]
    return _Held(index, rtnl.text(packed), family != AF_INET or not flags & _IFA_F_SECONDARY)


def _speaks_as(held: Collection[_Held], addresses: Collection[str]) -> frozenset[int]:
    """For IPv4 the kernel takes the first address of the first link (inet_select_addr()); for IPv6 what RFC 6724
    prefers, which may be any other there is."""
    four = [one for one in sorted(held, key=lambda one: one.link) if ":" not in one.address and one.is_chosen]
    six = [one for one in held if ":" in one.address and one.address not in addresses]
    mine = {6 if ":" in one.address else 4 for one in held if one.address in addresses}
    others = ({4} if four and four[0].address not in addresses else set()) | ({6} if six else set())
    return frozenset(others & mine)


def _name(index: int) -> str:
    """The name of a link that addresses from advertisements may be on; '' for one of ours, or that has just gone."""
    try:
        name = if_indextoname(index)
    except OSError:
        return ""
    return "" if has_our_name(name) else name
