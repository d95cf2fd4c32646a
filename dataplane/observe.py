"""Reading what is ours from the kernel: dumps, narrowed by the kernel itself where it can."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from socket import AF_BRIDGE, AF_UNSPEC
from typing import Final, NamedTuple, TypeAlias

from pyroute2.netlink.rtnl import RTM_GETADDR, RTM_GETLINK, RTM_GETNEIGH, RTM_GETROUTE, RTM_GETRULE

from dataplane import ethtool, rtnl
from dataplane.items import HOST, MAIN, POD_LINK_PREFIX, PROTOCOL, VXLAN_LINK, Addr, Item, Sysctl
from dataplane.netlink import Socket

ALIAS: Final = "routable "
"""What the alias of every pod's host link begins with."""
_PROC_SYS: Final = Path("/proc/sys")
_NDA_IFINDEX: Final = 8


class Host(NamedTuple):
    """Every link, address, neighbour, FDB entry, nexthop, route and rule of ours in the host's namespace."""


class Settings(NamedTuple):
    """The named sysctls of the host's namespace and the named nft tables (family, name)."""

    sysctls: tuple[str, ...] = ()
    tables: tuple[tuple[str, str], ...] = ()


class PodLink(NamedTuple):
    """The host's end of one pod's link, and what hangs on it."""

    name: str


class Device(NamedTuple):
    """An interface that the machine was given, and those of *addresses* (with prefix lengths) that it has: it may have
    others, which are not ours."""

    name: str
    addresses: tuple[str, ...] = ()


class Pod(NamedTuple):
    """One pod's namespace: the named interface, what hangs on it, and the named sysctls."""

    netns: str
    ifname: str
    sysctls: tuple[str, ...] = ()


Scope: TypeAlias = Host | Settings | PodLink | Device | Pod


def host(sock: Socket) -> list[Item]:
    """Everything of ours on the host."""
    links = sock.dump(RTM_GETLINK, _skip_stats(0), rtnl.link)
    names = {link.ifindex: link.name for link in links}
    ours = {link.ifindex: link.name for link in links if is_pod_link(link) or _is_vxlan(link)}
    items: list[Item] = [link.veth() for link in links if is_pod_link(link)]
    for vxlan in filter(_is_vxlan, links):
        items.append(vxlan.vxlan(ethtool.is_tx_checksum_on(vxlan.name)))
        items += _addresses(sock, vxlan.ifindex, {vxlan.ifindex: vxlan.name}, HOST)
        items += _fdb(sock, vxlan)
    items += _neighbours(sock, 0, ours, HOST)
    items += sock.dump(rtnl.RTM_GETNEXTHOP, rtnl.NHMSG.pack(0, 0, 0, 0), lambda body: rtnl.nexthop(body, names))
    items += _routes(sock, 0, names, HOST, 0)
    items += sock.dump(RTM_GETRULE, rtnl.RULE.pack(AF_UNSPEC, 0, 0, 0, 0, 0, 0), rtnl.rule)
    return items


def device(sock: Socket, scope: Device) -> list[Item]:
    """An interface of the machine's and its addresses, as far as they concern us."""
    link = _one_link(sock, scope.name)
    if link is None:
        return []
    addresses = _addresses(sock, link.ifindex, {link.ifindex: link.name}, HOST)
    return [link.port(HOST), *(one for one in addresses if isinstance(one, Addr) and one.address in scope.addresses)]


def pod_link(sock: Socket, scope: PodLink) -> list[Item]:
    """The host's end of one pod's link, its neighbours and its routes."""
    link = _one_link(sock, scope.name)
    if link is None or not has_our_name(link):
        return []
    names = {link.ifindex: link.name}
    return [link.veth(), *_neighbours(sock, link.ifindex, names, HOST), *_routes(sock, link.ifindex, names, HOST)]


