"""What there is on this node, as the policy of the warm pool and the rest of the agent see it; nothing is asked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

from netaddr import IPNetwork

from backends.aws.calls import ASSIGN, ATTACH, CREATE
from backends.aws.inventory import Inventory
from backends.aws.leaving import Leaving
from backends.aws.model import PRIMARY, Eni, Limits, Subnet
from backends.aws.options import EniOptions
from backends.aws.refusals import PREFIXES, Refusals
from backends.cloud.idle import Idle
from backends.cloud.usage import Usage
from backends.cloud.withholding import Held
from backends.site import Nic
from ipam.warmpool import Pool, Pooled

APPEARS: Final = 60.0
"""Seconds for an attached interface to appear as a device, at most: after these it is counted on no more."""


class Stock:
    """The interfaces of *inventory* that have a device here, and their blocks.

    What is learned on the way is put in: *limits* of the instance's type, *subnets* by id, and whether EC2
    *has_described* what is attached.
    """

    def __init__(
        self,
        *,
        options: EniOptions,
        inventory: Inventory,
        leaving: Leaving,
        obstacles: Refusals,
        usage: Usage,
        devices: Callable[[], Mapping[str, str]],
        clock: Callable[[], float],
    ) -> None:
        self._options = options
        self._inventory = inventory
        self._leaving = leaving
        self._obstacles = obstacles
        self._usage = usage
        self._devices = devices
        self.idle = Idle(clock)
        self.limits: Limits | None = None
        self.subnets: Mapping[str, IPNetwork] = {}
        self.has_described = False

    @property
    def most(self) -> int:
        """How many interfaces may be attached; 0 while that is not known."""
        return min(self._options.interfaces, self.limits.interfaces) if self.limits is not None else 0

    @property
    def is_unsure(self) -> bool:
        """Whether the metadata alone says what there is, and EC2 may soon."""
        return bool(self._inventory.doubted) and not self.has_described and not self._inventory.is_trusting

    def has_at_most(self, *, addresses: int | None = None, interfaces: int | None = None) -> None:
        """EC2 refused more *addresses* per interface, or more *interfaces*, than these: where the limits were only
        assumed, they are that; where they are known, something else takes the place, and it passes."""
        if self.limits is not None and self.limits.is_assumed:
            self.limits = self.limits._replace(
                addresses=min(self.limits.addresses, addresses or self.limits.addresses),
                interfaces=min(self.limits.interfaces, interfaces or self.limits.interfaces),
            )

    def learn(self, subnets: Iterable[Subnet]) -> None:
        """Know these subnets, too."""
        self.subnets = {**self.subnets, **{one.id: one.cidr for one in subnets}}

    def interfaces(self) -> list[tuple[Eni, Nic]]:
        """The interfaces that pods use, by their index."""
        devices = self._devices()
        found = []
        for one in self._inventory.enis.values():
            subnet, device = self.subnets.get(one.subnet), devices.get(one.mac)
            if not self._is_wired(one) or one.index is None or one.address is None:
                continue
            if subnet is not None and device is not None:
                found.append((one, Nic(device, one.index, one.mac, one.address, subnet, self._wired(one))))
        return sorted(found, key=lambda pair: pair[1].index)

    def offered(self, interfaces: Iterable[tuple[Eni, Nic]]) -> list[tuple[Eni, IPNetwork]]:
        """The blocks of *interfaces* that pods may have addresses of, and where they are."""
        barred = self.barred()
        return [
            (one, block)
            for one, interface in interfaces
            for block in interface.blocks
            if (one.id, block) not in barred
            and self._is_for_pods(one)
            and not self._is_foreign(block)
            and (block.version == 6 or interface.index >= self._options.reserved)
        ]

    def pool(self) -> Pool | None:
        """What there is, as the policy sees it; None while the limits are not known."""
        limits = self.limits
        if limits is None:
            return None
        counts = {one.block.network: one for one in self._usage.counts()}
        barred = self.barred()
        has_prefixes = limits.has_prefixes and self._obstacles.of(PREFIXES) is None
        pooled = []
        for one, interface in self.interfaces():
            if interface.index < self._options.reserved or not self._is_for_pods(one):
                continue
            chunks = tuple(self.idle.chunk(block, counts.get(block)) for block in self._for_pods(one, barred))
            slots = max(0, limits.slots - one.holds(4)) + len(chunks)
            is_fixed = one.index == PRIMARY or any(map(self._is_foreign, one.blocks))
            is_barred = self.is_barred(one)
            pooled.append(Pooled(one.id, slots, chunks, is_fixed=is_fixed, is_barred=is_barred))
        is_barred = any(self._obstacles.of(action) is not None for action in (CREATE, ATTACH))
        moving = sum(one.kind in ("create", "delete") for one in self._inventory.intents)
        left = 0 if is_barred else self.most - len(self._inventory.enis) - moving
        return Pool(
            tuple(pooled),
            waiting=self._usage.waiting(),
            coming=self._coming(),
            slots_of_new=limits.slots,
            interfaces_left=max(0, left),
            has_prefixes=has_prefixes,
        )

    def awaited(self) -> list[Eni]:
        """The interfaces for pods that were attached lately and have no device yet: EC2 takes seconds for that."""
        devices = self._devices()
        return [
            one
            for one in self._inventory.enis.values()
            if one.mac not in devices
            and one.index is not None
            and one.index >= self._options.reserved
            and self._is_for_pods(one)
            and self._inventory.age(one.id) < APPEARS
        ]

    def barred(self) -> frozenset[Held]:
        """The blocks that are not offered: they are going, or whether they are here is not certain."""
        inventory = self._inventory
        return inventory.leaving | inventory.doubted | inventory.conflicts | self._leaving.withheld

    def _coming(self) -> int:
        """Addresses that were asked for together with their interface, which is not here yet."""
        made = sum(one.chunks * one.size for one in self._inventory.intents if one.kind == "create")
        return made + sum(int(block.size) for one in self.awaited() for block in one.blocks if block.version == 4)

    def _for_pods(self, one: Eni, barred: Collection[Held]) -> list[IPNetwork]:
        blocks = (block for block in one.blocks if block.version == 4 and not self._is_foreign(block))
        return sorted(block for block in blocks if (one.id, block) not in barred)

    def is_barred(self, one: Eni, action: str = ASSIGN) -> bool:
        """Whether it can have no more blocks now, by that *action*."""
        return self._inventory.is_busy(one.id) or self._obstacles.of(action, one.id, one.subnet) is not None

    def _wired(self, one: Eni) -> frozenset[IPNetwork]:
        """Its blocks that are the pods', or were when a pod was given an address of them."""
        return frozenset(block for block in one.blocks if not self._is_foreign(block) or self._usage.busy(block))

    def _is_foreign(self, block: IPNetwork) -> bool:
        """Whether an address of it is something else's, as the operator says."""
        return any(block in one or one in block for one in self._options.foreign)

    def _is_for_pods(self, one: Eni) -> bool:
        """Whether it is the agent's business: the primary interface, and those that an agent made; but nothing that
        somebody wants for himself."""
        return not one.is_unmanaged and (one.index == PRIMARY or self._inventory.is_ours(one))

    def _is_wired(self, one: Eni) -> bool:
        """Whether it is, or pods use it and EC2 has not yet been asked whose it is (the journal was lost), or it has
        become somebody's who leaves them their addresses."""
        is_unclear = one.is_unmanaged or not self.has_described
        return self._is_for_pods(one) or (is_unclear and any(map(self._usage.busy, one.blocks)))
