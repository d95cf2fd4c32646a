"""Which attachment holds which addresses, and why a request for one cannot be served.

Pure: the time arrives as an argument, saving is the caller's. Not thread-safe: the caller holds its lock.
What always holds: no two leases share an address, an address in cool-down is in no lease, and a call that
raises has changed nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import pairwise
from types import MappingProxyType

from netaddr import IPAddress, IPNetwork

from cni.errors import ConfigInvalid, Exhausted, Failure, StateCorrupt, TryAgain
from cni.spec import Attachment
from ipam.family import Counts, Family
from ipam.lease import Block, Lease, Leased


class NoneYet(TryAgain):
    """There is no address now, but there will be."""


class NoneLeft(Exhausted):
    """Every address is in use."""


class Allocator:
    """Gives one address per family out of the offered blocks; *cooldown* is in seconds.

    Addresses never used are given first, then the least recently released one. The caller's clock may be set
    back: a cool-down is then counted anew from that moment at the latest.
    """

    def __init__(self, cooldown: float) -> None:
        self._families: dict[int, Family] = {4: Family(4, cooldown), 6: Family(6, cooldown)}
        self._blocks: frozenset[Block] = frozenset()
        self._leases: dict[Attachment, Lease] = {}
        self._latest = -math.inf

    @property
    def leases(self) -> Mapping[Attachment, Lease]:
        """Every live lease, in the order of allocation: a read-only view, not a copy."""
        return MappingProxyType(self._leases)

    def offer(self, blocks: Set[Block]) -> None:
        """The whole set of blocks that new leases may come from. ValueError: two of them overlap.

        Leases from blocks that are no longer offered stay valid; their addresses cool down like any other.
        """
        if blocks == self._blocks:
            return
        for one, other in pairwise(sorted(blocks, key=lambda block: (block.family, block.network.first))):
            if one.family == other.family and other.network.first <= one.network.last:
                raise ValueError(
                    f"blocks overlap: {one.network} of {one.owner} and {other.network} of {other.owner}"
                )
        self._blocks = frozenset(blocks)
        for version, family in self._families.items():
            family.offer(block for block in blocks if block.family == version)

    def restore(self, leases: Iterable[Lease], released: Mapping[IPAddress, float]) -> None:
        """Replace all leases and the times of release (seconds) with what an earlier process saved.

        StateCorrupt: two leases share an address, or an attachment has two leases.
        """
        restored: dict[Attachment, Lease] = {}
        held: dict[int, dict[int, Attachment]] = {4: {}, 6: {}}
        for lease in leases:
            if lease.who in restored:
                raise StateCorrupt(f"attachment {lease.who} has two saved leases")
            restored[lease.who] = lease
            for address in lease.addresses:
                other = held[address.version].setdefault(int(address), lease.who)
                if other != lease.who:
                    raise StateCorrupt(f"address {address} is leased to both {other} and {lease.who}")
        self._leases = restored
        self._latest = max(released.values(), default=-math.inf)
        for version, family in self._families.items():
            times = {int(address): when for address, when in released.items() if address.version == version}
            family.restore(held[version], times)

    def allocate(self, who: Attachment, now: float, wanted: Sequence[IPAddress] = ()) -> Lease:
        """The lease of *who*: the one it has, else a new one with an address of each family that is offered.

        *wanted* (``runtimeConfig`` ips, at most one per family) are given if they are ours and free. All or
        nothing: ConfigInvalid, TryAgain or Exhausted leave everything as it was.
        """
        self._settle(now)
        if who in self._leases:
            return self._leases[who]
        families = [family for family in self._families.values() if family.ranges]
        if not families:
            raise NoneYet(
                f"no address for {who} yet: this node has no block of pod addresses",
                "it is waiting to be given one; if this lasts, check the node's pod CIDRs and the backend",
            )
        asked = self._asked(who, wanted, now)
        chosen: list[tuple[Family, int]] = []
        for family in families:
            value = asked.get(family.version)
            value = family.next(now) if value is None else value
            if value is None:
                raise _none_left(family, who, now)
            chosen.append((family, value))
        leased = (
            Leased(IPAddress(value, family.version), family.take(value, who)) for family, value in chosen
        )
        lease = self._leases[who] = Lease(who, tuple(leased))
        return lease

    def release(self, who: Attachment, now: float) -> Lease | None:
        """End the lease of *who* and start the cool-down of its addresses; None when it has none."""
        self._settle(now)
        lease = self._leases.pop(who, None)
        for address in lease.addresses if lease is not None else ():
            self._families[address.version].give_back(int(address), now)
        return lease

    def cancel(self, who: Attachment) -> None:
        """End a lease whose addresses never reached a pod: nothing cools down. Absent is not an error."""
        lease = self._leases.pop(who, None)
        for address in lease.addresses if lease is not None else ():
            self._families[address.version].cancel(int(address))

    def busy(self, network: IPNetwork, now: float) -> int:
        """How many addresses of *network* are held or cooling down, be it offered or not."""
        self._settle(now)
        return self._families[network.version].busy(int(network.first), int(network.last), now)

    def counts(self, now: float) -> list[Counts]:
        """The state of every offered block, IPv4 first, lowest first."""
        return [counts for family in self._families.values() for counts in family.counts(now)]

    def _settle(self, now: float) -> None:
        if now < self._latest:
            for family in self._families.values():
                family.rewind(now)
        self._latest = now

    def _asked(self, who: Attachment, wanted: Sequence[IPAddress], now: float) -> dict[int, int]:
        asked: dict[int, int] = {}
        for address in wanted:
            family = self._families[address.version]
            if asked.setdefault(family.version, int(address)) != int(address):
                raise ConfigInvalid(
                    f"runtimeConfig ips: {who} asks for two IPv{family.version} addresses",
                    "an attachment gets one address per family",
                )
            if (failure := self._refusal(family, address, now)) is not None:
                raise failure
        return asked

    def _refusal(self, family: Family, address: IPAddress, now: float) -> Failure | None:
        value = int(address)
        if family.range_of(value) is None:
            for block in self._blocks:
                if address in block.network:
                    return ConfigInvalid(
                        f"runtimeConfig ips: {address} is reserved in block {block.network}",
                        "a subnet's first and last address are not for pods; ask for another",
                    )
            ours = _named(family) if family.ranges else f"no IPv{family.version} block"
            return ConfigInvalid(
                f"runtimeConfig ips: {address} is not an address of this node", f"it has {ours}"
            )
        if value in family.holders:
            return Exhausted(
                f"runtimeConfig ips: {address} is in use by {family.holders[value]}",
                "ask for another address, or delete that attachment first",
            )
        if left := family.cooling(value, now):
            return TryAgain(
                f"runtimeConfig ips: {address} was released a moment ago",
                f"its cool-down ends in {_seconds(left)}",
            )
        return None


def _none_left(family: Family, who: Attachment, now: float) -> Failure:
    used = sum(each.held for each in family.ranges)
    total = sum(each.total for each in family.ranges)
    message = f"no free IPv{family.version} address for {who}: {used} of {total} addresses in use"
    oldest = next(iter(family.released), None)
    source = None if oldest is None else family.range_of(oldest)
    if oldest is None or source is None:
        return NoneLeft(
            f"{message} in {_named(family)}",
            "give this node a larger or a further block of pod addresses, or run fewer pods on it",
        )
    left = _seconds(family.cooling(oldest, now))
    return NoneYet(
        f"{message}, {len(family.released)} cooling down",
        f"next free in {left} (block {source.block.network})",
    )


def _named(family: Family) -> str:
    """The family's blocks for a sentence: a node may have hundreds, a person reads three."""
    names = [str(each.block.network) for each in family.ranges]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _seconds(left: float) -> str:
    # Rounded up: whoever waits that long must not come too early.
    return f"{math.ceil(left)} s"
