"""What a node needs whatever carries packets to its peers: forwarding, no loops, no forged sources, masquerade."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Final, NamedTuple

from netaddr import IPNetwork, cidr_merge

from backends.site import Site
from backends.wiring import Unserved, Wired
from cluster.peers import Peer
from dataplane.forward import accepts
from dataplane.items import (
    HOST,
    MAIN,
    POD_GROUP,
    POD_LINK_PREFIX,
    Item,
    Key,
    NftTable,
    Route,
    Rule,
    Sysctl,
    nexthop_key,
    plan,
)
from dataplane.nft import OUR_CHAIN
from dataplane.ours import DYING, DYING_BITS, NEXTHOPS, RULE

TABLE: Final = ("inet", "routable")
"""Family and name of the nft table that every node has."""
OVERLAY: Final = ("inet", "routable-overlay")
"""And of the one that goes with an overlay: see `backends.vxlan.encapsulated`."""
NFT_TABLES: Final = (TABLE, OVERLAY)
"""All that there may be of ours."""
_NEXTHOP_BASE: Final = NEXTHOPS.start
_FORWARDING: Final = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}

# A pod's packet must come from where a packet to its source address would go: the same pod's link. From a link-local
# source nothing is taken but what neighbour discovery needs on the pod's own link (RFC 4861, section 7.1): no router
# advertisement, no redirect, no membership report.
#
# Pods' links are told by their name and the link group that they have from the moment of their creation: the name alone
# may begin another's link, the group alone may be another's, too. The set is one of constants, so nothing has to be
# changed here when a pod comes or goes, and links that are being deleted are checked to their last packet.
_OUT_OF_POD: Final = f"{{ {POD_GROUP}, {DYING}-{DYING + (1 << DYING_BITS) - 1} }}"
SOURCE_CHECK: Final = f"""\
	chain pod {{
		ip6 saddr fe80::/10 ip6 daddr {{ fe80::/10, ff02::/16 }} ip6 hoplimit 255 \
			icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
		ip6 saddr fe80::/10 drop
		fib saddr . iif oif missing drop
	}}
	chain {OUR_CHAIN} {{
		type filter hook prerouting priority raw; policy accept;
		iifname "{POD_LINK_PREFIX}*" iifgroup {_OUT_OF_POD} jump pod
	}}"""


def common(site: Site) -> Iterator[Item]:
    """The items of every node."""
    for cidr in site.here.pod_cidrs:
        # Packets to an address that no pod has would follow the default route and come back, again and again. Where
        # there is one address alone, that route would stand in the place of the pod's.
        if cidr.size > 1:
            yield Route(HOST, str(cidr), unreachable=True)
    yield from forwarding(site, site.families)
    yield from accepts(site.host.dropping, map(str, site.here.pod_cidrs))
    yield table(site.here.pod_cidrs, site.options.masquerade)


def forwarding(site: Site, families: Iterable[int]) -> Iterator[Sysctl]:
    """What makes a router of the node, and of its uplink."""
    for family in families:
        for link in sorted(site.host.advertised) if family == 6 else ():
            # A router believes no advertisements, and what came by them so far goes when it becomes one, the default
            # route first; but for this value (Documentation/networking/ip-sysctl.rst). It must be there before.
            yield Sysctl(HOST, f"net/ipv6/conf/{link}/accept_ra", "2")
        yield Sysctl(HOST, _FORWARDING[family], "1")
        # For all links at once, from now on; somebody may have said otherwise of this one since.
        yield Sysctl(HOST, f"net/ipv{family}/conf/{site.uplink.name}/forwarding", "1")


def first(site: Site, peers: Iterable[Peer]) -> Iterator[Rule]:
    """Where other programs have rules before the main table, as VPN clients do: ours before those, for what goes to
    pods, here or elsewhere. Where nobody has any there are none: the first rule costs every packet a look-up more."""
    if site.host.ruled:
        networks = [cidr for peer in peers for cidr in peer.pod_cidrs if cidr.version in site.host.ruled]
        for network in cidr_merge(networks):
            yield Rule(network.version, RULE, MAIN, dst=str(network))


def loose(device: str) -> Sysctl:
    """Packets may come in by *device* from where the way back does not lead by it: the strict check (RFC 3704, section
    2.2), which many distributions have, would drop them. Of pods' own links sources are checked by `SOURCE_CHECK`."""
    return Sysctl(HOST, f"net/ipv4/conf/{device}/rp_filter", "2")


