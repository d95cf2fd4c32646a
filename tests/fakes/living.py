"""One node's fabric on an emulated cloud, on a virtual clock: the real policy, journal and allocator, no I/O.

``crash`` is what SIGKILL leaves: the journal, the leases and the cloud. What a cloud has of its own, a subclass does.
"""

from __future__ import annotations

import heapq
import itertools
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from netaddr import IPAddress, IPNetwork

from backends.cloud.failures import CloudError
from backends.cloud.steps import Call, Look, Settle, Step, Steps, Wait
from cluster.peers import Peer, Source
from cni.errors import Exhausted, TryAgain
from cni.spec import Attachment
from ipam.allocator import Allocator
from ipam.family import Counts
from ipam.lease import Block
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


class Living(ABC):
    """An instance called *instance* with an agent's fabric on it."""

    def __init__(self, clock: Clock, instance: str, seed: int) -> None:
        self.clock = clock
        self.instance = instance
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
        self.took = 0.0
        """How many seconds the last step took, beside `LATENCY`."""
        self._random = random.Random(seed)
        self._names = itertools.count(1)
        self.start()

    # --- what a cloud has of its own ----------------------------------------------------------------------------

    @abstractmethod
    def made(self) -> tuple[Source, Steps[None]]:
        """A new process's fabric, and its life."""

    @abstractmethod
    def offered(self) -> None:
        """Offer what the fabric supplies."""

    @abstractmethod
    def perform(self, step: Call | Look) -> Any:
        """The answer; it sets *took*. CloudError: there is none."""

    # --- the agent's life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """A new process."""
        self._source, self._life = self.made()
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
        self.took = 0.0
        try:
            self._answer = self.perform(step)
        except CloudError as error:
            self._error = error
        return LATENCY + self.took

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

    # --- what the fabric asks of the rest of the agent ---------------------------------------------------------

    def counts(self) -> Sequence[Counts]:
        return self.allocator.counts(self.clock())

    def busy(self, block: IPNetwork) -> int:
        return self.allocator.busy(block, self.clock())

    def waiting(self) -> int:
        return len(self.parked)

    def addresses(self) -> set[Any]:
        """Those that pods have."""
        return {address for lease in self.allocator.leases.values() for address in lease.addresses}

    def blocks(self) -> frozenset[Block]:
        """Those that these are of."""
        return frozenset(one.block for lease in self.allocator.leases.values() for one in lease.leased)

    def offer(self) -> None:
        """What a pass of the reconciler does."""
        if self._source.nodes:
            self.offered()
        self._serve()

    @property
    def here(self) -> Peer:
        (here,) = self._source.nodes
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


def together(machines: Sequence[Living], seconds: float, clock: Clock) -> None:
    """Time passes for many machines, each with its own life."""
    end = clock.now + seconds
    queue = [(clock.now, number) for number in range(len(machines))]
    heapq.heapify(queue)
    while queue and queue[0][0] < end:
        when, number = heapq.heappop(queue)
        clock.now = max(clock.now, when)
        heapq.heappush(queue, (clock.now + machines[number].turn(), number))
    clock.now = end
