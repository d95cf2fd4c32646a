"""BGP: each node announces its pod CIDRs to its neighbours, and BIRD puts what they announce into the kernel.

A packet from pod to pod: the pod's link, this host's main table (the peer's pod CIDR, a route of BIRD's, or a default
route), the uplink, the routers in between, if any, the peer, its route to the pod's address, the pod's link. Nothing is
wrapped and nothing translated, and whatever the network's routers reach reaches pods.

Tables: two routes per dual-stack peer, which are BIRD's, or none but a default; a route per local pod address. A mesh
of n nodes has n - 1 sessions on each: some hundred, then reflectors.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from netaddr import IPAddress, IPNetwork

from backends import nodeplan, podlink
from backends.bgp.conf import BETWEEN
from backends.bgp.sessions import speech
from backends.bgp.table import BgpTable, contradictions
from backends.podcidrs import own_addresses
from backends.reach import Passage, spare
from backends.site import Site, pod_mtu
from backends.wiring import Wired
from cluster.peers import Peer
from cni.errors import ConfigInvalid
from dataplane.items import HOST, LOCAL, Item, Key, Route, Rule, Sysctl, plan
from dataplane.ours import TRIED
from ipam.store import Record


class BgpWiring:
    """`backends.wiring.Wiring` by what BIRD learns. ConfigInvalid: the table [bgp] is missing or cannot be meant, or
    the MTU is impossible."""

    def __init__(self, site: Site, table: BgpTable) -> None:
        if table == BgpTable():
            raise ConfigInvalid("there is no table [bgp] in the agent's configuration", "see conf/agent-large-bgp.toml")
        for wrong in contradictions(table):
            raise ConfigInvalid(wrong.key, wrong.why)
        self._site, self._table = site, table
        self._base = plan(*nodeplan.common(site), *self._own())
        self.reach = ByDaemon(site)
        self.mtu = pod_mtu(site, 0)

    def pod(self, record: Record) -> dict[Key, Item]:
        """See `backends.wiring.Wiring.pod`."""
        return podlink.pod(record, self.mtu, self._site)

    def node(self, peers: Collection[Peer]) -> Wired:
        """See `backends.wiring.Wiring.node`. Nothing of it is about a peer: that is BIRD's."""
        whole = {**self._base, **plan(*nodeplan.first(self._site, peers))}
        return Wired(whole, speech(self._table, self._site, peers).unserved)

    def _own(self) -> Iterator[Item]:
        for address in own_addresses(self._site.here):
            yield Route(HOST, f"{address}/{podlink.BITS[address.version]}", "lo", table=LOCAL, local=True)
        # What goes out by one uplink may come back by the other.
        for link in sorted({self._site.uplink.name, *self._table.uplinks}):
            yield nodeplan.loose(link)
        for family in self._site.families:
            for link in self._table.uplinks:
                yield Sysctl(HOST, f"net/ipv{family}/conf/{link}/forwarding", "1")


class ByDaemon:
    """`backends.reach.Reach` of a wiring whose routes are another program's: they count where none of ours does. While
    a node changes, that program has them in a table of ours besides, to which a rule can lead."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def own(self, node: Peer) -> Sequence[IPAddress]:
        """See `backends.reach.Reach.own`."""
        return own_addresses(node)

    def passages(self, peer: Peer, plan: Mapping[Key, Item]) -> Sequence[Passage]:
        """See `backends.reach.Reach.passages`."""
        return [Passage(cidr, (), self._site.uplink.name) for cidr in peer.pod_cidrs]

    def aside(self, peer: Peer, range_: IPNetwork, plan: Mapping[Key, Item]) -> Sequence[Item]:
        """See `backends.reach.Reach.aside`. Where that program has no route there, nothing else may lead."""
        family = range_.version
        return (
            Rule(family, TRIED, BETWEEN, dst=f"{spare(range_)}/{podlink.BITS[family]}"),
            Route(HOST, podlink.DEFAULT[family], unreachable=True, table=BETWEEN),
        )
