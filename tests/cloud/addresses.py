"""The addresses of one subnet of the emulated VPC: which are taken, singly or as whole prefixes. Exact, and fast.

The lowest that is free is given, so that what was given back comes again at once: AWS promises no order.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from netaddr import IPAddress, IPNetwork

PREFIX = 16
"""Addresses in a /28."""
_FULL = (1 << PREFIX) - 1


class SubnetFull(Exception):
    """No address is left: nothing was taken."""


class Fragmented(Exception):
    """Addresses are left, but no wholly free /28: nothing was taken."""


class Addresses:
    """Of *cidr*, a /16 to a /28. The first four and the last are reserved, as in every subnet of a VPC."""

    def __init__(self, cidr: IPNetwork) -> None:
        self.cidr = cidr
        self.is_last_first = False
        """Whether what was given back last is what is given next."""
        self._first = int(cidr.first)
        self._masks = [0] * (int(cidr.size) // PREFIX)
        # Heaps of /28s, by number: whatever could be taken is in them; what cannot any more is thrown out at the top.
        self._whole = list(range(len(self._masks)))
        self._broken = list(self._whole)
        self._given_back: list[IPNetwork] = []
        self._for_prefixes: set[int] = set()
        self._for_nobody: set[int] = set()
        self.free = int(cidr.size)
        for number in (0, 1, 2, 3, int(cidr.size) - 1):
            self._set(number)

    def reserve(self, network: IPNetwork, *, is_for_prefixes: bool) -> None:
        """A reservation of the subnet's, of /28s: nothing is given of it by itself, or prefixes alone."""
        first, last = (int(one) - self._first for one in (network.first, network.last))
        (self._for_prefixes if is_for_prefixes else self._for_nobody).update(range(first // PREFIX, last // PREFIX + 1))

    def take(self) -> IPAddress:
        """A free address. SubnetFull."""
        again = self._last(32)
        if again is not None:
            return again.ip
        barred = self._for_prefixes | self._for_nobody
        block = _lowest(self._broken, lambda one: self._masks[one] != _FULL, barred)
        if block is None:
            raise SubnetFull
        mask = self._masks[block]
        offset = next(at for at in range(PREFIX) if not mask >> at & 1)
        self._set(block * PREFIX + offset)
        return IPAddress(self._first + block * PREFIX + offset, 4)

    def take_this(self, address: IPAddress) -> bool:
        """Take that very address; False: it is taken, or not of this subnet."""
        number = int(address) - self._first
        if address not in self.cidr or self._masks[number // PREFIX] >> number % PREFIX & 1:
            return False
        self._set(number)
        return True

    def take_prefix(self) -> IPNetwork:
        """A wholly free /28. Fragmented, SubnetFull."""
        again = self._last(28)
        if again is not None:
            return again
        block = _lowest(self._whole, lambda one: not self._masks[one], self._for_nobody)
        if block is None:
            raise Fragmented if self.free else SubnetFull
        return self._take_block(block)

    def give_back(self, network: IPNetwork) -> None:
        """An address (/32) or a prefix (/28) is free again."""
        for number in range(int(network.first) - self._first, int(network.last) - self._first + 1):
            block, bit = divmod(number, PREFIX)
            if self._masks[block] == _FULL:
                heapq.heappush(self._broken, block)
            self._masks[block] &= ~(1 << bit)
            if not self._masks[block]:
                heapq.heappush(self._whole, block)
            self.free += 1
        if self.is_last_first:
            self._given_back.append(network)

    def _last(self, length: int) -> IPNetwork | None:
        """What was given back last of that length, taken, if that is how it goes and if it is free."""
        while self._given_back:
            if self._given_back[-1].prefixlen != length:
                return None
            network = self._given_back.pop()
            block = (int(network.first) - self._first) // PREFIX
            if length == 32 and self.take_this(network.ip):
                return network
            if length == 28 and not self._masks[block]:
                return self._take_block(block)
        return None

    def _take_block(self, block: int) -> IPNetwork:
        self._masks[block] = _FULL
        self.free -= PREFIX
        return IPNetwork((self._first + block * PREFIX, 28))

    def _set(self, number: int) -> None:
        block, bit = divmod(number, PREFIX)
        self._masks[block] |= 1 << bit
        self.free -= 1


def _lowest(heap: list[int], can: Callable[[int], bool], barred: set[int]) -> int | None:
    """The lowest number that *can* be taken and is not *barred*; what cannot be taken leaves the heap."""
    aside: list[int] = []
    found = None
    while heap:
        if not can(heap[0]):
            heapq.heappop(heap)
        elif heap[0] in barred:
            aside.append(heapq.heappop(heap))
        else:
            found = heap[0]
            break
    for one in aside:
        heapq.heappush(heap, one)
    return found
