"""Where ``aws-eni`` has its addresses from: one thread's life, as a generator of what it wants of the outside.

In turns: what was cut off comes first, then EC2's word on what there is, then what `ipam.warmpool` wants, then tidying.
A part that may not go on now (EC2 throttles, or gives no answer) does not keep the others from it. What always holds:
a block is offered only while it is on an interface whose device is here and is wired, and is not about to go.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

from netaddr import IPAddress, IPNetwork, IPSet

from backends.aws import limits as table
from backends.aws import model
from backends.aws.calls import Look, Lost, Refused, Steps
from backends.aws.changes import Changes, Instance
from backends.aws.changes import Usage as Busy
from backends.aws.cloud import Cloud, Later
from backends.aws.inventory import Inventory, Journal
from backends.aws.model import PRIMARY, Eni, Limits, Seen, Subnet
from backends.aws.obstacles import DENIED, Obstacles
from backends.aws.options import Options
from backends.aws.pacing import Pacer
from backends.aws.sweep import Sweep
from backends.steps import Settle, Wait
from backends.wiring import Interface, Report, Shortage, Supplied
from cluster.peers import Peer
from cni.errors import Exhausted, Failure, TryAgain
from ipam.family import Counts
from ipam.lease import Block
from ipam.warmpool import Action, Assign, Chunk, Create, Pool, Unassign, actions, shortfall
from ipam.warmpool import Interface as Pooled

log = logging.getLogger(__name__)

TICK: Final = 1.0
"""Seconds between looks at the pool, unless a pod waits."""
IDLE: Final = 10.0
"""Seconds between looks of one who is told of every change of the pool: time passes for what cools down and idles."""
REFRESH: Final = 600.0
"""Seconds between EC2's words on what there is, at most; at least half as many, so that nodes do not ask together."""
AGAIN: Final = 3.0
"""Seconds until a change whose end is not known is looked at again."""


class Usage(Busy, Protocol):
    """Who uses the addresses, and who waits for one."""

    def counts(self) -> Sequence[Counts]:
        """The state of every block that is offered."""

    def waiting(self) -> int:
        """How many pods wait for an address."""

    def addresses(self) -> Collection[IPAddress]:
        """Those that pods have."""


