"""The link that leads to the other nodes, and what of it decides how they are reached."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from socket import AF_UNSPEC

from netaddr import IPAddress, IPNetwork
from pyroute2.netlink.rtnl import RTM_GETADDR, RTM_GETLINK

from cni.errors import ConfigInvalid
from dataplane import linkmsg, routemsg
from dataplane.items import HOST
from dataplane.netlink import Socket
from dataplane.refusal import translated
from dataplane.ways import Packet, ways


@dataclass(frozen=True, slots=True)
class Uplink:
    """Facts of one link: *addresses* with their prefix lengths; *mtu* in bytes; *is_up* with carrier."""

    name: str
    mtu: int
    addresses: tuple[IPNetwork, ...]
    is_up: bool = True
    connected: tuple[IPNetwork, ...] = field(init=False, compare=False)
    """The networks that the link's addresses are in: what is on-link."""
    _texts: tuple[str, ...] = field(init=False, repr=False)
    """The addresses again, for two uplinks to be told apart: to netaddr all addresses of one network are equal."""
    _ranges: tuple[tuple[int, int, int], ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_texts", tuple(map(str, self.addresses)))
        connected = tuple(dict.fromkeys(address.cidr for address in self.addresses))
        object.__setattr__(self, "connected", connected)
        # As numbers: thousands of peers are asked about.
        object.__setattr__(self, "_ranges", tuple((one.version, one.first, one.last) for one in connected))

    def is_on_link(self, address: IPAddress) -> bool:
        """Whether *address* is reached without a router."""
        version, number = address.version, int(address)
        return any(version == family and first <= number <= last for family, first, last in self._ranges)


def find(name: str, addresses: Collection[IPAddress], others: Collection[IPAddress] = ()) -> Uplink:
    """The link called *name* or, where that is '', the one that has one of the node's *addresses*. Where that is the
    loopback's, as on hosts that announce their address themselves, it is the one that leads to *others*, other nodes'.

    ConfigInvalid: there is none, or the node's addresses are on several; it says which links have what. KernelRefused,
    TryAgain: they cannot be looked at.
    """
    with translated("look at the node's links and addresses"), closing(Socket()) as sock:
        asked = linkmsg.IFINFO.pack(AF_UNSPEC, 0, 0, 0, 0)
        links = {link.ifindex: link for link in sock.dump(RTM_GETLINK, asked, linkmsg.link)}
        names = {index: link.name for index, link in links.items()}
        held: dict[str, list[IPNetwork]] = {link.name: [] for link in links.values()}
        request = routemsg.IFADDR.pack(AF_UNSPEC, 0, 0, 0, 0)
        for found in sock.dump(RTM_GETADDR, request, lambda body: routemsg.addr(body, HOST, names)):
            held[found.dev].append(IPNetwork(found.address))
    chosen = name or _chosen(links.values(), held, addresses, others)
    for link in links.values():
        if link.name == chosen:
            return Uplink(link.name, link.mtu, tuple(sorted(held[link.name])), link.up and link.carrier)
    raise ConfigInvalid(f"uplink is {name}, but there is no such link", f"links: {_shown(held)}")


def by_mac() -> dict[str, str]:
    """The names of the machine's own links by their hardware addresses: of several with the same, such as a VLAN on top
    of another, the one that is no such thing.

    KernelRefused, TryAgain: they cannot be looked at."""
    with translated("look at the node's links"), closing(Socket()) as sock:
        links = sock.dump(RTM_GETLINK, linkmsg.IFINFO.pack(AF_UNSPEC, 0, 0, 0, 0), linkmsg.link)
    own = [link for link in links if not link.is_pod_link]
    own.sort(key=lambda link: link.kind in ("", "veth"))
    return {link.mac: link.name for link in own}


def _chosen(
    links: Collection[linkmsg.Link],
    held: Mapping[str, Sequence[IPNetwork]],
    addresses: Collection[IPAddress],
    others: Collection[IPAddress],
) -> str:
    having = [link for link in links if any(one.ip in addresses for one in held[link.name])]
    outside = [link for link in having if not link.is_loopback]
    if outside or not having:
        return _by_address(outside, held, addresses)
    names = {way.dev for way in ways(Packet(str(one)) for one in others) if way.kind == "unicast"}
    leading = [link for link in links if link.name in names]  # of those that were there when they were looked at
    if not leading:
        raise ConfigInvalid(
            f"this node's address is on {having[0].name}, and no route leads to another node",
            "set uplink to the link that leads to the other nodes",
        )
    return min(leading, key=lambda link: (link.mtu, link.name)).name


def _by_address(
    having: Sequence[linkmsg.Link], held: Mapping[str, Sequence[IPNetwork]], addresses: Collection[IPAddress]
) -> str:
    wanted = ", ".join(map(str, addresses))
    if not having:
        raise ConfigInvalid(
            f"no link has an address of this node ({wanted})",
            f"correct the list of nodes, or set uplink; links: {_shown(held)}",
        )
    # Others give a node's address to a link of theirs as well, as kube-proxy does for the addresses of Services: such a
    # link knows no network, or leads nowhere.
    having = [one for one in having if any(net.ip in addresses and net.size > 1 for net in held[one.name])] or having
    having = [one for one in having if one.up and one.carrier] or having
    if len(having) > 1:
        raise ConfigInvalid(
            f"several links have addresses of this node ({wanted}): {', '.join(sorted(link.name for link in having))}",
            "set uplink to the one that leads to the other nodes",
        )
    return having[0].name


def _shown(held: Mapping[str, Sequence[IPNetwork]]) -> str:
    return "; ".join(f"{name} {' '.join(map(str, networks)) or 'without address'}" for name, networks in held.items())
