"""Leases that the kernel still knows when the journal does not: pure.

A link of ours without a record at start means that the journal was lost: a lease is saved before its link is made
and dropped after it is removed. The link's alias carries the attachment, and what hangs on the link the addresses.
"""

from __future__ import annotations

from collections.abc import Collection, Set

from netaddr import IPAddress, IPNetwork

from backends.podlink import link_name, parse_alias
from cni.spec import Attachment
from dataplane.items import Neigh, Plan, Route
from dataplane.links import Veth
from ipam.lease import Block, Lease, Leased
from ipam.moment import Moment
from ipam.store import Record

OWNER = "adopted"
"""The owner of the block of an address that is in none of this node's blocks any more."""


def adopted(have: Plan, known: Collection[Attachment], blocks: Set[Block], now: Moment) -> list[Record]:
    """Records for the pods' links in *have*, what is ours on the host, whose attachments are not *known*.

    *now* is when they are taken to have begun, since nothing tells any more.
    """
    found = []
    for item in have.values():
        named = parse_alias(item.alias) if isinstance(item, Veth) else None
        if isinstance(item, Veth) and named and named.who not in known and link_name(named.who) == item.name:
            addresses = sorted(_addresses(have, item.name), key=lambda address: (address.version, int(address)))
            if addresses:
                leased = tuple(Leased(address, _block(address, blocks)) for address in addresses)
                mac = _mac(have, item.name)
                found.append(Record(Lease(named.who, leased), named.netns, mac, item.mtu, "", now))
    return found


def _addresses(have: Plan, link: str) -> list[IPAddress]:
    routes = (item for item in have.values() if isinstance(item, Route) and item.dev == link)
    return [IPAddress(route.dst.partition("/")[0]) for route in routes]


def _mac(have: Plan, link: str) -> str:
    return next((item.mac for item in have.values() if isinstance(item, Neigh) and item.dev == link), "")


def _block(address: IPAddress, blocks: Set[Block]) -> Block:
    for block in blocks:
        if address in block.network:
            return block
    return Block(IPNetwork(address), OWNER, reserve=False)
