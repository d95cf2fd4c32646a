"""What the pool wants (`ipam.warmpool`) and EC2 may give, done: the first of it that can be."""

from __future__ import annotations

from netaddr import IPNetwork

from backends.aws.calls import ASSIGN, ASSIGN6, ATTACH, CREATE
from backends.aws.model import PRIMARY, Seen
from backends.aws.parts import Parts
from backends.aws.refusals import NO_INTERFACE, NO_SLOT
from backends.cloud.asking import Later
from backends.cloud.failures import Refused
from backends.cloud.steps import Steps
from ipam.warmpool import Action, Assign, Create, Delete, Unassign, actions


class Balance:
    """See `once`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._options = parts.options
        self._stock = parts.stock
        self._cloud = parts.cloud
        self._inventory = parts.inventory
        self._obstacles = parts.obstacles
        self.is_growing = False
        """Whether more is being asked for at this moment."""

    def extend(self) -> Steps[bool]:
        """An IPv6 prefix, if pods shall have IPv6."""
        mine = [one for one in self._inventory.enis.values() if one.index == PRIMARY and not one.is_unmanaged]
        primary = next(iter(mine), None)
        is_wanted = self._options.ipv6 and primary is not None and not primary.holds(6)
        if primary is None or not is_wanted or self._stock.is_barred(primary, ASSIGN6):
            return False
        yield from self._parts.changes.assign_ipv6(primary.id)
        return True

    def once(self, here: Seen) -> Steps[bool]:
        """What the pool wants: the first of it that can be done. True: something was; *here* is this instance."""
        pool = self._stock.pool()
        if pool is None or self._stock.is_unsure:
            return False
        self._stock.idle.note(pool)
        later: Later | None = None
        for action in actions(pool, self._options.warm):
            if not isinstance(action, Create) and self._is_held_up(action):
                continue
            self.is_growing = isinstance(action, Assign | Create)
            try:
                yield from self._do(action, here)
                return True
            except Later as error:
                later = error if later is None or error.seconds < later.seconds else later
            finally:
                self.is_growing = False
        if later is not None:
            raise later
        return False

    def _is_held_up(self, action: Assign | Unassign | Delete) -> bool:
        """Whether another change of the interface is under way, or EC2 refused what it takes: others go on."""
        kind = "assign" if isinstance(action, Assign) else "unassign" if isinstance(action, Unassign) else "delete"
        return self._inventory.is_busy(action.interface) or self._obstacles.is_refused(kind, action.interface)

    def _do(self, action: Action, here: Seen) -> Steps[None]:
        if isinstance(action, Assign):
            yield from self._parts.changes.assign(action.interface, action.chunks, action.size)
            if self._obstacles.code(ASSIGN, action.interface) == NO_SLOT:
                self._stock.has_at_most(addresses=self._inventory.enis[action.interface].holds(4) + 1)
        elif isinstance(action, Create):
            yield from self._create(action, here)
            if self._obstacles.code(ATTACH) == NO_INTERFACE:
                self._stock.has_at_most(interfaces=len(self._inventory.enis))
        elif isinstance(action, Unassign):
            yield from self._parts.leaving.unassign(action.interface, frozenset(map(IPNetwork, action.chunks)))
        else:
            yield from self._parts.leaving.delete(action.interface)

    def _create(self, wanted: Create, here: Seen) -> Steps[None]:
        self._cloud.ready(CREATE)
        try:
            subnets = yield from self._parts.placement.subnets(here)
            self._stock.learn(subnets)
            groups = yield from self._parts.placement.groups(here)
        except Refused as error:
            self._obstacles.unplaced(error)
            raise
        if not groups:
            self._obstacles.unguarded()
            return
        good = [one for one in subnets if self._obstacles.of(CREATE, one.id) is None]
        yield from self._parts.changes.create(here.instance, good, groups, wanted.chunks, wanted.size)
        if all(self._obstacles.of(CREATE, one.id) is not None for one in subnets):
            self._obstacles.nowhere(one.id for one in subnets)
