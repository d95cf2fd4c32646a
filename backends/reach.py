"""The seam of a change of backend: how a wiring reaches its peers, so that they are tried and moved singly. Pure.

To move a peer is to have in the plan what *decides* for the one wiring instead of what does for the other: see
`backends.transition`, which knows no more of either than this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from netaddr import IPAddress, IPNetwork

from cluster.peers import Peer
from dataplane.items import Item, Key


class Passage(NamedTuple):
    """How packets get to the pods in one *range* of a peer's: those items of the plan *decide* that they go this way,
    and they leave by the link *device*.

    None decide where another program's routes lead this way as soon as none of ours leads another.
    """

    range: IPNetwork
    decide: tuple[Key, ...]
    device: str


class Reach(Protocol):
    """How peers are reached; *plan* is what `backends.wiring.Wiring.node` answered."""

    def own(self, node: Peer) -> Sequence[IPAddress]:
        """The addresses out of its pod CIDRs that a *node* has itself where it is wired like this: it can be asked by
        them whether its pods are reached."""

    def passages(self, peer: Peer, plan: Mapping[Key, Item]) -> Sequence[Passage]:
        """Those of the *peer*'s ranges to which a way leads."""

    def aside(self, peer: Peer, range_: IPNetwork, plan: Mapping[Key, Item]) -> Sequence[Item]:
        """What leads the `spare` address of one of these ranges this way while pods are reached by another wiring.
        None: such a peer cannot be tried, so it moves only where that is forced."""


def spare(range_: IPNetwork) -> IPAddress:
    """The address of a peer's range that neither a pod nor a node has, nor sends from: a route to that alone is no way
    for anything else, least of all for the answer that tells the peer how we send to its pods."""
    return IPAddress(range_.last, range_.version)
