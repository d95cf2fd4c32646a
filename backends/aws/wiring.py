"""How packets get to and from pods whose addresses the VPC routes to this node's interfaces. Pure.

A packet to a pod arrives on the interface that has its address, whatever that is; the main table has the pod's route,
and the first of our rules looks there, for links of pods alone, before anything else. A packet from a pod leaves by the
interface that has its address, since the VPC drops what comes from any other: where there are several, each has a table
of its own, to which a rule leads for each of its blocks, the primary one, too: a distribution that configures them all
leaves the main table with another one's default route. A reply leaves by the interface that the connection came in on,
by a mark that its conntrack entry keeps, so what a NodePort translated finds its way back.

Tables: per interface two routes, and a rule per block (a prefix is one) and two more; per pod one route, as
with every backend. Nothing grows with the cluster.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final

from netaddr import IPAddress, IPNetwork, cidr_merge

from backends import nodeplan, podlink
from backends.plainroutes import ByNexthops
from backends.site import Nic, Site, pod_mtu
from backends.wiring import Wired
from cluster.peers import Peer
from dataplane.forward import accepts
from dataplane.items import HOST, MAIN, Addr, Item, Key, NftTable, Route, Rule, plan
from dataplane.links import Port
from dataplane.ours import RULE
from ipam.store import Record

PODS: Final = RULE
"""Priority of the rule that finds the routes to pods."""
REPLIES: Final = 8220
"""Priority of the rules for what answers a connection."""
SOURCES: Final = 8230
"""Priority of the rules by the sender's address."""
TRANSLATED: Final = 8240
"""Priority of the rules for pods' packets that no rule above led out: they take the node's address."""
TABLES: Final = 8200
"""An interface's table has this number and its index."""
MASK: Final = 0xF0
"""The bits of a packet's and a connection's mark that are ours: kube-proxy and the other plugins use others."""
_UPLINKS: Final = 0
"""The link group of what is no pod's: the one that the kernel puts every link into."""


class EniWiring:
    """`backends.wiring.Wiring` of a node with ENIs. ConfigInvalid: the MTU is impossible."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._plan = plan(*_items(site))
        self.reach = ByNexthops(site)
        self.mtu = pod_mtu(site, 0)

    def pod(self, record: Record) -> dict[Key, Item]:
        """See `backends.wiring.Wiring.pod`."""
        return podlink.pod(record, self.mtu, self._site)

    def node(self, peers: Collection[Peer]) -> Wired:
        """See `backends.wiring.Wiring.node`: other nodes are the VPC's business."""
        return Wired(self._plan, ())


def mark(index: int) -> int:
    """The mark of connections that came in on the interface with that device index."""
    return (index + 1) << 4 & MASK


def _items(site: Site) -> Iterator[Item]:
    blocks = [block for one in site.interfaces for block in one.blocks]
    yield from nodeplan.forwarding(site, sorted({4, *(block.version for block in blocks)}))
    yield from accepts(site.host.dropping, map(str, cidr_merge(blocks)))
    yield _table(site)
    secondary = [one for one in site.interfaces if one.index]
    if not secondary:
        return
    yield Rule(4, PODS, MAIN, suppress=_UPLINKS)
    # What comes in by a NodePort may be for a pod of another interface.
    yield nodeplan.loose(site.uplink.name)
    for one in site.interfaces:
        if not one.index:
            yield from _primary(one, site)
    for one in secondary:
        yield from _secondary(one, site)


def _primary(one: Nic, site: Site) -> Iterator[Item]:
    """The main table would do, but for other programs that put a default route of another interface there."""
    yield from _table_of(one)
    for block in _blocks(one):
        yield Rule(4, SOURCES, TABLES, src=str(block))
    if _is_translated(site):  # what takes the node's address leaves by the interface that has that
        for other in site.interfaces:
            for block in _blocks(other) if other.index else ():
                yield Rule(4, TRANSLATED, TABLES, src=str(block))


def _secondary(one: Nic, site: Site) -> Iterator[Item]:
    yield Port(HOST, one.device, site.uplink.mtu, one.mac)
    yield nodeplan.loose(one.device)
    # Without the subnet's length, or the kernel would add a route for the subnet to the main table.
    yield Addr(HOST, one.device, f"{one.address}/32")
    yield from _table_of(one)
    yield Rule(4, SOURCES, TABLES + one.index, src=f"{one.address}/32")
    for block in _blocks(one):
        for network in map(str, _untranslated(site)) if _is_translated(site) else ("",):
            yield Rule(4, SOURCES, TABLES + one.index, src=str(block), dst=network)


def _table_of(one: Nic) -> Iterator[Item]:
    """Its ways out, and that answers take them."""
    table, gateway = TABLES + one.index, str(IPAddress(one.subnet.first + 1))
    yield Route(HOST, str(one.subnet.cidr), one.device, table=table)
    yield Route(HOST, podlink.DEFAULT[4], one.device, gateway, onlink=True, table=table)
    yield Rule(4, REPLIES, table, mark=mark(one.index), mask=MASK)


def _blocks(one: Nic) -> list[IPNetwork]:
    """IPv4 alone: IPv6 is on the primary interface, and needs no rules."""
    return [block for block in one.blocks if block.version == 4]


def _is_translated(site: Site) -> bool:
    """Whether pods take the node's address anywhere."""
    return site.options.masquerade is not None


def _untranslated(site: Site) -> list[IPNetwork]:
    """Where they do not."""
    return [one for one in (*site.networks, *(site.options.masquerade or ())) if one.version == 4]


def _table(site: Site) -> NftTable:
    chains = [nodeplan.SOURCE_CHECK]
    secondary = [one for one in site.interfaces if one.index]
    if secondary:
        chains += _replies([(site.uplink.name, 0), *((one.device, one.index) for one in secondary)])
    blocks = sorted(block for one in site.interfaces for block in one.blocks if block.version == 4)
    node = site.here.address(4)
    if _is_translated(site) and blocks and node is not None:
        ranges = f"ip saddr {nodeplan.elements(blocks)} ip daddr != {nodeplan.elements(_untranslated(site))}"
        rule = f'{ranges} oifname "{site.uplink.name}" snat ip to {node}'
        chains.append(_chain("outbound", "nat hook postrouting priority srcnat", [rule]))
    return NftTable(*nodeplan.TABLE, "\n".join(chains))


def _replies(interfaces: Sequence[tuple[str, int]]) -> Iterator[str]:
    """Chains that remember by which of *interfaces* (device, index) a connection came in, and mark what answers it."""
    keep = f"{MASK ^ 0xFFFFFFFF:#x}"
    came, goes = [], []
    for device, index in interfaces:
        ours = f"{mark(index):#x}"
        came.append(f'iifname "{device}" ct state new ct mark set ct mark and {keep} or {ours}')
        goes.append(f"ct direction reply ct mark and {MASK:#x} == {ours} meta mark set mark and {keep} or {ours}")
    yield _chain("arriving", "filter hook prerouting priority mangle", [*came, *goes])
    yield _chain("answering", "route hook output priority mangle", goes)  # what this host itself answers


def _chain(name: str, kind: str, rules: Iterable[str]) -> str:
    body = "".join(f"\t\t{rule}\n" for rule in rules)
    return f"\tchain {name} {{\n\t\ttype {kind}; policy accept;\n{body}\t}}"
