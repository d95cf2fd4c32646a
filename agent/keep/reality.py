"""Whether the kernel does with pods' packets what is wanted of it: asked of the kernel, not of what was programmed.

What was programmed can be whole, and packets go elsewhere all the same: other programs' rules come first, a more
specific route of theirs wins, a firewall drops. So after a pass the kernel is asked where it *would* send a few packets
of each kind, and where that is not as meant, it is told, with what is responsible. A sample, by turns: some forty
questions of 20 microseconds each, and a call of nft only after somebody changed a table.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple, TypeVar

from netaddr import IPNetwork

from agent.keep.survey import Surroundings
from backends.podlink import link_name
from cluster.peers import Peer
from cni.errors import Failure
from dataplane.items import HOST, Sysctl
from dataplane.meant import Meant
from dataplane.ways import Course, Packet
from ipam.store import Record

log = logging.getLogger(__name__)
T = TypeVar("T")

PODS: Final = 3
PEERS: Final = 3
"""How many pods and peers are looked at each time: others at the next."""
BEYOND: Final = {4: "203.0.113.1", 6: "3fff::1"}
"""Of networks for documentation (RFC 5737, RFC 9637), for what is nowhere near: nothing is sent."""


class Question(NamedTuple):
    """*what* is to become of a packet, in words, and where it should go; None: where the host's own packets to the same
    address go."""

    what: str
    packet: Packet
    meant: Course | None


class Reality:
    """One thread looks; any may read the *findings*. *ask* answers where packets would go, *explain* what leads them
    there, *hooks* what may drop packets of pods with addresses of some networks."""

    def __init__(
        self,
        *,
        ask: Callable[[Sequence[Packet]], list[Course]],
        explain: Callable[[Packet, Course], str],
        hooks: Callable[[Collection[IPNetwork], bool], Iterable[Failure]],
    ) -> None:
        self._ask = ask
        self._explain = explain
        self._hooks = hooks
        self._turn = 0
        self._suspected: frozenset[str] = frozenset()
        self._seen: frozenset[str] = frozenset()
        self.findings: Sequence[Failure] = ()
        """What is not as it should be, and what is responsible."""

    @property
    def is_suspicious(self) -> bool:
        """Whether it is worth a look soon: something may have been found, or may be over."""
        return bool(self._suspected or self.findings)

    def look(self, around: Surroundings, records: Collection[Record]) -> None:
        """Ask once more. What is found twice in a row is told: once may be a change under way. Raises nothing: what
        cannot be found out is a finding."""
        try:
            found = {str(one): one for one in self._found(around, records)}
        except Failure as failure:
            found = {str(failure): failure}
        told = {text: one for text, one in found.items() if text in self._suspected or text in self._seen}
        for text in told.keys() - self._seen:
            log.error("packets do not go where they should", extra={"error": text})
        self._suspected, self._seen = frozenset(found), frozenset(told)
        self.findings = tuple(told.values())
        if not found:
            self._turn += 1  # while there is something, the same is asked again

    def _found(self, around: Surroundings, records: Collection[Record]) -> Iterator[Failure]:
        asked = list(questions(around, _some(list(records), PODS, self._turn), self._turn))
        real = self._ask([one.packet for one in asked])
        for one, way in zip(asked, real, strict=True):
            meant = one.meant
            if meant is None:
                (meant,) = self._ask([Packet(one.packet.dst)])
                if meant.kind != "unicast":
                    continue  # the host itself has no way there
            if (way.kind, way.dev, way.via) != (meant.kind, meant.dev, meant.via):
                should = f"should: {meant._replace(table=0)}; {self._explain(one.packet, way)}"
                yield Failure(f"{one.what}: the kernel says {way}", should)
        is_asymmetric = any(
            isinstance(item, Sysctl) and item.path.endswith(f"/{around.site.uplink.name}/rp_filter")
            for item in around.wired.plan.values()
        )
        yield from self._hooks(_ranges(around), is_asymmetric)


def questions(around: Surroundings, records: Sequence[Record], turn: int) -> Iterator[Question]:
    """What is asked about the pods of *records*: the way to each from this node, from another node and from another
    pod, and from each to others and beyond."""
    pods = {key: item for one in records for key, item in around.wiring.pod(one).items() if key.place is HOST}
    meant = Meant({**around.wired.plan, **pods})
    others = sorted((one for one in around.peers if one.name != around.site.here.name), key=lambda one: one.name)
    unserved = {one.peer for one in around.unserved}
    peers = _some([one for one in others if one.name not in unserved], PEERS, turn)
    for record in records:
        link = link_name(record.lease.who)
        name = record.called
        for address in record.lease.addresses:
            pod, family = str(address), address.version
            yield from _asked(meant, f"from this node to pod {name}", Packet(pod))
            for there in _others(records, record, family):
                yield from _asked(meant, f"from pod {name} to one of this node", Packet(there, pod, link))
            for peer, there in _addresses(peers, family):
                out = Packet(there, pod, link)
                yield from _asked(meant, f"from pod {name} to pods of {peer.name}", out)
                way = meant.way(out)
                if way is not None and way.kind == "unicast":
                    yield from _asked(meant, f"from pods of {peer.name} to pod {name}", Packet(pod, there, way.dev))
            beyond = Packet(BEYOND[family], pod, link)
            yield Question(f"from pod {name} to beyond", beyond, meant.way(beyond))


def _asked(meant: Meant, what: str, packet: Packet) -> Iterator[Question]:
    way = meant.way(packet)
    if way is not None:
        yield Question(what, packet, way)


def _some(whole: Sequence[T], most: int, turn: int) -> list[T]:
    start = turn * most % max(1, len(whole))
    return [*whole[start:], *whole[:start]][:most]


def _others(records: Sequence[Record], one: Record, family: int) -> Iterator[str]:
    """An address of another pod."""
    found = (str(address) for other in records if other is not one for address in other.lease.addresses)
    yield from islice((text for text in found if (":" in text) == (family == 6)), 1)


def _addresses(peers: Iterable[Peer], family: int) -> Iterator[tuple[Peer, str]]:
    """An address of each peer's pods."""
    for peer in peers:
        cidr = next((cidr for cidr in peer.pod_cidrs if cidr.version == family), None)
        if cidr is not None:
            yield peer, str(cidr[min(1, cidr.size - 1)])


def _ranges(around: Surroundings) -> list[IPNetwork]:
    blocks = (block for one in around.site.interfaces for block in one.blocks)
    return sorted({*around.site.here.pod_cidrs, *blocks})
