"""Where ``gcp-alias`` has its addresses from, as the rest of the agent sees it: what there is, what is missing and why.

What always holds: a range is offered only while it is on the machine's interface, and is not about to go; and no
address of a living pod leaves the node by our own hand (see `backends.gcp.changes`). What it does about that is in
`turns`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from netaddr import IPNetwork

from backends.cloud import short
from backends.cloud.asking import Cloud
from backends.cloud.ownnode import OwnNode
from backends.cloud.pacing import Pacer
from backends.cloud.report import Report
from backends.cloud.steps import Steps
from backends.cloud.usage import Usage
from backends.cloud.watch import Watch
from backends.fabric import Shortage, Supplied
from backends.gcp.calls import CAPACITY, REFILL, about
from backends.gcp.changes import Changes
from backends.gcp.holding import Holding
from backends.gcp.model import NIC
from backends.gcp.options import AliasOptions
from backends.gcp.refusals import Refusals
from backends.gcp.stock import Stock
from backends.gcp.turns import Parts, Turns
from backends.told import Measure, Told
from cluster.peers import Peer
from cni.errors import Failure, TryAgain
from dataplane.memory import Memory
from ipam.lease import Block
from ipam.warmpool import Assign, Pool, actions


class AliasFabric:
    """`backends.fabric.Fabric` on the node *node*; its *source* is that of nodes. One thread runs `life`; any may read.

    *devices* answers the names of the machine's links by hardware address, *answered* the ranges for which another
    program has the host itself answer; *clock* seconds since the boot *boot*, *random* numbers from 0 to 1, *token* a
    new request id.
    """

    def __init__(
        self,
        *,
        node: str,
        options: AliasOptions,
        journal: Memory,
        usage: Usage,
        devices: Callable[[], Mapping[str, str]],
        clock: Callable[[], float],
        random: Callable[[], float],
        token: Callable[[], str],
        answered: Callable[[], frozenset[IPNetwork]] = frozenset,
        boot: str = "",
    ) -> None:
        self._options = options
        self._usage = usage
        self._obstacles = Refusals(clock, random)
        self.cloud = Cloud(Pacer(CAPACITY, REFILL, random), self._obstacles, clock, about)
        self.holding = Holding(options, journal, clock, boot, usage.addresses)
        changes = Changes(
            options=options,
            holding=self.holding,
            cloud=self.cloud,
            obstacles=self._obstacles,
            usage=usage,
            token=token,
            clock=clock,
        )
        self._stock = Stock(
            options=options,
            holding=self.holding,
            changes=changes,
            obstacles=self._obstacles,
            usage=usage,
            devices=devices,
            clock=clock,
        )
        watch = Watch(self.holding.differences, clock, random)
        parts = Parts(
            options, usage, self._obstacles, self.cloud, self.holding, changes, self._stock, watch, answered
        )
        self.source = OwnNode(node)
        self._turns = Turns(self.source, parts, clock)
        self._is_absent = False

    def life(self) -> Steps[None]:
        """Never ends."""
        return self._turns.life()

    def news(self) -> None:
        """The metadata has changed. Any thread may call."""
        self._turns.news()

    # --- what others read -------------------------------------------------------------------------------------

    def supplied(self, here: Peer) -> Supplied:
        """See `backends.fabric.Fabric.supplied`."""
        seen = self._turns.seen
        found = self._stock.interface(seen) if seen is not None else None
        self._is_absent = seen is not None and found is None
        if seen is None or found is None:
            return Supplied((), (), frozenset())
        blocks = (Block(block, NIC, reserve=False) for block in self._stock.offered() if block in found.blocks)
        return Supplied((found,), (seen.subnet,), frozenset(blocks))

    def shortage(self, failure: Failure) -> Shortage:
        """See `backends.fabric.Fabric.shortage`: how many there are, and what is waited for or stands in the way."""
        if self._turns.seen is None:
            return Shortage(self.source.problem, may_end=True)
        if self._stock.is_unsure:
            asked = "which addresses this node has is not certain yet"
            return Shortage(TryAgain(asked, "GCP is being asked, since the agent was restarted"), may_end=True)
        pool = self._stock.pool()
        total = sum(chunk.size for chunk in pool.chunks)
        ranges = f"{len(self.holding.ranges)} of {self._stock.most} ranges taken"
        remedy = "this node can have no more: run fewer pods on it, or let ranges be larger (gcp.largest_prefix)"
        if self._options.is_fixed:
            remedy = "its ranges are assigned by others (gcp.fixed): give it more, or run fewer pods on it"
        return short.shortage(
            "GCP",
            f"no address is free: {pool.used} of {total} addresses in use, {ranges}",
            free=pool.free,
            can_grow=self._can_grow(pool),
            silence=self.cloud.silence,
            obstacles=self._obstacles.growing(),
            remedy=remedy,
        )

    def told(self) -> Told:
        """See `backends.told.Teller`."""
        told = self.report().told()
        return told._replace(
            sections={**told.sections, "gcp": self._section()},
            measures=(*told.measures, *measures(len(self.holding.ranges), self._stock.most)),
        )

    def report(self) -> Report:
        """What GCP gives and refuses."""
        seen, blocks = self._turns.seen, self.holding.ranges
        addresses = self._usage.addresses() if seen is not None else ()
        return Report(
            cloud="GCP",
            interfaces=int(seen is not None),
            most=1,
            obstacles=(
                *short.silent("GCP", self.cloud.silence),
                *map(str, self._obstacles.all()),
                *self._left_alone(),
            ),
            under_way=tuple(f"{one.kind} {' '.join(one.blocks)}".rstrip() for one in self.holding.intents),
            calls=dict(self.cloud.calls),
            throttled=dict(self.cloud.throttled),
            undelivered=short.undelivered(addresses, blocks),
        )

    def _section(self) -> dict[str, object]:
        ours = frozenset(self.holding.blocks)
        return {
            "ranges": {str(block): name for block, name in sorted(self.holding.ranges.items())},
            "most": self._stock.most,
            "not_for_pods": [str(block) for block in sorted(self.holding.ranges.keys() - ours)],
            "answered_by_host": [str(block) for block in sorted(self._turns.answered) if self._is_ours(block)],
        }

    def _is_ours(self, block: IPNetwork) -> bool:
        return any(block in one or one in block for one in self.holding.blocks)

    def _left_alone(self) -> list[str]:
        """What is in the way though nobody refused anything."""
        seen = self._turns.seen
        if seen is not None and self._is_absent:
            return [f"no link here has the hardware address {seen.mac} of {NIC}: no pod can have an address"]
        return []

    def _can_grow(self, pool: Pool) -> bool:
        # What is free in the pool and yet not given is not offered before the next pass.
        if self._turns.is_growing or pool.coming or pool.free:
            return True
        is_moving = bool(self.holding.intents)  # what is in the way of more ends by itself
        interfaces = tuple(replace(one, is_barred=one.is_barred and not is_moving) for one in pool.interfaces)
        wanted = actions(replace(pool, interfaces=interfaces, waiting=1), self._options.warm)
        return any(isinstance(one, Assign) for one in wanted)


def measures(ranges: int, most: int) -> list[Measure]:
    """The metrics that alias ranges alone have: how many of *most* there are."""
    gauges = (
        ("routable_gcp_ranges", "Alias ranges of this node's interface.", ranges),
        ("routable_gcp_ranges_max", "Alias ranges that it can have.", most),
    )
    return [Measure(name, text, [((), value)]) for name, text, value in gauges]
