"""Ranges that are announced by somebody whose they are not: of two clusters, or of two nodes. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping

from netaddr import IPNetwork

from backends.bgp.replies import Heard
from backends.bgp.seen import Seen
from backends.bgp.table import BgpTable
from backends.told import Complaint, few
from cluster.peers import Peer
from cni.errors import Limited


class Owners:
    """Whose the ranges of the pods of *peers* are. Nearly all that is heard of is a whole one."""

    def __init__(self, peers: Iterable[Peer]) -> None:
        self._cidrs = {str(cidr): (cidr, peer.name) for peer in peers for cidr in peer.pod_cidrs}
        self._spans: list[tuple[int, int, int, str]] = []

    def of(self, network: str) -> str:
        """Whose *network* is, or is a part of; '' for nobody's."""
        if network in self._cidrs:
            return self._cidrs[network][1]
        one, spans = IPNetwork(network), self._sorted()
        at = bisect_right(spans, (one.version, one.first, one.last, "\x7f")) - 1
        return spans[at][3] if at >= 0 and spans[at][0] == one.version and one.last <= spans[at][2] else ""

    def part(self, network: str) -> str:
        """Whose range has more addresses than these; '' for nobody's, and for single ones, which may be of a pod that
        is announced for itself."""
        return "" if network in self._cidrs or IPNetwork(network).size == 1 else self.of(network)

    def is_around(self, network: str) -> bool:
        """Whether some of these lie in *network*."""
        one, spans = IPNetwork(network), self._sorted()
        at = bisect_left(spans, (one.version, one.first))
        return at < len(spans) and spans[at][0] == one.version and spans[at][2] <= one.last

    def _sorted(self) -> list[tuple[int, int, int, str]]:
        if not self._spans:
            held = self._cidrs.values()
            self._spans = sorted((cidr.version, cidr.first, cidr.last, name) for cidr, name in held)
        return self._spans


def complaints(table: BgpTable, seen: Seen) -> Iterator[Complaint]:
    """All that can be told of it."""
    named = {one.name: one.peer for one in seen.speech.sessions} if seen.speech is not None else {}
    owners = Owners(seen.peers)
    found = {one.network: _by(one, named) for one in seen.inside}
    for one in seen.routes:
        by = named.get(one.session, "")
        whose = owners.of(one.network) if table.topology == "mesh" else owners.part(one.network)
        if whose and by and whose != by:
            found[one.network] = f"{one.network} of {whose} (by {by})"
    if found:
        failure = Limited(
            f"pods' ranges of this cluster are announced by others, too: {few(list(found.values()))}",
            "have two clusters, or two nodes, the same ranges? Give each its own; this node takes none in its own",
        )
        yield Complaint(failure, len(found))
    announced = set(map(str, table.announce))
    looped = {
        one.network: _by(one, named)
        for one in seen.looped
        if not (owners.of(one.network) or owners.is_around(one.network) or one.network in announced)
    }
    if looped:
        failure = Limited(
            f"by paths with this node's own AS number come, and are not taken: {few(list(looped.values()))}",
            "has another cluster the same number? Give each its own; within one cluster: bgp.accept_own_asn = true",
        )
        yield Complaint(failure, len(looped))


def _by(one: Heard, named: Mapping[str, str]) -> str:
    return f"{one.network} (by {named.get(one.session, one.session)})"
