"""One node's fabric on the emulated region, on a virtual clock: the real policy, inventory and allocator, no I/O.

``crash`` is what SIGKILL leaves: the journal, the leases and the cloud.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from netaddr import IPAddress, IPNetwork

from backends.aws import model
from backends.aws.calls import failed
from backends.aws.fabric import EniFabric
from backends.aws.model import Seen
from backends.aws.options import EniOptions
from backends.cloud.failures import Lost
from backends.cloud.steps import Call, Look, Settle, Step, Steps, Wait
from cluster.peers import Peer
from cni.errors import Exhausted, TryAgain
from cni.spec import Attachment
from ipam.allocator import Allocator
from ipam.family import Counts
from tests.cloud.region import NoAnswer, Refusal, Region
from tests.fakes.kernel import Killed

LATENCY = 0.2
"""Seconds that a call takes."""


@dataclass(slots=True)
class Clock:
    """Seconds since the epoch."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass(slots=True)
class Blows:
    """The process dies at the *nth* call or journal write from when that was set, before or after it took effect."""

    nth: int = 0
    is_after: bool = False
    count: int = 0
    is_dead: bool = False

    def strike(self, is_after: bool) -> None:
        if not is_after:
            self.count += 1
        if self.nth and self.count == self.nth and is_after == self.is_after:
            self.nth = 0
            self.is_dead = True
            raise Killed


@dataclass(slots=True)
class Journal:
    """What the store keeps."""

    blows: Blows
    kept: dict[str, str] = field(default_factory=dict)

    def recall(self, name: str) -> str | None:
        return self.kept.get(name)

    def remember(self, name: str, value: str) -> None:
        self.blows.strike(is_after=False)
        self.kept[name] = value
        self.blows.strike(is_after=True)


