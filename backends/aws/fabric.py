"""Where ``aws-eni`` has its addresses from: one thread's life, as a generator of what it wants of the outside.

In turns: what was cut off comes first, then EC2's word on what there is, then what `ipam.warmpool` wants, then tidying.
A part that may not go on now (EC2 throttles, or gives no answer) does not keep the others from it. What always holds:
a block is offered only while it is on an interface whose device is here and is wired, and is not about to go; and no
address of a living pod leaves the node by our own hand (see `backends.aws.leaving`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Final

from netaddr import IPAddress, IPNetwork, IPSet

from backends.aws import limits as table
from backends.aws import model
from backends.aws.calls import (
    ASSIGN,
    ASSIGN6,
    ATTACH,
    CAPACITY,
    CREATE,
    DELETE,
    DETACH,
    MODIFY,
    REFILL,
    UNASSIGN,
    about,
    pages,
)
from backends.aws.changes import Changes
from backends.aws.guards import Guards
from backends.aws.indexes import Indexes
from backends.aws.inventory import Inventory
from backends.aws.leaving import Leaving
from backends.aws.model import PRIMARY, Seen
from backends.aws.options import Options
from backends.aws.placement import Placement
from backends.aws.refusals import NO_INTERFACE, NO_SLOT, Refusals
from backends.aws.stock import Stock
from backends.aws.sweep import Sweep
from backends.aws.watch import Watch
from backends.cloud.asking import Cloud, Later
from backends.cloud.failures import Lost, Refused
from backends.cloud.intents import Journal
from backends.cloud.pacing import Pacer
from backends.cloud.steps import Look, Settle, Steps, Wait
from backends.cloud.usage import Usage
from backends.fabric import Report, Shortage, Supplied
from cluster.peers import Peer
from cni.errors import Exhausted, Failure, TryAgain
from ipam.lease import Block
from ipam.warmpool import Action, Assign, Create, Delete, Pool, Unassign, actions, shortfall

log = logging.getLogger(__name__)

TICK: Final = 1.0
"""Seconds between looks at the pool, unless a pod waits."""
IDLE: Final = 10.0
"""Seconds between looks of one who is told of every change of the pool: time passes for what cools down and idles."""
REFRESH: Final = 600.0
"""Seconds between EC2's words on what there is, at most; at least half as many, so that nodes do not ask together."""
AGAIN: Final = 3.0
"""Seconds until the instance metadata is read again, where it could not be read."""
PATIENCE: Final = 10.0
"""Seconds for which a restarted agent waits for EC2's word, before it gives addresses by what the metadata shows."""
LOOK: Final = 0.5
"""Seconds between looks for the device of an interface that was attached, which cost EC2 nothing."""
_TAKES: Final[Mapping[str, tuple[str, ...]]] = {
    "create": (ATTACH,),
    "assign": (ASSIGN,),
    "unassign": (UNASSIGN,),
    "delete": (DETACH, DELETE),
}
"""Which actions a change takes, by its kind: all of what it may not be is left for later."""


