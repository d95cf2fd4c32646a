"""Reading what is ours from the kernel: dumps, narrowed by the kernel itself where it can.

A link may go while one looks at it: then it is not there, and neither is what hung on it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from socket import AF_BRIDGE, AF_UNSPEC, inet_pton
from typing import Final, NamedTuple, TypeAlias

from pyroute2.netlink.rtnl import RTM_GETADDR, RTM_GETLINK, RTM_GETNEIGH, RTM_GETNSID, RTM_GETROUTE, RTM_GETRULE

from dataplane import ethtool, linkmsg, ours, routemsg, rtnl
from dataplane.items import HOST, MAIN, PROTOCOL, Addr, Item, Place, Rule, Sysctl
from dataplane.netlink import Socket
from dataplane.refusal import VANISHED

MOST: Final = 1000
"""Addresses, and routes of ours, that a pod's interface has before the look at it is ended."""
_NDA_IFINDEX: Final = 8
_ANY_NEXTHOP: Final = routemsg.NHMSG.pack(0, 0, 0, 0)
_ANY_RULE: Final = routemsg.RULE.pack(AF_UNSPEC, 0, 0, 0, 0, 0, 0)
_FEW: Final = 32
"""Objects that are asked for one by one: each costs a fraction of what a dump of thousands does."""


class OnHost(NamedTuple):
    """Every link, address, neighbour, FDB entry, nexthop, route and rule of ours in the host's namespace."""

    def __str__(self) -> str:
        return "the node's links, routes and rules"


class Settings(NamedTuple):
    """The named sysctls of the host's namespace and the named nft tables (family, name)."""

    sysctls: tuple[str, ...] = ()
    tables: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        tables = (f"nft table {family} {name}" for family, name in self.tables)
        return ", ".join([*self.sysctls, *tables])


class Filter(NamedTuple):
    """What of ours is in other programs' chains."""

    def __str__(self) -> str:
        return "iptables' chain FORWARD"


class PodLink(NamedTuple):
    """The host's end of one pod's link, and what hangs on it."""

    name: str

    def __str__(self) -> str:
        return f"link {self.name}"


class Strangers(NamedTuple):
    """The links of the host that are called as a pod's are and are not ours: to be told of, not touched."""

    def __str__(self) -> str:
        return "links that are called as ours are"


class Device(NamedTuple):
    """An interface that the machine was given, and those of *addresses* (with prefix lengths) that it has: it may have
    others, which are not ours."""

    name: str
    addresses: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"link {self.name}"


class Pod(NamedTuple):
    """One pod's namespace: the named interface and, unless *is_link_alone*, its addresses, our routes on it, and the
    named sysctls and neighbours; with *has_rules* our rules. What a pod fills its namespace with costs nobody else:
    nothing is asked for that may be without bound, or the look is ended at `MOST`."""

    netns: str
    ifname: str
    sysctls: tuple[str, ...] = ()
    neighbours: tuple[str, ...] = ()
    is_link_alone: bool = False
    has_rules: bool = False

    def __str__(self) -> str:
        return f"link {self.ifname} in {self.netns}"


Scope: TypeAlias = OnHost | Settings | Filter | PodLink | Strangers | Device | Pod


def host(sock: Socket) -> list[Item]:
    """Everything of ours on the host."""
    links = sock.dump(RTM_GETLINK, _skip_stats(0), linkmsg.link)
    names = {link.ifindex: link.name for link in links}
    own = {link.ifindex: link.name for link in links if is_ours(link)}
    items: list[Item] = [link.veth() for link in links if link.is_pod_link]
    for link in (one for one in links if one.is_device):
        items += _unless_vanished(_OF_KIND[link.kind](sock, link))
    items += _neighbours(sock, 0, own, HOST)
    items += sock.dump(routemsg.RTM_GETNEXTHOP, _ANY_NEXTHOP, lambda body: routemsg.nexthop(body, names))
    items += _routes(sock, 0, names, HOST, 0)
    items += _rules(sock, HOST)
    return items


def strangers(sock: Socket) -> list[Item]:
    """Links that might be taken for pods'."""
    links = sock.dump(RTM_GETLINK, _skip_stats(0), linkmsg.link)
    return [one.port(HOST) for one in links if ours.has_pod_link_name(one.name) and not one.is_pod_link]


