"""Whom this node speaks BGP with, and what it announces: the topology, worked out. Pure.

`mesh`: every node with every other. `reflectors`: every node with a few, which pass on what they hear; the others need
only those. `tor`: every node with the routers that its labels choose. Nodes that announce themselves as next hops must
share a segment; routers are next hops themselves.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from netaddr import IPAddress, IPNetwork

from backends.bgp.table import BgpTable
from backends.nodeplan import families
from backends.plainroutes import off_link
from backends.site import Site
from backends.wiring import Unserved
from cluster import addresses
from cluster.peers import Peer

NAME_MAX: Final = 60
"""Characters of a session's name: BIRD's symbols have 64 (conf/cf-lex.l, SYM_MAX_LEN)."""
_ODD: Final = re.compile(r"[^A-Za-z0-9_.:-]", re.ASCII)
"""What a symbol in quotes cannot have (conf/cf-lex.l)."""
_HOSTS: Final = 222
"""First octets that a host's address can have: 1 to 223, but for 127."""


@dataclass(frozen=True, slots=True)
class Session:
    """One session with *peer*, a node or a router, at *address*; *name* is what BIRD calls it.

    *channels* are the families whose routes are exchanged. *hops* 1 is a neighbour on a segment of this node's. To a
    *client* a reflector passes on everything. *source* is our end's address, where the kernel's choice is not ours.
    """

    name: str
    peer: str
    address: IPAddress
    asn: int
    local_asn: int
    channels: tuple[int, ...]
    source: IPAddress | None = None
    hops: int = 1
    is_client: bool = False
    password_file: str = ""

    @property
    def is_internal(self) -> bool:
        """Whether both ends are in one autonomous system."""
        return self.asn == self.local_asn


@dataclass(frozen=True, slots=True)
class Speech:
    """All that *node*, in the autonomous system *asn*, says, and to whom. *own* are the ranges of its pods; *announced*
    are others besides."""

    node: str
    asn: int
    router_id: str
    sessions: tuple[Session, ...]
    own: tuple[IPNetwork, ...]
    announced: tuple[IPNetwork, ...]
    unserved: tuple[Unserved, ...] = ()

    @property
    def asns(self) -> tuple[int, ...]:
        """The numbers that the node has, of which a session may have one of its own."""
        return tuple(sorted({one.local_asn for one in self.sessions}))

    @property
    def families(self) -> frozenset[int]:
        """Those of which routes are exchanged."""
        return frozenset(family for one in self.sessions for family in one.channels)


def speech(table: BgpTable, site: Site, peers: Collection[Peer], pods: Collection[IPAddress] = ()) -> Speech:
    """What this node says where *pods* have these addresses: of single addresses that are to be announced, those that
    a pod has here."""
    others = sorted((peer for peer in peers if peer.name != site.here.name), key=lambda one: one.name)
    made = {"mesh": _mesh, "reflectors": _reflectors, "tor": _routers}[table.topology]
    sessions: dict[str, Session] = {}
    unserved = []
    for one in made(table, site, others):
        if isinstance(one, Unserved):
            unserved.append(one)
        else:
            sessions[one.name] = one
    chosen = (one for one in table.announce if one.size > 1 or one.ip in pods)
    return Speech(
        site.here.name,
        site.here.asn or table.asn,
        _router_id(site.here, others),
        tuple(sessions[name] for name in sorted(sessions)),
        site.here.pod_cidrs,
        tuple(sorted(chosen)),
        tuple(unserved),
    )


Found = Iterator[Session | Unserved]


def _mesh(table: BgpTable, site: Site, others: Collection[Peer]) -> Found:
    for peer in others:
        yield from _with_node(table, site, peer)


def _reflectors(table: BgpTable, site: Site, others: Collection[Peer]) -> Found:
    here = _is_reflector(table, site.here)
    for peer in others:
        is_other = _is_reflector(table, peer)
        if here or is_other:
            yield from _with_node(table, site, peer, is_client=here and not is_other)
        else:
            yield from _off_link(table, site, peer)
    held = {str(address) for peer in (site.here, *others) for address in peer.addresses}
    names = {peer.name for peer in (site.here, *others)}
    for text in table.reflectors:
        if text not in held and text not in names:
            yield from _with_reflector(table, site, text)


def _routers(table: BgpTable, site: Site, others: Collection[Peer]) -> Found:
    chosen = [one for one in table.router if one.is_for(site.here)]
    if not chosen:
        labels = ", ".join(f"{key}={value}" for key, value in site.here.labels) or "no labels"
        why = f"no [[bgp.router]] is for this node, which has {labels}: its pods are announced to nobody"
        yield Unserved(site.here.name, why)
    given: set[IPAddress] = set()
    for router in chosen:
        if router.address in given:
            why = f"several [[bgp.router]] with its address {router.address} are for {site.here.name}: the first counts"
            yield Unserved(router.name or str(router.address), why)
            continue
        given.add(router.address)
        own = site.here.address(router.address.version)
        if router.hops > 1 and own is None:
            why = f"{site.here.name} has no IPv{router.address.version} address to speak with it; give it one"
            yield Unserved(router.name or str(router.address), why)
            continue
        name = router.name or str(router.address)
        yield Session(
            _symbol(f"{router.name}.{router.address}" if router.name else f"router.{router.address}"),
            name,
            router.address,
            router.asn,
            site.here.asn or router.local_asn or table.asn,
            _channels(table, router.address.version, site.families),
            source=own if router.hops > 1 else None,
            hops=router.hops,
            password_file=router.password_file or table.password_file,
        )


