"""Whose encapsulated packets a node takes, as an nft table: those of its peers, by where the way to each leads. Pure.

VXLAN itself asks nobody who sends (RFC 7348, section 7): whoever reached a node by UDP could have had packets with any
source, another pod's say, come out of the overlay. Packets of another VXLAN on the same port are none of ours, as the
VNI tells; one in which it cannot be seen, the first fragment of a datagram cut short, may be ours and is taken for it.

What a node *forwards* to a peer is held to the same: it might masquerade, and the peer would take a pod's packets for
the node's own. On the way out of the overlay nothing has a link-local source, since every neighbour there is permanent.

Tables: one address per peer, in a set: a packet costs one look-up there, and one in the routing table. A change of the
list writes the whole anew in one transaction.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from netaddr import IPAddress

from backends.nodeplan import OVERLAY
from dataplane.items import NftTable
from dataplane.links import VXLAN_LINK
from dataplane.nft import OUR_CHAIN

_VNI: Final = "@th,96,24"
"""Behind the eight bytes of UDP's header and four of VXLAN's."""


def table(vni: int, port: int, version: int, peers: Collection[IPAddress]) -> NftTable:
    """The table for an underlay of IP *version*, over which *peers* send to *port*."""
    word, kind = ("ip", "ipv4_addr") if version == 4 else ("ip6", "ipv6_addr")
    found = ", ".join(str(address) for address in sorted(set(peers)))
    elements = f"\n\t\telements = {{ {found} }}" if found else ""
    text = f"""\
	set peers {{
		type {kind}{elements}
	}}
	chain encapsulated {{
		{_VNI} != {vni} return
		{word} saddr != @peers drop
		fib saddr . iif oif missing drop
	}}
	chain {OUR_CHAIN} {{
		type filter hook input priority raw; policy accept;
		meta nfproto ipv{version} udp dport {port} jump encapsulated
	}}
	chain onward {{
		type filter hook forward priority raw; policy accept;
		{word} daddr @peers udp dport {port} jump encapsulated
	}}
	chain inner {{
		type filter hook prerouting priority raw; policy accept;
		iifname "{VXLAN_LINK}" ip6 saddr fe80::/10 drop
	}}"""
    return NftTable(*OVERLAY, text)