def device(sock: Socket, scope: Device) -> list[Item]:
    """An interface of the machine's and its addresses, as far as they concern us."""
    return _unless_vanished(_device(sock, scope))


def _device(sock: Socket, scope: Device) -> Iterable[Item]:
    link = _one_link(sock, scope.name)
    if link is None:
        return
    yield link.port(HOST)
    for one in _addresses(sock, link.ifindex, {link.ifindex: link.name}, HOST):
        if isinstance(one, Addr) and one.address in scope.addresses:
            yield one


def pod_link(sock: Socket, scope: PodLink) -> list[Item]:
    """The host's end of one pod's link, its neighbours and its routes."""
    return _unless_vanished(_pod_link(sock, scope))


def _pod_link(sock: Socket, scope: PodLink) -> Iterable[Item]:
    link = _one_link(sock, scope.name)
    if link is None or not link.is_pod_link:
        return
    names = {link.ifindex: link.name}
    yield link.veth()
    yield from _neighbours(sock, link.ifindex, names, HOST)
    yield from _routes(sock, link.ifindex, names, HOST)


def pod(sock: Socket, scope: Pod) -> list[Item]:
    """One pod's interface with its addresses, permanent neighbours and our routes; *sock* is open in there."""
    return _unless_vanished(_pod(sock, scope))


def _pod(sock: Socket, scope: Pod) -> Iterable[Item]:
    link = _one_link(sock, scope.ifname)
    if link is None:
        return
    names, place = {link.ifindex: link.name}, scope.netns
    yield link.port(place)
    if scope.is_link_alone:
        return
    yield from _addresses(sock, link.ifindex, names, place, MOST)
    asked = [_neighbour(address, link.ifindex) for address in scope.neighbours]
    yield from filter(None, sock.get(RTM_GETNEIGH, asked, lambda body: routemsg.neigh(body, place, names)))
    yield from _routes(sock, link.ifindex, names, place, 0, MOST)
    yield from _rules(sock, place, MOST) if scope.has_rules else ()


def defaults(sock: Socket, ifname: str) -> frozenset[int]:
    """The families (4, 6) in which the namespace that *sock* is open in has a default route by another link."""
    link = _one_link(sock, ifname)
    asked = routemsg.RTMSG.pack(AF_UNSPEC, 0, 0, 0, MAIN, 0, 0, 0, 0)
    but = link.ifindex if link is not None else 0
    return frozenset(sock.dump(RTM_GETROUTE, asked, lambda body: routemsg.default_route(body, but), MOST))


def _unless_vanished(items: Iterable[Item]) -> list[Item]:
    """What is seen of one link; nothing where it went meanwhile."""
    try:
        return list(items)
    except OSError as error:
        if error.errno not in VANISHED:
            raise
        return []


def sysctls(root: Path, place: Place, paths: tuple[str, ...]) -> list[Sysctl]:
    """The values below *root*, of the calling thread's namespace; one that does not exist is left out."""
    found = []
    for path in paths:
        try:
            found.append(Sysctl(place, path, (root / path).read_text(errors="replace").strip()))
        except FileNotFoundError:
            continue
    return found


def leads_to(sock: Socket, name: str, descriptor: int) -> bool:
    """Whether the other end of the link is in the namespace open as *descriptor*.

    The kernel has a number for each namespace that a link leads to. It is the namespace's that is asked for first and,
    since that is held open, stays its own: what the link tells afterwards can be no other's of the same number.
    """
    (number,) = sock.get(RTM_GETNSID, [linkmsg.nsid_of(descriptor)], linkmsg.nsid)
    link = _one_link(sock, name)
    return link is not None and number is not None and link.peer == number


def is_ours(link: linkmsg.Link) -> bool:
    """Whether a link of the host's is ours."""
    return link.is_pod_link or link.is_device


def _vxlan(sock: Socket, vxlan: linkmsg.Link) -> Iterable[Item]:
    yield vxlan.vxlan(ethtool.is_tx_checksum_on(sock, vxlan.name))
    yield from _addresses(sock, vxlan.ifindex, {vxlan.ifindex: vxlan.name}, HOST)
    yield from _fdb(sock, vxlan)


