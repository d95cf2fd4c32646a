"""What a node needs whatever carries packets to its peers: forwarding, no loops, no forged sources, masquerade."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Final, NamedTuple

from netaddr import IPNetwork

from backends.wiring import Site, Unserved
from cluster.peers import Peer
from dataplane.items import HOST, POD_LINK_PREFIX, Item, Key, NftTable, Route, Sysctl

TABLE: Final = ("inet", "routable")
"""Family and name of the one nft table of ours."""
_NEXTHOP_BASE: Final = 1 << 30
_FORWARDING: Final = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}

# A pod's packet must come from where a packet to its source address would go: the same pod's link. Link-local
# sources are the neighbour discovery of a pod for its own link and go no further than this host.
_SOURCE_CHECK: Final = f"""\
	chain source {{
		type filter hook prerouting priority raw; policy accept;
		iifname "{POD_LINK_PREFIX}*" ip6 saddr fe80::/10 ip6 daddr {{ fe80::/10, ff02::/16 }} accept
		iifname "{POD_LINK_PREFIX}*" fib saddr . iif oif missing drop
	}}"""


def common(site: Site) -> Iterator[Item]:
    """The items of every node."""
    for cidr in site.here.pod_cidrs:
        # Packets to an address that no pod has would follow the default route and come back, again and again.
        yield Route(HOST, str(cidr), unreachable=True)
    for family in site.families:
        yield Sysctl(HOST, _FORWARDING[family], "1")
    yield table(site.here.pod_cidrs, site.options.masquerade)


def table(pod_cidrs: Sequence[IPNetwork], masquerade: Sequence[IPNetwork] | None) -> NftTable:
    """The nft table: source check of every pod and, unless *masquerade* is None, the node's address for what pods
    send outside of those ranges. A family of which no range is given is not masqueraded."""
    chains = [_SOURCE_CHECK]
    if masquerade is not None:
        rules = [rule for family in (4, 6) for rule in _masquerade(family, pod_cidrs, masquerade)]
        body = "".join(f"\t\t{rule}\n" for rule in rules)
        chains.append(f"\tchain outbound {{\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n{body}\t}}")
    return NftTable(*TABLE, "\n".join(chains))


def nexthop_ids(peers: Iterable[Peer]) -> dict[tuple[str, int], int]:
    """The id of each peer's nexthop object, by the peer's name and the family of the routes through it.

    The same for every backend, so that a change of backend replaces the nexthops under routes that stay. Ids follow
    from the names alone: a peer more or less leaves the others' as they are, but for the rare ones that collide.
    """
    natural = {(one.name, family): nexthop_id(one.name, family) for one in _sorted(peers) for family in families(one)}
    return {**natural, **moved(natural)}


def moved(natural: Mapping[tuple[str, int], int]) -> dict[tuple[str, int], int]:
    """The ids of those whose own one an earlier peer, by name, has already: the next that is nobody's."""
    owners: dict[int, tuple[str, int]] = {}
    late = [key for key, number in natural.items() if owners.setdefault(number, key) is not key]
    found: dict[tuple[str, int], int] = {}
    for key in late:
        number = natural[key]
        while number in owners:
            number = _NEXTHOP_BASE | (number + 1) % _NEXTHOP_BASE
        owners[number] = key
        found[key] = number
    return found


def nexthop_id(name: str, family: int) -> int:
    """The id of a nexthop object that collides with no other."""
    digest = hashlib.sha256(f"{name}/{family}".encode()).digest()
    return _NEXTHOP_BASE | int.from_bytes(digest[:4], "big") % _NEXTHOP_BASE


class Part(NamedTuple):
    """What one peer needs of the kernel, by the ids of its nexthops; or why it cannot be reached."""

    peer: Peer
    ids: Mapping[int, int]
    items: Mapping[Key, Item]
    unserved: tuple[Unserved, ...]


class Parts:
    """The parts of all peers, each worked out when it is new or has changed: *make* does that, and is pure.

    With thousands of peers, a list that differs by one must not cost more than that one.
    """

    def __init__(self, make: Callable[[Peer, Mapping[int, int]], Part]) -> None:
        self._make = make
        self._known: dict[str, Part] = {}
        self._ids: dict[str, dict[int, int]] = {}

    def of(self, peers: Iterable[Peer]) -> list[Part]:
        """In the order of the peers' names."""
        others = _sorted(peers)
        self._ids = {peer.name: self._natural(peer) for peer in others}
        natural = {(name, family): number for name, ids in self._ids.items() for family, number in ids.items()}
        late = moved(natural)
        wanted = {**self._ids}
        for (name, family), number in late.items():
            wanted[name] = {**wanted[name], family: number}
        parts = [self._part(peer, wanted[peer.name]) for peer in others]
        self._known = {part.peer.name: part for part in parts}
        return parts

    def _natural(self, peer: Peer) -> dict[int, int]:
        """The ids that a peer has unless they collide."""
        known = self._known.get(peer.name)
        if known is not None and known.peer is peer:
            return self._ids[peer.name]
        return {family: nexthop_id(peer.name, family) for family in families(peer)}

    def _part(self, peer: Peer, ids: Mapping[int, int]) -> Part:
        known = self._known.get(peer.name)
        if known is not None and known.ids == ids and (known.peer is peer or known.peer == peer):
            return known
        return self._make(peer, ids)


def _sorted(peers: Iterable[Peer]) -> list[Peer]:
    return sorted(peers, key=attrgetter("name"))


def families(peer: Peer) -> tuple[int, ...]:
    """The families of a peer's pods."""
    versions = [cidr.version for cidr in peer.pod_cidrs]
    return tuple(family for family in (4, 6) if family in versions)


def _masquerade(family: int, pod_cidrs: Sequence[IPNetwork], routable: Collection[IPNetwork]) -> Iterator[str]:
    word = {4: "ip", 6: "ip6"}[family]
    ours = [str(cidr) for cidr in pod_cidrs if cidr.version == family]
    others = [str(cidr) for cidr in routable if cidr.version == family]
    if ours and others:
        ranges = f"{word} saddr {{ {', '.join(ours)} }} {word} daddr != {{ {', '.join(others)} }}"
        yield f'{ranges} oifname != "{POD_LINK_PREFIX}*" masquerade'
