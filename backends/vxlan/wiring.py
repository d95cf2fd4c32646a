"""A VXLAN overlay (RFC 7348): pods' packets in UDP between nodes that need only reach each other by IP.

A packet from pod to pod: the pod's link, this host's main table (the peer's pod CIDR by nexthop object), the VXLAN
device, which wraps it in UDP to the peer's address, any network in between, the peer's device, its route to the pod's
address, the pod's link. Packets to and from outside the cluster are not wrapped.

Nothing is exchanged, learned or flooded: a peer's VTEP has a hardware address that follows from its node address. It is
the next hop to IPv4 pods by the first address of theirs, to IPv6 pods by the link-local address that follows from the
hardware address: neither family needs the other, which a host may have switched off. One forwarding entry, and for each
family a neighbour entry, a nexthop object and a route per peer are computed from the list of nodes: thousands are fine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from netaddr import EUI, IPAddress

from backends import nodeplan, podlink
from backends.plainroutes import ByNexthops, off_link, routes
from backends.podcidrs import own_addresses
from backends.site import Site, pod_mtu
from backends.vxlan import encapsulated
from backends.vxlan.table import VxlanTable
from backends.wiring import Unserved, Wired
from cluster.peers import Peer
from cni.errors import ConfigInvalid
from dataplane.items import HOST, Addr, Item, Key, Neigh, Nexthop, Sysctl, plan
from dataplane.links import VXLAN_LINK, Fdb, Vxlan
from dataplane.ours import DEVICE_MAC
from ipam.store import Record

OVERHEAD: Final = {4: 50, 6: 70}
"""Bytes, by the underlay's family: inner Ethernet 14, VXLAN 8, UDP 8, IP 20 or 40."""
_CHECKSUMS_WORK: Final = (5, 7)
"""Since this kernel NAT with checksum offload on the device does not spoil packets (63 s stalls)."""
USUAL: Final = VxlanTable()
"""What the operator wants who says nothing."""


class VxlanWiring:
    """`backends.wiring.Wiring` by VXLAN. ConfigInvalid: no underlay address, or the MTU is impossible."""

    def __init__(self, site: Site, table: VxlanTable = USUAL) -> None:
        self._site, self._table = site, table
        self._underlay = _underlay(site, table.underlay)
        self._peers = nodeplan.Peers(
            site, (*nodeplan.common(site), *self._device()), self._share, self._of_all
        )
        self.reach = ByNexthops(site, own_addresses)
        self.mtu = pod_mtu(site, OVERHEAD[self._underlay.version])

    def pod(self, record: Record) -> dict[Key, Item]:
        """See `backends.wiring.Wiring.pod`."""
        return podlink.pod(record, self.mtu, self._site)

    def node(self, peers: Collection[Peer]) -> Wired:
        """See `backends.wiring.Wiring.node`."""
        return self._peers.wired(peers)

    def _of_all(self, nodes: Sequence[Peer]) -> Iterator[Item]:
        version = self._underlay.version
        yield from nodeplan.first(self._site, nodes)
        addresses = (node.address(version) for node in nodes if node.name != self._site.here.name)
        peers = [one for one in addresses if one is not None]
        yield encapsulated.table(self._table.vni, self._table.port, version, peers)

    def _share(self, peer: Peer, ids: Mapping[int, int]) -> nodeplan.Share:
        address = peer.address(self._underlay.version)
        is_direct = {family: self._is_direct_for(peer, family) for family in ids}
        if address is None and not all(is_direct.values()):
            why = (
                f"{peer.name} has no IPv{self._underlay.version} address, and this node's underlay is {self._underlay}"
            )
            return nodeplan.Share(peer, ids, {}, (Unserved(peer.name, why),))
        items: list[Item] = []
        if address is not None:
            mac = vtep_mac(address)
            if mac == vtep_mac(self._underlay):
                why = f"{peer.name} would have this node's hardware address in the overlay: change a node's address"
                return nodeplan.Share(peer, ids, {}, (Unserved(peer.name, why),))
            items.append(Fdb(VXLAN_LINK, mac, str(address)))
        for family, number in ids.items():
            items += routes(peer, family, number)
            if is_direct[family]:
                items.append(Nexthop(number, str(peer.address(family)), self._site.uplink.name))
            elif address is not None:
                via = str(gateway(peer, family, mac))
                items += [Neigh(HOST, VXLAN_LINK, via, mac), Nexthop(number, via, VXLAN_LINK, onlink=True)]
        return nodeplan.Share(peer, ids, plan(*items), ())

    def _device(self) -> Iterator[Item]:
        local = self._underlay
        yield Vxlan(
            VXLAN_LINK,
            self._table.vni,
            self._table.port,
            str(local),
            vtep_mac(local),
            self._site.uplink.mtu - OVERHEAD[local.version],
            tx_checksum=self._site.options.kernel >= _CHECKSUMS_WORK,
        )
        # What comes from outside by a peer goes back by the uplink, and what pods send to another node itself, or one
        # that is reached by another backend still, comes by the uplink and goes back by the overlay.
        yield nodeplan.loose(VXLAN_LINK)
        yield nodeplan.loose(self._site.uplink.name)
        if 6 in self._site.families:  # hardened hosts switch IPv6 off on every new device
            yield Sysctl(HOST, f"net/ipv6/conf/{VXLAN_LINK}/disable_ipv6", "0")
        for address in own_addresses(self._site.here):
            yield Addr(HOST, VXLAN_LINK, f"{address}/{podlink.BITS[address.version]}")

    def _is_direct_for(self, peer: Peer, family: int) -> bool:
        return self._table.direct and not off_link(self._site, peer, family)


def vtep_mac(address: IPAddress) -> str:
    """The hardware address of the VTEP at *address*: 02:52 (locally administered, 'R') and the IPv4 address, or four
    bytes of an IPv6 address's hash."""
    octets = address.packed if address.version == 4 else hashlib.sha256(address.packed).digest()[:4]
    return DEVICE_MAC + octets.hex(":")


def link_local(mac: str) -> IPAddress:
    """The link-local address that follows from a hardware address (RFC 4291, appendix A)."""
    return EUI(mac).ipv6_link_local()


def gateway(peer: Peer, family: int, mac: str) -> IPAddress:
    """What stands for the VTEP of *peer*, with the hardware address *mac*, as next hop to its pods of *family*."""
    if family == 6:
        return link_local(mac)
    # Only the neighbour entry makes something of it: one that is a pod's does, too, where there is no other.
    ranges = [IPAddress(cidr.first, 4) for cidr in sorted(peer.pod_cidrs) if cidr.version == 4]
    return next((one for one in own_addresses(peer) if one.version == 4), ranges[0])


def _underlay(site: Site, choice: str) -> IPAddress:
    wanted = {"auto": (4, 6), "ipv4": (4,), "ipv6": (6,)}[choice]
    for family in wanted:
        address = site.here.address(family)
        if address is not None:
            return address
    families = " or ".join(f"IPv{family}" for family in wanted)
    raise ConfigInvalid(
        f"vxlan.underlay is {choice}, but this node has no {families} address",
        "give it one in the list of nodes, or choose another underlay",
    )
