"""The life of ``aws-eni``'s fabric: in turns, what it wants of the outside.

What was cut off comes first, then EC2's word on what there is, then what the pool wants (`balance`), then tidying.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Final

from backends.aws import limits as table
from backends.aws import model
from backends.aws.balance import Balance
from backends.aws.calls import MODIFY, pages
from backends.aws.model import Seen
from backends.aws.parts import Parts
from backends.cloud.asking import Later
from backends.cloud.failures import Lost, Refused
from backends.cloud.ownnode import OwnNode
from backends.cloud.steps import Settle, Steps, Wait
from backends.cloud.turns import TICK, turn

log = logging.getLogger(__name__)

REFRESH: Final = 600.0
"""Seconds between EC2's words on what there is, at most; at least half as many, so that nodes do not ask together."""
PATIENCE: Final = 10.0
"""Seconds for which a restarted agent waits for EC2's word, before it gives addresses by what the metadata shows."""
LOOK: Final = 0.5
"""Seconds between looks for the device of an interface that was attached, which cost EC2 nothing."""


class Turns:
    """The life of the fabric of the node that *source* tells of. One thread goes through `life`; any may read."""

    def __init__(self, source: OwnNode, parts: Parts, clock: Callable[[], float], random: Callable[[], float]) -> None:
        self._source = source
        self._parts = parts
        self._stock = parts.stock
        self._cloud = parts.cloud
        self._inventory = parts.inventory
        self._obstacles = parts.obstacles
        self._clock = clock
        self._random = random
        self.balance = Balance(parts)
        self._limits_at = 0.0
        self._describe_at = 0.0
        self._trust_at = 0.0
        self._awaited: frozenset[str] = frozenset()
        self.seen: Seen | None = None
        """What the instance metadata said."""

    def life(self) -> Steps[None]:
        """Never ends."""
        yield from self._arrive()
        while True:
            pause = yield from self._turn()
            yield Wait(min(TICK, pause), pause)

    def _arrive(self) -> Steps[None]:
        seen: Seen = yield from self._source.read()
        self._stock.subnets = dict(seen.subnets)
        self._inventory.arrived(seen.instance)
        # Where no agent was before, what the metadata shows is there, and nobody's but ours.
        is_fresh = self._inventory.is_new and all(one.is_primary for one in seen.enis)
        is_fresh = is_fresh and not self._parts.usage.addresses()
        if is_fresh:
            self._describe_at = self._clock() + REFRESH * (0.5 + 0.5 * self._random())
        self._inventory.seen(seen.enis, held=self._parts.usage.blocks(), is_doubted=not is_fresh)
        self._trust_at = self._clock() + PATIENCE
        self._parts.watch.started()
        self._source.is_at(seen.address)
        self.seen = seen
        yield Settle()

    @property
    def _here(self) -> Seen:
        """What the metadata said: known to all that comes after the arrival."""
        assert self.seen is not None
        return self.seen

    def _turn(self) -> Steps[float]:
        """Everything once, until something was done; the seconds until there may be more to do."""
        learning = (self._learn, self._resume, self._look, self._describe, self._appear)
        growing = (self.balance.extend, lambda: self.balance.once(self._here))
        return (yield from turn((*learning, *growing, self._guard, self._tidy), "EC2", self.ask))

    def ask(self) -> None:
        """EC2 is asked what there is as soon as it may be."""
        self._describe_at = min(self._describe_at, self._clock())

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
            answer = yield from self._cloud.ask("DescribeInstanceTypes", InstanceTypes=[name])
        except (Later, Lost, Refused) as error:
            self._stock.limits = self._stock.limits or table.ASSUMED
            if known is None or not isinstance(error, Refused):
                raise
            self._obstacles.passed(error.action, name)  # the table will do, for good
        else:
            self._stock.limits = table.described(answer)
        self._limits_at = float("inf")
        return True

    def _resume(self) -> Steps[bool]:
        yield from self._parts.changes.resume(self._here.instance, self._obstacles.is_refused)
        return False

    def _look(self) -> Steps[bool]:
        """Whether others changed something: the metadata's word, which counts for what EC2 is not asked about."""
        seen = yield from self._parts.watch.once()
        if self._parts.watch.is_news:
            self.ask()
        if seen is None:
            return False
        before = self._here
        self.seen = before._replace(networks=seen.networks or before.networks, groups=seen.groups or before.groups)
        if self.seen.networks == before.networks:
            return False
        yield Settle()
        return True

    def _describe(self) -> Steps[bool]:
        if self._stock.is_unsure and self._clock() >= self._trust_at:
            self._inventory.trust()
            yield Settle()
        if self._clock() < min(self._describe_at, self._inventory.unclear_until):
            return False
        here = model.filters({"attachment.instance-id": self._here.instance})
        found = yield from pages(self._cloud, "DescribeNetworkInterfaces", "NetworkInterfaces", Filters=here)
        self._describe_at = self._clock() + REFRESH * (0.5 + 0.5 * self._random())
        self._stock.has_described = True
        self._parts.guards.described()
        held = {one.id: one.blocks for one in self._inventory.enis.values()}
        changed = self._inventory.described(map(model.eni, found))
        for one in self._inventory.enis.values():
            for block in held.get(one.id, frozenset()) - one.blocks:
                log.warning("EC2 took a block away", extra={"interface": one.id, "block": str(block)})
        yield from self._know_subnets({one.subnet for one in self._inventory.enis.values() if one.address is not None})
        if changed:
            yield Settle()
        return changed

    def _know_subnets(self, names: Collection[str]) -> Steps[None]:
        unknown = sorted(set(names) - self._stock.subnets.keys())
        if unknown:
            answer = yield from self._cloud.ask("DescribeSubnets", SubnetIds=unknown)
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

    def _guard(self) -> Steps[bool]:
        return (yield from self._parts.guards.once(self._here))

    def _tidy(self) -> Steps[bool]:
        """What was left behind: by this node, interfaces that would outlive it; by dead ones, whole interfaces."""
        for one in self._inventory.enis.values():
            is_free = not self._inventory.is_busy(one.id) and self._obstacles.of(MODIFY, one.id) is None
            if one.is_kept and self._inventory.is_ours(one) and is_free:
                bound = yield from self._parts.changes.bind(one)
                self._inventory.put(bound)
                return not bound.is_kept
        return (yield from self._parts.sweep.once({one.eni for one in self._inventory.intents}))