class Fabric:
    """`backends.wiring.Fabric` and `cluster.peers.Source` on the node *node*. One thread runs `life`; any may read.

    *devices* answers the names of the machine's links by hardware address, *clock* seconds since the epoch, *random*
    numbers from 0 to 1, *token* a new ClientToken.
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
    ) -> None:
        self._node = node
        self._options = options
        self._usage = usage
        self._devices = devices
        self._clock = clock
        self._random = random
        self.cloud = Cloud(Pacer(random), clock)
        self.inventory = Inventory(journal, clock)
        self.obstacles = Obstacles(clock)
        self._changes = Changes(
            options=options,
            inventory=self.inventory,
            cloud=self.cloud,
            obstacles=self.obstacles,
            usage=usage,
            devices=devices,
            token=token,
            clock=clock,
        )
        self._sweep = Sweep(options.cluster, self.cloud, clock, random)
        self._seen: Seen | None = None
        self._limits: Limits | None = None
        self._limits_at = 0.0
        self._describe_at = 0.0
        self._has_described = False
        self._resume_at = 0.0
        self._subnets: Mapping[str, IPNetwork] = {}
        self._idle_since: dict[str, float] = {}
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
        """See `backends.wiring.Fabric.supplied`."""
        seen = self._seen
        found = self._interfaces()
        gone = self.inventory.leaving | self._changes.withheld
        offered = [
            Block(block, one.id, reserve=False)
            for one, interface in found
            for block in interface.blocks - gone
            if self._is_for_pods(one) and (block.version == 6 or interface.index >= self._options.reserved)
        ]
        if self._options.ipv6 and {block.family for block in offered} != {4, 6}:
            offered = []  # a pod that is added now would never have an address of the other family
        networks = seen.networks if seen is not None else ()
        return Supplied(tuple(interface for _, interface in found), networks, frozenset(offered))

    def shortage(self, failure: Failure) -> Shortage:
        """See `backends.wiring.Fabric.shortage`: how many there are, and what is waited for or stands in the way."""
        pool, most = self._pool(), self._most()
        if self._seen is None:
            return Shortage(self.problem, may_end=True)
        if pool is None:
            unknown = f"how many addresses a {self._seen.type} can have is not known yet"
            return Shortage(TryAgain(unknown, "EC2 (DescribeInstanceTypes) has not answered"), may_end=True)
        obstacles = self.obstacles.all()
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
        """See `backends.wiring.Fabric.report`."""
        return Report(
            cloud="EC2",
            interfaces=len(self.inventory.enis),
            most=self._most(),
            obstacles=tuple(map(str, self.obstacles.all())),
            under_way=tuple(f"{one.kind} {one.eni or one.subnet}" for one in self.inventory.intents),
            calls=dict(self.cloud.calls),
            undelivered=tuple(map(str, self._undelivered())),
        )

    def _undelivered(self) -> list[IPAddress]:
        """Addresses of pods that are on none of the interfaces any more."""
        blocks = IPSet(block for one in self.inventory.enis.values() for block in one.blocks)
        return sorted(one for one in self._usage.addresses() if one not in blocks) if self._seen is not None else []

    def _can_grow(self, pool: Pool) -> bool:
        wanted = actions(replace(pool, waiting=pool.free + 1), self._options.warm)
        return self._is_growing or any(isinstance(one, Assign | Create) for one in wanted)

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
            self._subnets = dict(seen.subnets)
            if self.inventory.is_new and all(one.index == PRIMARY for one in seen.enis):
                # No agent was here before: what the metadata shows is there, and nobody's but ours.
                self._describe_at = self._clock() + REFRESH * (0.5 + 0.5 * self._random())
            self.inventory.seen(seen.enis)
            primary = next(one for one in seen.enis if one.index == PRIMARY)
            self.nodes = frozenset({Peer(self._node, (primary.address,), ())})
            self._seen = seen
        yield Settle()

    def _turn(self) -> Steps[float]:
        """Everything once, until something was done; the seconds until there may be more to do."""
        pause = IDLE
        for part in (self._learn, self._resume, self._describe, self._extend, self._balance, self._tidy):
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
                self.obstacles.refused(error, "", "")
        return pause

    def _learn(self) -> Steps[bool]:
        """The limits of the instance's type: EC2's word, or the table's where it may not be asked."""
        assert self._seen is not None
        if self._clock() < self._limits_at:
            return False
        known = table.known(self._seen.type)
        try:
            answer = yield from self.cloud.ask("DescribeInstanceTypes", InstanceTypes=[self._seen.type])
        except Refused as error:
            if error.code != DENIED or known is None:
                raise
            self._limits, self._limits_at = known, float("inf")
            return True
        except (Later, Lost):
            self._limits = self._limits or known
            raise
        self._limits, self._limits_at = table.described(answer), float("inf")
        return True

    def _resume(self) -> Steps[bool]:
        if not self.inventory.intents or self._clock() < self._resume_at:
            return False
        self._resume_at = self._clock() + AGAIN
        instance = self._instance()
        for intent in self.inventory.intents:
            try:
                yield from self._changes.resume(intent, instance)
            except Refused as error:
                log.error("a change that was cut off is refused", extra={"error": str(error)})
        return False

    def _describe(self) -> Steps[bool]:
        if self._clock() < self._describe_at:
            return False
        here = [{"Name": "attachment.instance-id", "Values": [self._instance().id]}]
        found = yield from self.cloud.all("DescribeNetworkInterfaces", "NetworkInterfaces", Filters=here)
        self._describe_at = self._clock() + REFRESH * (0.5 + 0.5 * self._random())
        self._has_described = True
        held = {one.id: one.blocks for one in self.inventory.enis.values()}
        changed = self.inventory.described(map(model.eni, found))
        for one in self.inventory.enis.values():
            for block in held.get(one.id, frozenset()) - one.blocks:
                log.warning("EC2 took a block away", extra={"interface": one.id, "block": str(block)})
        yield from self._know_subnets({one.subnet for one in self.inventory.enis.values()})
        if changed:
            yield Settle()
        return changed

    def _know_subnets(self, names: Collection[str]) -> Steps[None]:
        unknown = sorted(set(names) - self._subnets.keys())
        if unknown:
            answer = yield from self.cloud.ask("DescribeSubnets", SubnetIds=unknown)
            self._subnets = {**self._subnets, **{one.id: one.cidr for one in model.subnets(answer)}}

    def _extend(self) -> Steps[bool]:
        """An IPv6 prefix, if pods shall have IPv6."""
        primary = next((one for one in self.inventory.enis.values() if one.index == PRIMARY), None)
        is_wanted = self._options.ipv6 and primary is not None and not primary.holds(6)
        if primary is None or not is_wanted or self._is_barred(primary):
            return False
        yield from self._changes.assign_ipv6(primary.id)
        return True

    def _balance(self) -> Steps[bool]:
        """What the pool wants: the first of it that can be done."""
        pool = self._pool()
        if pool is None:
            return False
        self._note_idle(pool)
        later: Later | None = None
        for action in actions(pool, self._options.warm):
            if not isinstance(action, Create) and self.inventory.is_busy(action.interface):
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

    def _do(self, action: Action) -> Steps[None]:
        if isinstance(action, Assign):
            yield from self._changes.assign(action.interface, action.chunks, action.size)
        elif isinstance(action, Create):
            subnets = yield from self._candidates()
            good = [one for one in subnets if self.obstacles.of(one.id) is None]
            yield from self._changes.create(self._instance(), good, action.chunks, action.size)
            if all(self.obstacles.of(one.id) is not None for one in subnets):
                self.obstacles.nowhere(one.id for one in subnets)
        elif isinstance(action, Unassign):
            yield from self._changes.unassign(action.interface, frozenset(map(IPNetwork, action.chunks)))
        else:
            yield from self._changes.delete(action.interface)

    def _candidates(self) -> Steps[list[Subnet]]:
        """Where an interface may be made, the most free addresses first."""
        assert self._seen is not None
        self.cloud.ready("CreateNetworkInterface")
        wanted: dict[str, Any] = {"SubnetIds": list(self._options.subnets)}
        if not self._options.subnets and self._options.subnet_tags:
            filters = {f"tag:{key}": value for key, value in self._options.subnet_tags.items()}
            filters["availability-zone"] = self._seen.zone
            wanted = {"Filters": [{"Name": name, "Values": [value]} for name, value in sorted(filters.items())]}
        elif not self._options.subnets:
            wanted = {"SubnetIds": [one.subnet for one in self.inventory.enis.values() if one.index == PRIMARY]}
        answer = yield from self.cloud.ask("DescribeSubnets", **wanted)
        here = [one for one in answer["Subnets"] if one.get("AvailabilityZone", self._seen.zone) == self._seen.zone]
        found = model.subnets({"Subnets": here})
        self._subnets = {**self._subnets, **{one.id: one.cidr for one in found}}
        return found

    def _tidy(self) -> Steps[bool]:
        """What was left behind: by this node, interfaces that would outlive it; by dead ones, whole interfaces."""
        for one in self.inventory.enis.values():
            if one.is_kept and self.inventory.is_ours(one) and not self.inventory.is_busy(one.id):
                bound = yield from self._changes.bind(one)
                self.inventory.put(bound)
                return not bound.is_kept
        return (yield from self._sweep.once({one.eni for one in self.inventory.intents}))

    # --- the pool ---------------------------------------------------------------------------------------------

    def _pool(self) -> Pool | None:
        """What there is, as the policy sees it; None while the limits are not known."""
        limits = self._limits
        if limits is None:
            return None
        counts = {one.block.network: one for one in self._usage.counts()}
        gone = self.inventory.leaving | self._changes.withheld
        has_prefixes = limits.has_prefixes and self.obstacles.of(Obstacles.PREFIXES) is None
        pooled = []
        for one, interface in self._interfaces():
            if interface.index < self._options.reserved or not self._is_for_pods(one):
                continue
            chunks = tuple(self._chunk(block, counts) for block in sorted(one.blocks - gone) if block.version == 4)
            room = 0 if self._is_barred(one) else limits.slots - one.holds(4)
            pooled.append(Pooled(one.id, max(0, room) + len(chunks), chunks, not self.inventory.is_ours(one)))
        is_barred = self.obstacles.of(Obstacles.INTERFACES) or self.obstacles.of(Obstacles.ALL)
        coming = sum(one.kind == "create" for one in self.inventory.intents)
        left = 0 if is_barred else self._most() - len(self.inventory.enis) - coming
        return Pool(
            tuple(pooled),
            waiting=self._usage.waiting(),
            slots_of_new=limits.slots,
            interfaces_left=max(0, left),
            has_prefixes=has_prefixes,
        )

    def _chunk(self, block: IPNetwork, counts: Mapping[IPNetwork, Counts]) -> Chunk:
        name, now = str(block), self._clock()
        found = counts.get(block)
        used, cooling = (found.used, found.cooling) if found is not None else (0, 0)
        return Chunk(name, int(block.size), used, cooling, now - self._idle_since.get(name, now))

    def _note_idle(self, pool: Pool) -> None:
        """Since when each block has not been used."""
        now = self._clock()
        self._idle_since = {one.name: self._idle_since.get(one.name, now) for one in pool.chunks if one.is_empty}

    def _is_barred(self, one: Eni) -> bool:
        """Whether it can have no more blocks now."""
        keys = (one.id, one.subnet, Obstacles.ALL)
        return self.inventory.is_busy(one.id) or any(self.obstacles.of(key) is not None for key in keys)

    def _most(self) -> int:
        return min(self._options.interfaces, self._limits.interfaces) if self._limits is not None else 0

    def _is_for_pods(self, one: Eni) -> bool:
        """Whether it is the agent's business: the primary interface, and those that an agent made."""
        return one.index == PRIMARY or self.inventory.is_ours(one)

    def _is_wired(self, one: Eni) -> bool:
        """Whether it is, or pods use it and EC2 has not yet been asked whose it is: the journal was lost."""
        return self._is_for_pods(one) or (not self._has_described and any(map(self._usage.busy, one.blocks)))

    def _interfaces(self) -> list[tuple[Eni, Interface]]:
        """The interfaces that pods use, by their index."""
        devices = self._devices()
        found = []
        for one in self.inventory.enis.values():
            subnet, device = self._subnets.get(one.subnet), devices.get(one.mac)
            if self._is_wired(one) and one.index is not None and subnet is not None and device is not None:
                found.append((one, Interface(device, one.index, one.mac, one.address, subnet, one.blocks)))
        return sorted(found, key=lambda pair: pair[1].index)

    def _instance(self) -> Instance:
        assert self._seen is not None
        return Instance(self._seen.instance, self._seen.groups)
