"""The addresses of one range of an emulated subnet: which are taken, in blocks of any size. Exact, and fast.

A free block is halved for a smaller one, and two free halves are one again, so what is free is always as whole as can
be. The smallest that fits is broken, the lowest of these: what was given back mostly comes again at once. Google
promises no order.
"""

from __future__ import annotations

import heapq

from netaddr import IPNetwork


class Exhausted(Exception):
    """No free block is large enough: nothing was taken."""


class Ranges:
    """Of *cidr*. *reserved* addresses are given to nobody."""

    def __init__(self, cidr: IPNetwork, reserved: tuple[int, ...] = ()) -> None:
        self.cidr = cidr
        self._width = 32 - cidr.prefixlen
        # By size in bits: the first addresses of free blocks, and a heap of them that may have some which are not.
        self._free: list[set[int]] = [set() for _ in range(self._width + 1)]
        self._heaps: list[list[int]] = [[] for _ in range(self._width + 1)]
        self._put(int(cidr.first), self._width)
        self.free = int(cidr.size)
        for number in reserved:
            self.take_this(IPNetwork((int(cidr.first) + number % int(cidr.size), 32)))

    def take(self, length: int) -> IPNetwork:
        """A free block of that prefix length, out of the smallest that it fits into. Exhausted."""
        wanted = 32 - length
        for width in range(wanted, self._width + 1):
            first = self._lowest(width)
            if first is not None:
                self._split(first, width, first, wanted)
                return IPNetwork((first, length))
        raise Exhausted

    def take_this(self, network: IPNetwork) -> bool:
        """That very block; False: some of it is taken, or it is not of this range."""
        if network not in self.cidr:
            return False
        wanted, first = 32 - network.prefixlen, int(network.first)
        for width in range(wanted, self._width + 1):
            base = first >> width << width
            if base in self._free[width]:
                self._split(base, width, first, wanted)
                return True
        return False

    def give_back(self, network: IPNetwork) -> None:
        """It is free again."""
        width, first = 32 - network.prefixlen, int(network.first)
        self.free += 1 << width
        while width < self._width and first ^ 1 << width in self._free[width]:
            self._free[width].discard(first ^ 1 << width)
            first &= ~(1 << width)
            width += 1
        self._put(first, width)

    def _split(self, base: int, width: int, first: int, wanted: int) -> None:
        """Take the block *first* out of the free one at *base*: what is beside it stays free, in halves."""
        self._free[width].discard(base)
        while width > wanted:
            width -= 1
            middle = base + (1 << width)
            self._put(base if first >= middle else middle, width)
            base = middle if first >= middle else base
        self.free -= 1 << wanted

    def _put(self, first: int, width: int) -> None:
        self._free[width].add(first)
        heapq.heappush(self._heaps[width], first)

    def _lowest(self, width: int) -> int | None:
        heap, free = self._heaps[width], self._free[width]
        while heap and heap[0] not in free:
            heapq.heappop(heap)
        return heap[0] if heap else None