_OF_KIND: Final[Mapping[str, Callable[[Socket, linkmsg.Link], Iterable[Item]]]] = {"vxlan": _vxlan}
"""What there is of a backend's device, by its kind: see `dataplane.ours.DEVICES`."""


def _skip_stats(index: int) -> bytes:
    mask = rtnl.attr(linkmsg.IFLA_EXT_MASK, linkmsg.RTEXT_FILTER_SKIP_STATS.to_bytes(4, "little"))
    return linkmsg.IFINFO.pack(AF_UNSPEC, 0, index, 0, 0) + mask


def links(sock: Socket, names: Sequence[str]) -> list[linkmsg.Link | None]:
    """The links with these names, None where there is none."""
    asked = [_skip_stats(0) + rtnl.attr(linkmsg.IFLA_IFNAME, name.encode() + b"\0") for name in names]
    return sock.get(RTM_GETLINK, asked, linkmsg.link)


def _one_link(sock: Socket, name: str) -> linkmsg.Link | None:
    (link,) = links(sock, [name])
    return link


def _addresses(sock: Socket, index: int, names: Mapping[int, str], place: Place, most: int = 0) -> list[Item]:
    asked = routemsg.IFADDR.pack(AF_UNSPEC, 0, 0, 0, index)
    return list(sock.dump(RTM_GETADDR, asked, lambda body: routemsg.addr(body, place, names), most))


def _neighbour(address: str, index: int) -> bytes:
    family = rtnl.family_of(address)
    return routemsg.NDMSG.pack(family, index, 0, 0, 0) + rtnl.attr(routemsg.NDA_DST, inet_pton(family, address))


def _neighbours(sock: Socket, index: int, names: Mapping[int, str], place: Place) -> list[Item]:
    asked = routemsg.NDMSG.pack(AF_UNSPEC, 0, 0, 0, 0)
    if index:
        asked += rtnl.attr(_NDA_IFINDEX, index.to_bytes(4, "little"))
    return list(sock.dump(RTM_GETNEIGH, asked, lambda body: routemsg.neigh(body, place, names)))


def _rules(sock: Socket, place: Place, most: int = 0) -> list[Rule]:
    return sock.dump(RTM_GETRULE, _ANY_RULE, lambda body: routemsg.rule(body, place), most)


def every_rule(sock: Socket) -> list[routemsg.SeenRule]:
    """All rules of the host's, whosesoever they are."""
    return sock.dump(RTM_GETRULE, _ANY_RULE, lambda body: routemsg.any_rule(body, HOST))


def _fdb(sock: Socket, vxlan: linkmsg.Link) -> list[Item]:
    asked = routemsg.NDMSG.pack(AF_BRIDGE, vxlan.ifindex, 0, 0, 0)
    return list(sock.dump(RTM_GETNEIGH, asked, lambda body: routemsg.fdb(body, vxlan.name)))


def foreign_nexthops(sock: Socket, ids: Collection[int]) -> set[int]:
    """Which of *ids* other programs' nexthop objects have."""
    if len(ids) > _FEW:
        everything = sock.dump(routemsg.RTM_GETNEXTHOP, _ANY_NEXTHOP, lambda body: body)
    else:
        asked = [_ANY_NEXTHOP + rtnl.attr(routemsg.NHA_ID, number.to_bytes(4, "little")) for number in ids]
        everything = [body for body in sock.get(routemsg.RTM_GETNEXTHOP, asked, bytes) if body is not None]
    return {routemsg.nexthop_id(body) for body in everything if routemsg.is_foreign_nexthop(body)}.intersection(ids)


def _routes(
    sock: Socket, index: int, names: Mapping[int, str], place: Place, table: int = MAIN, most: int = 0
) -> list[Item]:
    """The routes of ours through one link, or with *index* 0 all; *table* 0 is every table."""
    asked = routemsg.RTMSG.pack(AF_UNSPEC, 0, 0, 0, table, PROTOCOL, 0, 0, 0)
    if index:
        asked += rtnl.attr(routemsg.RTA_OIF, index.to_bytes(4, "little"))
    return list(sock.dump(RTM_GETROUTE, asked, lambda body: routemsg.route(body, place, names), most))