def elements(networks: Iterable[IPNetwork]) -> str:
    """An anonymous set, for a rule of nft's."""
    return f"{{ {', '.join(map(str, networks))} }}"


def table(pod_cidrs: Sequence[IPNetwork], masquerade: Sequence[IPNetwork] | None) -> NftTable:
    """The nft table: source check of every pod and, unless *masquerade* is None, the node's address for what pods
    send outside of those ranges. A family of which no range is given is not masqueraded."""
    chains = [SOURCE_CHECK]
    if masquerade is not None:
        rules = [rule for family in (4, 6) for rule in _masquerade(family, pod_cidrs, masquerade)]
        body = "".join(f"\t\t{rule}\n" for rule in rules)
        chains.append(f"\tchain outbound {{\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n{body}\t}}")
    return NftTable(*TABLE, "\n".join(chains))


def natural_ids(peer: Peer) -> dict[int, int]:
    """The ids of a peer's nexthop objects by the family of the routes through them, unless another peer has one.

    The same for every backend, so that a change of backend replaces the nexthops under routes that stay. They follow
    from the name alone: a peer more or less leaves the others' as they are, but for the rare ones that collide.
    """
    return {family: nexthop_id(peer.name, family) for family in families(peer)}


def moved(natural: Mapping[tuple[str, int], int], taken: Collection[int] = ()) -> dict[tuple[str, int], int]:
    """The ids of those whose own one an earlier peer, by name, has already, or another program's object (*taken*): the
    next that is nobody's."""
    owners: dict[int, tuple[str, int] | None] = dict.fromkeys(taken)
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


def nexthop_keys(name: str) -> list[Key]:
    """The keys of the nexthop objects of the peer *name*, one for each family, unless another has the id."""
    return [nexthop_key(nexthop_id(name, family)) for family in (4, 6)]


class Share(NamedTuple):
    """What one peer needs of the kernel, by the ids of its nexthops; and why some of it cannot be reached."""

    peer: Peer
    ids: Mapping[int, int]
    items: Mapping[Key, Item]
    unserved: tuple[Unserved, ...]


