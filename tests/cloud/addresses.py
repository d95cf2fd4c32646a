"""The addresses of one subnet of the emulated VPC: which are taken, singly or as whole prefixes. Exact, and fast."""

from __future__ import annotations

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
        self._first = int(cidr.first)
        self._masks = [0] * (int(cidr.size) // PREFIX)
        # Ordered sets: which one is taken next does not depend on how often the program ran.
        self._whole = dict.fromkeys(range(len(self._masks)))
        self._broken: dict[int, None] = {}
        self.free = int(cidr.size)
        for number in (0, 1, 2, 3, int(cidr.size) - 1):
            self._set(number)

    def take(self) -> IPAddress:
        """A free address: of a broken /28 if there is one. SubnetFull."""
        block = next(iter(self._broken or self._whole), None)
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
        block = next(iter(self._whole), None)
        if block is None:
            raise Fragmented if self.free else SubnetFull
        for offset in range(PREFIX):
            self._set(block * PREFIX + offset)
        return IPNetwork((self._first + block * PREFIX, 28))

    def give_back(self, network: IPNetwork) -> None:
        """An address (/32) or a prefix (/28) is free again."""
        for number in range(int(network.first) - self._first, int(network.last) - self._first + 1):
            block, bit = divmod(number, PREFIX)
            self._masks[block] &= ~(1 << bit)
            self.free += 1
            self._sort(block)

    def _set(self, number: int) -> None:
        block, bit = divmod(number, PREFIX)
        self._masks[block] |= 1 << bit
        self.free -= 1
        self._sort(block)

    def _sort(self, block: int) -> None:
        mask = self._masks[block]
        for kind, is_so in ((self._whole, mask == 0), (self._broken, mask not in (0, _FULL))):
            if is_so:
                kind.setdefault(block)
            else:
                kind.pop(block, None)