class Machine:
    """An instance of *region* with an agent's fabric on it."""

    def __init__(
        self, region: Region, clock: Clock, instance: str, options: EniOptions | None = None, seed: int = 0
    ) -> None:
        self.region = region
        self.clock = clock
        self.instance = instance
        self.options = options or EniOptions()
        self.blows = Blows()
        self.journal = Journal(self.blows)
        self.allocator = Allocator(30.0)
        self.pods: list[Attachment] = []
        self.parked: dict[Attachment, float] = {}
        self.waits: list[float] = []
        """How many seconds each pod waited for its address."""
        self.is_told = False
        """Whether who drives it turns it at every change of its pods, so that it need not look every second."""
        self.on_settle: Callable[[], None] = lambda: None
        """Called before a pass: the policy has decided by then, and the blocks are still offered as they were."""
        self._random = random.Random(seed)
        self._names = itertools.count(1)
        self.start()

    # --- the agent's life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """A new process."""
        self.fabric = EniFabric(
            node=self.instance,
            options=self.options,
            journal=self.journal,
            usage=self,
            devices=self.devices,
            clock=self.clock,
            wall=self.clock,
            random=self._random.random,
            token=lambda: f"{self._random.getrandbits(128):032x}",
        )
        self._life: Steps[None] = self.fabric.life()
        self._answer: Any = None
        self._error: BaseException | None = None

    def crash(self) -> None:
        """SIGKILL, and a new process: what it knew is what it had saved."""
        leases, released = list(self.allocator.leases.values()), self._released()
        self.allocator = Allocator(30.0)
        self.allocator.restore(leases, released)
        self.blows.is_dead = False
        self.start()

    def turn(self) -> float:
        """One step; the seconds until the next."""
        step = self._next()
        self._answer = self._error = None
        if isinstance(step, Wait):
            self._serve()
            return step.most if self.is_told else step.seconds
        if isinstance(step, Settle):
            self.on_settle()
            self.offer()
            return 0.01
        try:
            self._answer = self._look() if isinstance(step, Look) else self._call(step)
        except (Refusal, NoAnswer) as error:
            what = step.action if isinstance(step, Call) else "instance metadata"
            shown = (error.code, error.message, error.status) if isinstance(error, Refusal) else ("Lost", "", 599)
            self._error = failed(what, *shown)
        return LATENCY + (self.region.took if isinstance(step, Call) else 0.0)

    def run(self, seconds: float) -> None:
        """So much time passes. `Killed`: the process died."""
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.clock.now = min(end, self.clock.now + self.turn())
        self.offer()

    def _next(self) -> Step:
        if self._error is not None:
            return self._life.throw(self._error)
        return self._life.send(self._answer)

    def _call(self, step: Call) -> dict[str, Any]:
        self.blows.strike(is_after=False)
        answer = self.region.call(step.action, step.parameters, self.instance)
        self.blows.strike(is_after=True)
        return answer

    def _look(self) -> Seen:
        unkind = self.region.unkind
        if unkind.metadata_failing and self.region.chance() < unkind.metadata_failing:
            raise NoAnswer
        instance = self.region.instances[self.instance]
        subnet = instance.subnet
        shown = self.region.seen(self.instance)
        if not shown:
            raise AssertionError("an instance has an interface")
        enis = tuple(model.eni(one | {"TagSet": []}) for one in shown)
        subnets = {one.subnet: self.region.subnets[one.subnet].addresses.cidr for one in enis}
        networks = tuple(self.region.vpcs[subnet.vpc])
        where = (self.instance, instance.type, "eu-west-1", subnet.zone, subnet.vpc)
        return Seen(*where, networks, enis, subnets, ("sg-1",))

    # --- what the fabric asks of the rest of the agent ---------------------------------------------------------

    def devices(self) -> Mapping[str, str]:
        return {nic.mac: f"eth{nic.attachment.index}" for nic in self.region.attached(self.instance) if nic.attachment}

    def counts(self) -> Sequence[Counts]:
        return self.allocator.counts(self.clock())

    def busy(self, block: IPNetwork) -> int:
        return self.allocator.busy(block, self.clock())

    def waiting(self) -> int:
        return len(self.parked)

    def offer(self) -> None:
        """What a pass of the reconciler does."""
        for here in self.fabric.nodes:
            self.allocator.offer(self.fabric.supplied(here).blocks)
        self._serve()

    @property
    def here(self) -> Peer:
        (here,) = self.fabric.nodes
        return here

    # --- pods -------------------------------------------------------------------------------------------------

    def add(self, count: int = 1) -> None:
        """ADD of so many pods; who gets no address waits."""
        for _ in range(count):
            self.parked[Attachment("pods", f"{self.instance}-{next(self._names)}", "eth0")] = self.clock()
        self._serve()

    def delete(self, count: int = 1) -> None:
        """DEL of the oldest."""
        for who in self.pods[:count]:
            self.allocator.release(who, self.clock())
        del self.pods[:count]

    def _serve(self) -> None:
        for who, since in list(self.parked.items()):
            try:
                self.allocator.allocate(who, self.clock())
            except (TryAgain, Exhausted):
                return
            del self.parked[who]
            self.pods.append(who)
            self.waits.append(self.clock() - since)

    def _released(self) -> dict[Any, float]:
        found = {}
        for family in self.allocator._families.values():
            for value, when in itertools.chain(family._released.items(), family._elsewhere.items()):
                found[IPAddress(value, family.version)] = when
        return found

    # --- what must hold ---------------------------------------------------------------------------------------

    def addresses(self) -> set[Any]:
        """Those that pods have."""
        return {address for lease in self.allocator.leases.values() for address in lease.addresses}

    def unserved(self) -> set[Any]:
        """Pods' addresses that EC2 does not deliver to this instance."""
        blocks = [block for nic in self.region.attached(self.instance) for block in nic.blocks]
        return {one for one in self.addresses() if not any(one in block for block in blocks)}

    def differences(self) -> list[str]:
        """Between what EC2 has and what the agent knows; nothing, once all is at rest."""
        found = [f"undelivered: {one}" for one in self.fabric.report().undelivered]
        for nic in self.region.nics.values():
            if nic.attachment is None:
                found.append(f"{nic.id} is left behind")
            elif nic.attachment.instance == self.instance:
                known = self.fabric.inventory.enis.get(nic.id)
                if known is None or known.blocks != frozenset(nic.blocks):
                    found.append(f"{nic.id} has {nic.blocks}, the agent knows {known}")
                if not nic.attachment.goes:
                    found.append(f"{nic.id} outlives its instance")
        names = {nic.id for nic in self.region.nics.values()}
        found += [f"{name} is not there any more" for name in self.fabric.inventory.enis.keys() - names]
        return found


def together(machines: Sequence[Machine], seconds: float, clock: Clock) -> None:
    """Time passes for many machines, each with its own life."""
    end = clock.now + seconds
    queue = [(clock.now, number) for number in range(len(machines))]
    heapq.heapify(queue)
    while queue and queue[0][0] < end:
        when, number = heapq.heappop(queue)
        clock.now = max(clock.now, when)
        heapq.heappush(queue, (clock.now + machines[number].turn(), number))
    clock.now = end


__all__ = ["Clock", "Killed", "Lost", "Machine", "together"]
