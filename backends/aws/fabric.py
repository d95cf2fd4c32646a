"""Where ``aws-eni`` has its addresses from, as the rest of the agent sees it: what there is, what is missing and why.

What always holds: a block is offered only while it is on an interface whose device is here and is wired, and is not
about to go; and no address of a living pod leaves the node by our own hand (see `backends.aws.leaving`). What it does
about that is in `turns`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from backends.aws.options import EniOptions
from backends.aws.parts import assembled
from backends.aws.turns import Turns
from backends.cloud import short
from backends.cloud.ownnode import OwnNode
from backends.cloud.report import Report
from backends.cloud.steps import Steps
from backends.cloud.usage import Usage
from backends.fabric import Shortage, Supplied
from backends.told import Told
from cluster.peers import Peer
from cni.errors import Failure, TryAgain
from dataplane.memory import Memory
from ipam.lease import Block
from ipam.warmpool import Assign, Create, Pool, actions, shortfall


class EniFabric:
    """`backends.fabric.Fabric` on the node *node*; its *source* is that of nodes. One thread runs `life`; any may read.

    *devices* answers the names of the machine's links by hardware address, *clock* seconds since the boot *boot*, and
    *wall* those since the epoch, *random* numbers from 0 to 1, *token* a new ClientToken.
    """

    def __init__(
        self,
        *,
        node: str,
        options: EniOptions,
        journal: Memory,
        usage: Usage,
        devices: Callable[[], Mapping[str, str]],
        clock: Callable[[], float],
        random: Callable[[], float],
        token: Callable[[], str],
        wall: Callable[[], float],
        boot: str = "",
    ) -> None:
        parts = assembled(
            options=options,
            journal=journal,
            usage=usage,
            devices=devices,
            clock=clock,
            random=random,
            token=token,
            wall=wall,
            boot=boot,
        )
        self._options = options
        self._usage = usage
        self._stock = parts.stock
        self._obstacles = parts.obstacles
        self.source = OwnNode(node)
        self._turns = Turns(self.source, parts, clock, random)
        self.cloud = parts.cloud
        self.inventory = parts.inventory

    def life(self) -> Steps[None]:
        """Never ends."""
        return self._turns.life()

    # --- what others read -------------------------------------------------------------------------------------

    def supplied(self, here: Peer) -> Supplied:
        """See `backends.fabric.Fabric.supplied`."""
        seen = self._turns.seen
        found = self._stock.interfaces()
        offered = [Block(block, one.id, reserve=False) for one, block in self._stock.offered(found)]
        if self._options.ipv6 and {block.family for block in offered} != {4, 6}:
            offered = []  # a pod that is added now would never have an address of the other family
        networks = seen.networks if seen is not None else ()
        return Supplied(tuple(interface for _, interface in found), networks, frozenset(offered))

    def shortage(self, failure: Failure) -> Shortage:
        """See `backends.fabric.Fabric.shortage`: how many there are, and what is waited for or stands in the way."""
        pool, most = self._stock.pool(), self._stock.most
        if self._turns.seen is None:
            return Shortage(self.source.problem, may_end=True)
        if pool is None:
            unknown = f"how many addresses a {self._turns.seen.type} can have is not known yet"
            return Shortage(TryAgain(unknown, "EC2 (DescribeInstanceTypes) has not answered"), may_end=True)
        if self._stock.is_unsure:
            asked = "which addresses this node has is not certain yet"
            return Shortage(TryAgain(asked, "EC2 is being asked, since the agent was restarted"), may_end=True)
        obstacles = self._obstacles.growing()
        left = f"no address is free: {shortfall(pool, len(self.inventory.enis), most)}"
        return short.shortage(
            "EC2",
            left,
            free=pool.free,
            can_grow=self._can_grow(pool),
            silence=self.cloud.silence,
            obstacles=obstacles,
            remedy="this instance can have no more: run fewer pods on it, or use a larger type",
        )

    def told(self) -> Told:
        """See `backends.told.Teller`."""
        return self.report().told()

    def report(self) -> Report:
        """What EC2 gives and refuses."""
        return Report(
            cloud="EC2",
            interfaces=len(self.inventory.enis),
            most=self._stock.most,
            obstacles=(
                *short.silent("EC2", self.cloud.silence),
                *self._assumed(),
                *map(str, self._obstacles.all()),
                *self._conflicts(),
            ),
            under_way=tuple(f"{one.kind} {one.eni or one.subnet}" for one in self.inventory.intents),
            calls=dict(self.cloud.calls),
            undelivered=self._undelivered(),
            throttled=dict(self.cloud.throttled),
        )

    def _assumed(self) -> list[str]:
        """What there is to say of limits that nobody told."""
        seen, limits = self._turns.seen, self._stock.limits
        if seen is None or limits is None or not limits.is_assumed:
            return []
        numbers = f"{limits.interfaces} interfaces of {limits.addresses} addresses are assumed"
        return [f"what a {seen.type} can have is not known: {numbers} (DescribeInstanceTypes has not answered)"]

    def _conflicts(self) -> list[str]:
        """What cannot be, in words."""
        found = sorted(self.inventory.conflicts, key=lambda pair: (pair[1], pair[0]))
        return [f"{block} of {eni} is on another interface, too: no pod is given it" for eni, block in found]

    def _undelivered(self) -> tuple[str, ...]:
        """Addresses of pods that are on none of the interfaces any more."""
        if self._turns.seen is None:
            return ()
        blocks = (block for one in self.inventory.enis.values() for block in one.blocks)
        return short.undelivered(self._usage.addresses(), blocks)

    def _can_grow(self, pool: Pool) -> bool:
        # What is free in the pool and yet not given is not offered before the next pass.
        is_coming = self._turns.balance.is_growing or pool.coming or pool.free
        if is_coming or self.inventory.intents:  # what is in the way of more may end with the change
            return True
        wanted = actions(replace(pool, waiting=pool.free + 1), self._options.warm)
        return any(isinstance(one, Assign | Create) for one in wanted)
