"""Nodes that contradict each other: what two of them claim belongs to one, and of the other that is told. Pure.

What always holds: in the set that comes out, addresses and pod CIDRs belong to one node each, and every node decides
alike, whatever the order in which it heard of them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

from netaddr import IPAddress, IPNetwork

from cluster.nodeobjects import Described
from cluster.peers import Peer


class _Range(NamedTuple):
    """A range that belongs to a node already."""

    first: int
    last: int
    owner: str


_Ranges = dict[int, list[_Range]]
"""By family, in order, none overlapping another."""


def settled(nodes: Collection[Described]) -> frozenset[Peer]:
    """The peers that *nodes* are, each with what is its own."""
    if _are_apart(nodes):
        return frozenset(one.peer for one in nodes)
    aged = [one.peer for one in sorted(nodes, key=lambda one: (one.created, one.peer.name))]
    ranges: _Ranges = {4: [], 6: []}
    placed = list(_with_addresses(aged))
    return frozenset(_apart(list(_with_ranges(placed, ranges)), ranges))


def _are_apart(nodes: Collection[Described]) -> bool:
    """Whether nobody claims what another does, as nearly always: a tenth of the work for thousands. Where any two
    overlap, two neighbours in order do."""
    spans = sorted(span for one in nodes for span in one.spans)
    return all(before[0] != after[0] or before[2] < after[1] for before, after in pairwise(spans))


def _with_addresses(aged: Collection[Peer]) -> Iterator[Peer]:
    """An address is the newest node's: where a machine was renamed, or a new one got the address of a dead one, the
    Node of old stays for a while, or for ever."""
    owners: dict[IPAddress, str] = {}
    for peer in aged:
        owners.update(dict.fromkeys(peer.addresses, peer.name))
    for peer in aged:
        lost = {
            one: f"its InternalIP {one} is also that of {owners[one]}, which is newer"
            for one in peer.addresses
            if owners[one] != peer.name
        }
        yield _without_addresses(peer, lost)


def _with_ranges(aged: Sequence[Peer], ranges: _Ranges) -> Iterator[Peer]:
    """A range is the oldest node's: whoever writes an annotation takes nothing away from pods that run. Nor is one
    had that contains the address of an older node: what is sent there is that node's. All that are had are put into
    *ranges*."""
    hosts: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
    for age, peer in enumerate(aged):
        for one in peer.addresses:
            insort(hosts[one.version], (int(one), age))
    for age, peer in enumerate(aged):
        lost = {}
        for cidr in peer.pod_cidrs:
            claim, taken, held = _Range(cidr.first, cidr.last, peer.name), ranges[cidr.version], hosts[cidr.version]
            at = bisect_right(taken, claim)
            near = taken[max(0, at - 1) : at + 1]
            others = [one for one in near if one.first <= claim.last and claim.first <= one.last]
            within = held[bisect_left(held, (claim.first, 0)) : bisect_left(held, (claim.last + 1, 0))]
            older = [number for _, number in within if number <= age]
            if others:
                lost[cidr] = f"its pod CIDR {cidr} overlaps that of {others[0].owner}, which is older"
            elif older:
                lost[cidr] = f"its pod CIDR {cidr} contains the address of {aged[older[0]].name}"
            else:
                insort(taken, claim)
        yield _without_ranges(peer, lost)


def _apart(peers: Collection[Peer], ranges: _Ranges) -> Iterator[Peer]:
    """Without the addresses that lie in a range of pods."""
    for peer in peers:
        lost = {}
        for one in peer.addresses:
            at = bisect_right(ranges[one.version], int(one), key=lambda taken: taken.first)
            if at and int(one) <= ranges[one.version][at - 1].last:
                lost[one] = f"its InternalIP {one} lies in a pod CIDR of {ranges[one.version][at - 1].owner}"
        yield _without_addresses(peer, lost)


def _without_addresses(peer: Peer, lost: Mapping[IPAddress, str]) -> Peer:
    kept = tuple(one for one in peer.addresses if one not in lost)
    return replace(peer, addresses=kept, flaws=(*peer.flaws, *lost.values())) if lost else peer


def _without_ranges(peer: Peer, lost: Mapping[IPNetwork, str]) -> Peer:
    kept = tuple(one for one in peer.pod_cidrs if one not in lost)
    return replace(peer, pod_cidrs=kept, flaws=(*peer.flaws, *lost.values())) if lost else peer
