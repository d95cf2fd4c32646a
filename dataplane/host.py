"""What others made of this host and our part has to follow: their rules, firewalls, addresses, settings. Read alone."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import closing
from pathlib import Path
from socket import AF_INET, AF_UNSPEC, if_indextoname
from typing import Final, NamedTuple

from pyroute2.netlink.rtnl import RTM_GETADDR

from dataplane import observe, routemsg, rtnl
from dataplane.forward import Chain, Forward
from dataplane.items import LOCAL, PROTOCOL
from dataplane.netlink import Socket
from dataplane.ours import has_our_name
from dataplane.refusal import translated, unable

_IFA_F_SECONDARY: Final = 0x01


class Facts(NamedTuple):
    """What `look` found.

    *ruled* are the families (4, 6) in which other programs' rules come before the main table: a VPN client's, for one.
    *dropping* are iptables' chains FORWARD that drop by policy. *speaks_as* are the families in which the host itself
    would speak to pods as another address than the node's. *advertised* are the links that take
    router advertisements. *is_ipv6_off*: new links have IPv6 switched off. *missing* are the node's addresses that no
    link has, where one has another of them.
    """

    ruled: frozenset[int] = frozenset()
    dropping: frozenset[Chain] = frozenset()
    speaks_as: frozenset[int] = frozenset()
    advertised: frozenset[str] = frozenset()
    is_ipv6_off: bool = False
    missing: frozenset[str] = frozenset()


NOTHING: Final = Facts()
"""A host on which others made nothing that concerns us."""


def look(forward: Forward, settings: Path, uplink: str, addresses: Collection[str]) -> Facts:
    """What there is around the link *uplink* of the node with *addresses*, in the namespace of the calling thread; of
    iptables' chain *forward* knows; the sysctls are below *settings*.

    Raises:
        KernelRefused, TryAgain: it cannot be seen.
    """
    with translated("look at the host's rules and addresses"), closing(Socket()) as sock:
        rules = observe.every_rule(sock)
        held = sock.dump(RTM_GETADDR, routemsg.IFADDR.pack(AF_UNSPEC, 0, 0, 0, 0), _address)
    links = {uplink, *(_name(one.link) for one in held if ":" in one.address)} - {""}
    return Facts(
        frozenset(one.rule.family for one in rules if _is_before_main(one)),
        forward.look().dropping,
        _speaks_as(held, addresses),
        frozenset(link for link in links if _sysctl(settings / f"net/ipv6/conf/{link}/accept_ra") in ("1", "2")),
        _sysctl(settings / "net/ipv6/conf/default/disable_ipv6") == "1",
        _missing(held, addresses),
    )


def _is_before_main(one: routemsg.SeenRule) -> bool:
    """Whether that is a rule of another program's that comes before the main table."""
    is_others = one.protocol != PROTOCOL and not one.is_l3mdev
    return is_others and one.rule.table != LOCAL and one.rule.priority < routemsg.MAIN_RULE


class _Held(NamedTuple):
    link: int
    address: str
    is_chosen: bool
    """Whether the kernel takes it for a link that has no address, if no other comes before it."""


def _address(body: bytes) -> _Held | None:
    family, _, flags, scope, index = routemsg.IFADDR.unpack_from(body)
    if scope >= routemsg.RT_SCOPE_LINK:
        return None
    found = rtnl.attrs(body, routemsg.IFADDR.size, len(body))
    packed = found.get(routemsg.IFA_LOCAL) or found[routemsg.IFA_ADDRESS]
    return _Held(index, rtnl.text(packed), family != AF_INET or not flags & _IFA_F_SECONDARY)


def _speaks_as(held: Collection[_Held], addresses: Collection[str]) -> frozenset[int]:
    """For IPv4 the kernel takes the first address of the first link (inet_select_addr()); for IPv6 what RFC 6724
    prefers, which may be any other there is."""
    four = [one for one in sorted(held, key=lambda one: one.link) if ":" not in one.address and one.is_chosen]
    six = [one for one in held if ":" in one.address and one.address not in addresses]
    mine = {6 if ":" in one.address else 4 for one in held if one.address in addresses}
    others = ({4} if four and four[0].address not in addresses else set()) | ({6} if six else set())
    return frozenset(others & mine)


def _missing(held: Collection[_Held], addresses: Collection[str]) -> frozenset[str]:
    """Where no link has any of them, an uplink was set by somebody who knows why."""
    missing = frozenset(addresses).difference(one.address for one in held)
    return missing if len(missing) < len(addresses) else frozenset()


def _name(index: int) -> str:
    """The name of a link that addresses from advertisements may be on; '' for one of ours, or that has just gone."""
    try:
        name = if_indextoname(index)
    except OSError:
        return ""
    return "" if has_our_name(name) else name


def _sysctl(path: Path) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError:  # a kernel without IPv6, or a link that has just gone
        return ""
    except OSError as error:
        raise unable(f"read the sysctl {path}", error) from error