class Fabric:
    """`backends.fabric.Fabric` and `cluster.peers.Source` on the node *node*. One thread runs `life`; any may read.

    *devices* answers the names of the machine's links by hardware address, *clock* seconds since the boot *boot*, and
    *wall* those since the epoch, *random* numbers from 0 to 1, *token* a new ClientToken.
    """

    def __init__(
        self,
        *,
        node: str,
        options: Options,
        journal: Journal,
        usage: Usage,
        devices: Callable[[], Mapping[str, str]],
        clock: Callable[[], float],
        random: Callable[[], float],
        token: Callable[[], str],
        wall: Callable[[], float],
        boot: str = "",
    ) -> None:
        self._node = node
        self._options = options
        self._usage = usage
        self._devices = devices
        self._clock = clock
        self._random = random
        self.obstacles = Refusals(clock, random)
        self.cloud = Cloud(Pacer(CAPACITY, REFILL, random), self.obstacles, clock, about)
        self.inventory = Inventory(journal, clock, boot, usage.addresses)
        indexes = Indexes(clock)
        self._leaving = Leaving(self.inventory, self.cloud, usage, indexes, clock)
        self._changes = Changes(
            options=options,
            inventory=self.inventory,
            cloud=self.cloud,
            obstacles=self.obstacles,
            leaving=self._leaving,
            indexes=indexes,
            token=token,
            clock=clock,
            wall=wall,
        )
        self._stock = Stock(
            options=options,
            inventory=self.inventory,
            leaving=self._leaving,
            obstacles=self.obstacles,
            usage=usage,
            devices=devices,
            clock=clock,
        )
        self._placement = Placement(options, self.cloud)
        self._guards = Guards(options, self.inventory, self._placement, self.cloud, clock, random)
        self._sweep = Sweep(options.cluster, self.cloud, clock, random, wall)
        self._watch = Watch(self.inventory, clock, random)
        self._seen: Seen | None = None
        self._limits_at = 0.0
        self._describe_at = 0.0
        self._trust_at = 0.0
        self._awaited: frozenset[str] = frozenset()
        self._is_growing = False
        self.nodes: frozenset[Peer] = frozenset()
        self._told: frozenset[Peer] = frozenset()
        self.problem: Failure = TryAgain("the agent is starting", "it has not read the instance metadata yet")

    # --- what others read -------------------------------------------------------------------------------------

    @property
    def error(self) -> Failure | None:
        """See `cluster.peers.Source.error`."""
        return None if self.nodes else self.problem

    def refresh(self) -> bool:
        """See `cluster.peers.Source.refresh`."""
        is_new, self._told = self.nodes != self._told, self.nodes
        return is_new

    def supplied(self, here: Peer) -> Supplied:
        """See `backends.fabric.Fabric.supplied`."""
        seen = self._seen
        found = self._stock.interfaces()
        offered = [Block(block, one.id, reserve=False) for one, block in self._stock.offered(found)]
        if self._options.ipv6 and {block.family for block in offered} != {4, 6}:
            offered = []  # a pod that is added now would never have an address of the other family
        networks = seen.networks if seen is not None else ()
        return Supplied(tuple(interface for _, interface in found), networks, frozenset(offered))

    def shortage(self, failure: Failure) -> Shortage:
        """See `backends.fabric.Fabric.shortage`: how many there are, and what is waited for or stands in the way."""
        pool, most = self._stock.pool(), self._stock.most
        if self._seen is None:
            return Shortage(self.problem, may_end=True)
        if pool is None:
            unknown = f"how many addresses a {self._seen.type} can have is not known yet"
            return Shortage(TryAgain(unknown, "EC2 (DescribeInstanceTypes) has not answered"), may_end=True)
        if self._is_unsure:
            asked = "which addresses this node has is not certain yet"
            return Shortage(TryAgain(asked, "EC2 is being asked, since the agent was restarted"), may_end=True)
        obstacles = self.obstacles.growing()
        left = f"no address is free: {shortfall(pool, len(self.inventory.enis), most)}"
        if self._can_grow(pool) and self.cloud.is_silent:
            return Shortage(TryAgain(f"{left}, and EC2 gives no answers", "the agent goes on asking"), may_end=False)
        if self._can_grow(pool):
            details = str(obstacles[0]) if obstacles else ""
            return Shortage(TryAgain(f"{left}, waiting for more of EC2", details), may_end=True)
        if obstacles:
            kind = type(obstacles[0])
            return Shortage(kind(f"{left}; {obstacles[0].message}", obstacles[0].details), may_end=False)
        remedy = "this instance can have no more: run fewer pods on it, or use a larger type"
        return Shortage(Exhausted(left, remedy), may_end=False)

    def report(self) -> Report:
        """See `backends.fabric.Fabric.report`."""
        return Report(
            cloud="EC2",
            interfaces=len(self.inventory.enis),
            most=self._stock.most,
            obstacles=(*self._assumed(), *map(str, self.obstacles.all()), *self._conflicts()),
            under_way=tuple(f"{one.kind} {one.eni or one.subnet}" for one in self.inventory.intents),
            calls=dict(self.cloud.calls),
            undelivered=tuple(map(str, self._undelivered())),
        )

    def _assumed(self) -> list[str]:
        """What there is to say of limits that nobody told."""
        limits = self._stock.limits
        if self._seen is None or limits is None or not limits.is_assumed:
            return []
        numbers = f"{limits.interfaces} interfaces of {limits.addresses} addresses are assumed"
        return [f"what a {self._seen.type} can have is not known: {numbers} (DescribeInstanceTypes has not answered)"]

    def _conflicts(self) -> list[str]:
        """What cannot be, in words."""
        found = sorted(self.inventory.conflicts, key=lambda pair: (pair[1], pair[0]))
        return [f"{block} of {eni} is on another interface, too: no pod is given it" for eni, block in found]

    def _undelivered(self) -> list[IPAddress]:
        """Addresses of pods that are on none of the interfaces any more."""
        blocks = IPSet(block for one in self.inventory.enis.values() for block in one.blocks)
        return sorted(one for one in self._usage.addresses() if one not in blocks) if self._seen is not None else []

    @property
    def _is_unsure(self) -> bool:
        """Whether the metadata alone says what there is, and EC2 may soon."""
        return bool(self.inventory.doubted) and not self._stock.has_described

    def _can_grow(self, pool: Pool) -> bool:
        # What is free in the pool and yet not given is not offered before the next pass.
        is_coming = self._is_growing or pool.coming or pool.free
        if is_coming or any(one.kind in ("create", "delete") for one in self.inventory.intents):
            return True
        wanted = actions(replace(pool, waiting=pool.free + 1), self._options.warm)
        return any(isinstance(one, Assign | Create) for one in wanted)

    # --- life -------------------------------------------------------------------------------------------------

    def life(self) -> Steps[None]:
        """Never ends."""
        yield from self._arrive()
        while True:
            pause = yield from self._turn()
            yield Wait(min(TICK, pause), pause)

    def _arrive(self) -> Steps[None]:
        while self._seen is None:
            try:
                seen: Seen = yield Look()
            except Lost as error:
                self.problem = TryAgain("the instance metadata cannot be read", str(error))
                log.error("the instance metadata cannot be read", extra={"error": str(error)})
                yield Wait(AGAIN, AGAIN)
                continue
            self._stock.subnets = dict(seen.subnets)
            self.inventory.arrived(seen.instance)
            # Where no agent was before, what the metadata shows is there, and nobody's but ours.
            is_fresh = self.inventory.is_new and all(one.is_primary for one in seen.enis)
            is_fresh = is_fresh and not self._usage.addresses()
            if is_fresh:
                self._describe_at = self._clock() + REFRESH * (0.5 + 0.5 * self._random())
            self.inventory.seen(seen.enis, is_doubted=not is_fresh)
            self._trust_at = self._clock() + PATIENCE
            self._watch.started()
            self.nodes = frozenset({Peer(self._node, (seen.address,), ())})
            self._seen = seen
        yield Settle()

    @property
    def _here(self) -> Seen:
        """What the metadata said: known to all that comes after the arrival."""
        assert self._seen is not None
        return self._seen

    def _turn(self) -> Steps[float]:
        """Everything once, until something was done; the seconds until there may be more to do."""
        pause = IDLE
        learning = (self._learn, self._resume, self._look, self._describe, self._appear)
        for part in (*learning, self._extend, self._balance, self._guard, self._tidy):
            try:
                if (yield from part()):
                    return 0.0
            except Later as later:
                pause = max(0.05, min(pause, later.seconds))
            except Lost as error:
                log.warning("EC2 gave no answer", extra={"error": str(error)})
                self._describe_at = min(self._describe_at, self._clock())
            except Refused as error:
                log.error("EC2 refused", extra={"error": str(error)})
        return pause

    def _learn(self) -> Steps[bool]:
        """The limits of the instance's type: the table's at once, so that a start needs no call, or what is assumed
        where nobody tells; then EC2's word, which counts."""
        if self._clock() < self._limits_at:
            return False
        name, known = self._here.type, table.known(self._here.type)
        if known is not None and self._stock.limits is None:
            self._stock.limits, self._limits_at = known, self._clock() + REFRESH * (0.5 + 0.5 * self._random())
            return True
        try:
            answer = yield from self.cloud.ask("DescribeInstanceTypes", InstanceTypes=[name])
        except (Later, Lost, Refused) as error:
            self._stock.limits = self._stock.limits or table.ASSUMED
            if known is None or not isinstance(error, Refused):
                raise
            self.obstacles.passed(error.action, name)  # the table will do, for good
        else:
            self._stock.limits = table.described(answer)
        self._limits_at = float("inf")
        return True

    def _resume(self) -> Steps[bool]:
        yield from self._changes.resume(self._here.instance, self._is_refused)
        return False

    def _is_refused(self, kind: str, name: str) -> bool:
        """Whether EC2 refused lately what that takes, so that it need not even be asked what there is."""
        return any(self.obstacles.of(action, name) is not None for action in _TAKES[kind])

    def _look(self) -> Steps[bool]:
        """Whether others changed something: the metadata's word."""
        seen = yield from self._watch.once()
        if self._watch.is_news:
            self._describe_at = min(self._describe_at, self._clock())
        if seen is None or not seen.networks or seen.networks == self._here.networks:
            return False
        self._seen = self._here._replace(networks=seen.networks)
        yield Settle()
        return True

    def _describe(self) -> Steps[bool]:
        if self._is_unsure and self._clock() >= self._trust_at:
            self.inventory.trust()
            yield Settle()
        if self._clock() < min(self._describe_at, self.inventory.unclear_until):
            return False
        here = model.filters({"attachment.instance-id": self._here.instance})
        found = yield from pages(self.cloud, "DescribeNetworkInterfaces", "NetworkInterfaces", Filters=here)
        self._describe_at = self._clock() + REFRESH * (0.5 + 0.5 * self._random())
        self._stock.has_described = True
        self._guards.described()
        held = {one.id: one.blocks for one in self.inventory.enis.values()}
        changed = self.inventory.described(map(model.eni, found))
        for one in self.inventory.enis.values():
            for block in held.get(one.id, frozenset()) - one.blocks:
                log.warning("EC2 took a block away", extra={"interface": one.id, "block": str(block)})
        yield from self._know_subnets({one.subnet for one in self.inventory.enis.values() if one.address is not None})
        if changed:
            yield Settle()
        return changed

    def _know_subnets(self, names: Collection[str]) -> Steps[None]:
        unknown = sorted(set(names) - self._stock.subnets.keys())
        if unknown:
            answer = yield from self.cloud.ask("DescribeSubnets", SubnetIds=unknown)
            self._stock.learn(model.subnets(answer))

    def _appear(self) -> Steps[bool]:
        """Devices of interfaces that were attached: their addresses can be used now."""
        awaited = frozenset(one.id for one in self._stock.awaited())
        came, self._awaited = self._awaited - awaited, awaited
        if came:
            yield Settle()
        if awaited:
            raise Later("looking for a device", LOOK)
        return bool(came)

    def _extend(self) -> Steps[bool]:
        """An IPv6 prefix, if pods shall have IPv6."""
        mine = [one for one in self.inventory.enis.values() if one.index == PRIMARY and not one.is_unmanaged]
        primary = next(iter(mine), None)
        is_wanted = self._options.ipv6 and primary is not None and not primary.holds(6)
        if primary is None or not is_wanted or self._stock.is_barred(primary, ASSIGN6):
            return False
        yield from self._changes.assign_ipv6(primary.id)
        return True

    def _balance(self) -> Steps[bool]:
        """What the pool wants: the first of it that can be done."""
        pool = self._stock.pool()
        if pool is None or self._is_unsure:
            return False
        self._stock.idle.note(pool)
        later: Later | None = None
        for action in actions(pool, self._options.warm):
            if not isinstance(action, Create) and self._is_held_up(action):
                continue
            self._is_growing = isinstance(action, Assign | Create)
            try:
                yield from self._do(action)
                return True
            except Later as error:
                later = error if later is None or error.seconds < later.seconds else later
            finally:
                self._is_growing = False
        if later is not None:
            raise later
        return False

    def _is_held_up(self, action: Assign | Unassign | Delete) -> bool:
        """Whether another change of the interface is under way, or EC2 refused what it takes: others go on."""
        kind = "assign" if isinstance(action, Assign) else "unassign" if isinstance(action, Unassign) else "delete"
        return self.inventory.is_busy(action.interface) or self._is_refused(kind, action.interface)

    def _do(self, action: Action) -> Steps[None]:
        if isinstance(action, Assign):
            yield from self._changes.assign(action.interface, action.chunks, action.size)
            if self.obstacles.code(ASSIGN, action.interface) == NO_SLOT:
                self._stock.has_at_most(addresses=self.inventory.enis[action.interface].holds(4) + 1)
        elif isinstance(action, Create):
            yield from self._create(action)
            if self.obstacles.code(ATTACH) == NO_INTERFACE:
                self._stock.has_at_most(interfaces=len(self.inventory.enis))
        elif isinstance(action, Unassign):
            yield from self._leaving.unassign(action.interface, frozenset(map(IPNetwork, action.chunks)))
        else:
            yield from self._leaving.delete(action.interface)

    def _create(self, wanted: Create) -> Steps[None]:
        self.cloud.ready(CREATE)
        try:
            subnets = yield from self._placement.subnets(self._here)
            self._stock.learn(subnets)
            groups = yield from self._placement.groups(self._here)
        except Refused as error:
            self.obstacles.unplaced(error)
            raise
        if not groups:
            self.obstacles.unguarded()
            return
        good = [one for one in subnets if self.obstacles.of(CREATE, one.id) is None]
        yield from self._changes.create(self._here.instance, good, groups, wanted.chunks, wanted.size)
        if all(self.obstacles.of(CREATE, one.id) is not None for one in subnets):
            self.obstacles.nowhere(one.id for one in subnets)

    def _guard(self) -> Steps[bool]:
        return (yield from self._guards.once(self._here))

    def _tidy(self) -> Steps[bool]:
        """What was left behind: by this node, interfaces that would outlive it; by dead ones, whole interfaces."""
        for one in self.inventory.enis.values():
            is_free = not self.inventory.is_busy(one.id) and self.obstacles.of(MODIFY, one.id) is None
            if one.is_kept and self.inventory.is_ours(one) and is_free:
                bound = yield from self._changes.bind(one)
                self.inventory.put(bound)
                return not bound.is_kept
        return (yield from self._sweep.once({one.eni for one in self.inventory.intents}))