def pod(sock: Socket, scope: Pod) -> list[Item]:
    """One pod's interface with its addresses, permanent neighbours and our routes; *sock* is open in there."""
    link = _one_link(sock, scope.ifname)
    if link is None:
        return []
    names, place = {link.ifindex: link.name}, scope.netns
    items: list[Item] = [link.port(place)]
    items += _addresses(sock, link.ifindex, names, place)
    items += _neighbours(sock, link.ifindex, names, place)
    items += _routes(sock, link.ifindex, names, place)
    return items


def sysctls(place: str, paths: tuple[str, ...]) -> list[Sysctl]:
    """The values of the calling thread's namespace; one that does not exist is left out."""
    found = []
    for path in paths:
        try:
            found.append(Sysctl(place, path, (_PROC_SYS / path).read_text().strip()))
        except FileNotFoundError:
            continue
    return found


def has_our_name(link: rtnl.Link) -> bool:
    """Whether a link is ours by its name and its kind. Where the name is that of one attachment, a hash of it, that is
    enough, whatever somebody made of the alias."""
    return _is_vxlan(link) or (link.kind == "veth" and link.name.startswith(POD_LINK_PREFIX))


def is_pod_link(link: rtnl.Link) -> bool:
    """Whether a link is the host's end of a pod's, of whichever: the alias may not be there yet."""
    return link.kind == "veth" and has_our_name(link) and (not link.alias or link.alias.startswith(ALIAS))


def _is_vxlan(link: rtnl.Link) -> bool:
    return link.name == VXLAN_LINK and link.kind == "vxlan"


def _skip_stats(index: int) -> bytes:
    mask = rtnl.attr(rtnl.IFLA_EXT_MASK, rtnl.RTEXT_FILTER_SKIP_STATS.to_bytes(4, "little"))
    return rtnl.IFINFO.pack(AF_UNSPEC, 0, index, 0, 0) + mask


def links(sock: Socket, names: Sequence[str]) -> list[rtnl.Link | None]:
    """The links with these names, None where there is none."""
    asked = [_skip_stats(0) + rtnl.attr(rtnl.IFLA_IFNAME, name.encode() + b"\0") for name in names]
    return [rtnl.link(answer) if answer is not None else None for answer in sock.get(RTM_GETLINK, asked)]


def _one_link(sock: Socket, name: str) -> rtnl.Link | None:
    (link,) = links(sock, [name])
    return link


def _addresses(sock: Socket, index: int, names: Mapping[int, str], place: str) -> list[Item]:
    asked = rtnl.IFADDR.pack(AF_UNSPEC, 0, 0, 0, index)
    return list(sock.dump(RTM_GETADDR, asked, lambda body: rtnl.addr(body, place, names)))


def _neighbours(sock: Socket, index: int, names: Mapping[int, str], place: str) -> list[Item]:
    asked = rtnl.NDMSG.pack(AF_UNSPEC, 0, 0, 0, 0)
    if index:
        asked += rtnl.attr(_NDA_IFINDEX, index.to_bytes(4, "little"))
    return list(sock.dump(RTM_GETNEIGH, asked, lambda body: rtnl.neigh(body, place, names)))


def _fdb(sock: Socket, vxlan: rtnl.Link) -> list[Item]:
    asked = rtnl.NDMSG.pack(AF_BRIDGE, vxlan.ifindex, 0, 0, 0)
    return list(sock.dump(RTM_GETNEIGH, asked, lambda body: rtnl.fdb(body, vxlan.name)))


def _routes(sock: Socket, index: int, names: Mapping[int, str], place: str, table: int = MAIN) -> list[Item]:
    """The routes of ours through one link, or with *index* 0 all; *table* 0 is every table."""
    asked = rtnl.RTMSG.pack(AF_UNSPEC, 0, 0, 0, table, PROTOCOL, 0, 0, 0)
    if index:
        asked += rtnl.attr(rtnl.RTA_OIF, index.to_bytes(4, "little"))
    return list(sock.dump(RTM_GETROUTE, asked, lambda body: rtnl.route(body, place, names)))
