"""What there is on this node, as the policy of the warm pool and the rest of the agent see it; nothing is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from netaddr import IPNetwork

from backends.cloud.idle import Idle
from backends.cloud.usage import Usage
from backends.cloud.withholding import Held
from backends.gcp.calls import UPDATE
from backends.gcp.changes import Changes
from backends.gcp.holding import Holding
from backends.gcp.model import NIC, Seen
from backends.gcp.options import AliasOptions
from backends.gcp.refusals import GROW, Refusals
from backends.site import Nic
from ipam.warmpool import Pool, Pooled


class Stock:
    """The ranges of *holding*; *devices* answers the names of the machine's links by hardware address."""

    def __init__(
        self,
        *,
        options: AliasOptions,
        holding: Holding,
        changes: Changes,
        obstacles: Refusals,
        usage: Usage,
        devices: Callable[[], Mapping[str, str]],
        clock: Callable[[], float],
    ) -> None:
        self._options = options
        self._holding = holding
        self._changes = changes
        self._obstacles = obstacles
        self._usage = usage
        self._devices = devices
        self.idle = Idle(clock)

    @property
    def most(self) -> int:
        """How many ranges the interface may have."""
        return self._options.most

    @property
    def is_unsure(self) -> bool:
        """Whether which ranges there are is not certain, and the API is asked."""
        return bool(self._holding.doubted)

    def barred(self) -> frozenset[Held]:
        """The ranges that are not offered: they are going, or whether they are here is not certain."""
        return self._holding.leaving | self._holding.doubted | self._changes.withheld

    def interface(self, seen: Seen) -> Nic | None:
        """The machine's interface with the ranges that are the pods', or were when a pod was given an address of them;
        None where it has no device here."""
        device = self._devices().get(seen.mac)
        if device is None:
            return None
        ours = frozenset(self._holding.blocks)
        busy = (block for block in self._holding.ranges if block not in ours and self._usage.busy(block))
        return Nic(device, 0, seen.mac, seen.address, seen.subnet, ours.union(busy))

    def offered(self) -> list[IPNetwork]:
        """The ranges that pods may have addresses of."""
        barred = self.barred()
        return [block for block in self._holding.blocks if (NIC, block) not in barred]

    def pool(self) -> Pool:
        """What there is, as the policy sees it."""
        counts = {one.block.network: one for one in self._usage.counts()}
        chunks = tuple(self.idle.chunk(block, counts.get(block)) for block in self.offered())
        others = len(self._holding.ranges) - len(chunks)
        is_barred = bool(self._holding.intents) or self._obstacles.of(GROW, "") is not None
        slots = max(len(chunks), self.most - others)
        growing = (one for one in self._holding.intents if one.kind == "grow")
        return Pool(
            (Pooled(NIC, slots, chunks, is_fixed=True, is_barred=is_barred or self._options.is_fixed),),
            waiting=self._usage.waiting(),
            coming=sum(one.chunks * one.size for one in growing),
        )

    def is_refused(self) -> bool:
        """Whether the API refused lately what a change takes."""
        return self._obstacles.of(UPDATE, "") is not None