class Peers:
    """The node's plan: *base*, what the node needs whatever its peers, and a share for each peer, worked out when the
    peer is new or has changed: *make* does that, and is pure. *of_all* answers what is for all nodes together.

    With thousands of peers, a list that differs by one must not cost more than that one, and a copy. Any thread may
    call.
    """

    def __init__(
        self,
        site: Site,
        base: Iterable[Item],
        make: Callable[[Peer, Mapping[int, int]], Share],
        of_all: Callable[[Sequence[Peer]], Iterable[Item]],
    ) -> None:
        self._here = site.here.name
        self._taken = site.taken
        self._base = plan(*base)
        self._make = make
        self._of_all = of_all
        self._lock = threading.Lock()
        self._peers: frozenset[Peer] = frozenset()
        self._shares: dict[str, Share] = {}
        self._plan: dict[Key, Item] = dict(self._base)
        self._whole: dict[Key, Item] | None = None
        self._unserved: dict[str, tuple[Unserved, ...]] = {}
        self._contested: set[Key] = set()
        """Keys that more than one peer would have: of an id that moved the natural one and what it got, of a peer that
        is not served all of its. Who has such a key follows from the order of all names, so what touches one is never
        put in place by itself: a peer that goes leaves it to one that waits, and that one is in no change."""

    def wired(self, peers: Collection[Peer]) -> Wired:
        """The whole plan for the whole set of nodes, this one among them."""
        now = frozenset(peers)
        with self._lock:
            if now != self._peers or self._whole is None:
                gone, new = self._peers - now, now - self._peers
                is_small = len(gone) + len(new) <= len(self._shares)
                if not is_small or not self._replace(_others(gone, self._here), _others(new, self._here)):
                    self._work_out(_others(now, self._here))
                self._peers = now
                self._whole = {**self._plan, **plan(*self._of_all(_others(now, "")))}
            return Wired(self._whole, tuple(one for name in sorted(self._unserved) for one in self._unserved[name]))

    def _replace(self, gone: Sequence[Peer], new: Sequence[Peer]) -> bool:
        """Put *new* in the place of *gone*; False, and nothing is changed, where somebody is in another's way."""
        whole = dict(self._plan)  # a copy: the plan of before is somebody's
        for peer in gone:
            items = self._shares[peer.name].items
            if not self._contested.isdisjoint(items):
                return False
            for key in items:
                del whole[key]
        shares = []
        for peer in new:
            share = self._make(peer, natural_ids(peer))
            if not self._taken.isdisjoint(share.ids.values()):
                return False
            is_apart = whole.keys().isdisjoint(share.items) and self._contested.isdisjoint(share.items)
            if not is_apart or len(set(share.ids.values())) < len(share.ids):
                return False
            whole.update(share.items)
            shares.append(share)
        for peer in gone:
            del self._shares[peer.name]
            self._unserved.pop(peer.name, None)
        for share in shares:
            self._keep(share)
        self._plan = whole
        return True

    def _work_out(self, peers: Sequence[Peer]) -> None:
        """All anew, in the order of the names: the first keeps what two want; a nexthop's id can move, the rest of
        the second is not served."""
        natural = {(peer.name, family): number for peer in peers for family, number in natural_ids(peer).items()}
        late = moved(natural, self._taken)
        self._contested = {nexthop_key(number) for who in late for number in (natural[who], late[who])}
        self._shares, self._unserved = {}, {}
        whole = dict(self._base)
        for peer in peers:
            ids = {family: late.get((peer.name, family), natural[peer.name, family]) for family in families(peer)}
            share = self._make(peer, ids)
            clash = next((key for key in share.items if key in whole), None)
            if clash is None:
                whole.update(share.items)
            else:
                self._contested |= share.items.keys()
                share = share._replace(unserved=(Unserved(peer.name, self._clash(peer, clash)),))
            self._keep(share)
        self._plan = whole

    def _keep(self, share: Share) -> None:
        self._shares[share.peer.name] = share
        if share.unserved:
            self._unserved[share.peer.name] = share.unserved

    def _clash(self, peer: Peer, key: Key) -> str:
        owner = next((name for name, share in self._shares.items() if key in share.items), self._here)
        what = _SHARED.get(key.kind, key.kind)
        return f"{peer.name} would have the same {what} as {owner} ({key.name}): change one of them in the list"


_OVERLAY: Final = "hardware address in the overlay"
_SHARED: Final = {"fdb": _OVERLAY, "neigh": _OVERLAY, "route": "pod CIDR"}


def _others(peers: Iterable[Peer], here: str) -> list[Peer]:
    return sorted((peer for peer in peers if peer.name != here), key=attrgetter("name"))


def families(peer: Peer) -> tuple[int, ...]:
    """The families of a peer's pods."""
    return tuple(sorted({cidr.version for cidr in peer.pod_cidrs}))


def _masquerade(family: int, pod_cidrs: Sequence[IPNetwork], routable: Collection[IPNetwork]) -> Iterator[str]:
    word = {4: "ip", 6: "ip6"}[family]
    ours = [cidr for cidr in pod_cidrs if cidr.version == family]
    others = [cidr for cidr in routable if cidr.version == family]
    if ours and others:
        ranges = f"{word} saddr {elements(ours)} {word} daddr != {elements(others)}"
        # A packet to another pod of this node.
        yield f'{ranges} oifname "{POD_LINK_PREFIX}*" oifgroup {POD_GROUP} return'
        yield f"{ranges} masquerade"