def _with_node(table: BgpTable, site: Site, peer: Peer, *, is_client: bool = False) -> Found:
    """The sessions with another node: by which addresses, that follows from the families of the pods."""
    lost = dict.fromkeys(one.why for one in _off_link(table, site, peer))
    yield from (Unserved(peer.name, why) for why in lost)
    for version in _transports(table, site, peer):
        address = peer.address(version)
        own = site.here.address(version)
        if address is None or own is None:
            continue
        is_near = site.uplink.is_on_link(address)
        if not is_near and table.topology == "mesh":
            continue
        yield Session(
            _symbol(f"{peer.name}.v{version}"),
            peer.name,
            address,
            peer.asn or table.asn,
            site.here.asn or table.asn,
            _channels(table, version, site.families),
            source=own,
            hops=1 if is_near else table.hops,
            is_client=is_client,
            password_file=table.password_file,
        )


def _with_reflector(table: BgpTable, site: Site, text: str) -> Found:
    """The session with a reflector that is no node."""
    try:
        address = addresses.address(text)
    except ValueError:
        yield Unserved(text, "bgp.reflectors names it, and it is neither a node of the list nor an address")
        return
    own = site.here.address(address.version)
    if own is None:
        yield Unserved(text, f"{site.here.name} has no IPv{address.version} address to speak with it; give it one")
        return
    yield Session(
        _symbol(f"reflector.{text}"),
        text,
        address,
        table.asn,
        site.here.asn or table.asn,
        _channels(table, address.version, site.families),
        source=own,
        hops=1 if site.uplink.is_on_link(address) else table.hops,
        password_file=table.password_file,
    )


def _off_link(table: BgpTable, site: Site, peer: Peer) -> Iterator[Unserved]:
    """Why *peer* cannot be a next hop."""
    for family in families(peer):
        why = off_link(site, peer, 6 if table.extended_next_hop else family)
        if why:
            yield Unserved(peer.name, why.replace("use backend vxlan", 'use bgp.topology = "tor"'))


def _transports(table: BgpTable, site: Site, peer: Peer) -> tuple[int, ...]:
    """The families of the addresses between which sessions are: one for each family of pods, or the newer one alone."""
    if table.extended_next_hop:
        return (6,)
    return tuple(family for family in site.families if family in families(peer))


def _channels(table: BgpTable, version: int, pods: Collection[int]) -> tuple[int, ...]:
    if table.extended_next_hop and version == 6:
        return tuple(sorted(pods))
    return (version,)


def _is_reflector(table: BgpTable, peer: Peer) -> bool:
    return peer.name in table.reflectors or any(str(one) in table.reflectors for one in peer.addresses)


def _router_id(here: Peer, others: Collection[Peer]) -> str:
    """The node's IPv4 address; without one, a number that follows from its name, and that no other node has: between
    two of one system with one ID no session begins (RFC 6286, section 2.2), and what a reflector passes on from one to
    the other is dropped (RFC 4456, section 8). All nodes come to the same, as they go by one list, in order of names.
    """
    taken = {int(address) for one in others if (address := one.address(4)) is not None}
    address = here.address(4)
    if address is not None:
        return str(address)
    for name in sorted(one.name for one in (here, *others) if one.address(4) is None):
        number = next(one for one in _numbers(name) if one not in taken)
        if name == here.name:
            break
        taken.add(number)
    return str(IPAddress(number, 4))


def _numbers(name: str) -> Iterator[int]:
    """Those that a node of that *name* may have. RFC 6286 has them be any; routers of before, and many since, refuse
    what could not be a host's address (RFC 4271, section 6.2), so they are in 1.0.0.0 to 126.255.255.255 or 128.0.0.0
    to 223.255.255.255."""
    for salt in itertools.chain([""], map(" {}".format, itertools.count(2))):
        drawn = int.from_bytes(hashlib.sha256(f"{name}{salt}".encode()).digest()[:8], "big")
        first, rest = divmod(drawn % (_HOSTS << 24), 1 << 24)
        yield (first + (1 if first < 126 else 2) << 24) + rest


def _symbol(name: str) -> str:
    """A name as BIRD can have it, which no other has; whatever the list of nodes calls a node."""
    plain = _ODD.sub("_", name)
    if plain == name and len(name) <= NAME_MAX:
        return name
    return f"{plain[: NAME_MAX - 9]}.{hashlib.sha256(name.encode()).hexdigest()[:8]}"
