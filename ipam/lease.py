"""Blocks that addresses come from, and leases of one address per family.

Both are values: equal when their content is equal, never changed in place.
"""

from __future__ import annotations

from dataclasses import dataclass

from netaddr import IPAddress, IPNetwork

from cni.spec import Attachment


@dataclass(frozen=True, slots=True)
class Block:
    """A range of addresses that this node may give to pods, and *owner*: the node, ENI or NIC it belongs to.

    With *reserve* (a subnet of ours) addresses with a meaning of their own are never given: see ``usable``.
    Without it (a source that hands out plain addresses, such as a cloud's /28) every address may be.
    """

    network: IPNetwork
    owner: str
    reserve: bool = True

    @property
    def family(self) -> int:
        """4 or 6."""
        return int(self.network.version)

    @property
    def usable(self) -> tuple[int, int]:
        """The first and the last address that may be given, as integers.

        Reserved are an IPv4 subnet's network and broadcast address (RFC 1122, 3.2.1.3) and an IPv6 subnet's
        first and last, anycast addresses (RFC 4291, 2.6.1; RFC 2526, 2). Neither exists where one or two addresses
        are all there are (RFC 3021, RFC 6164).
        """
        first, last = int(self.network.first), int(self.network.last)
        if not self.reserve or last - first < 2:
            return first, last
        return first + 1, last - 1


@dataclass(frozen=True, slots=True)
class Leased:
    """One address of a lease and the block that it came from."""

    address: IPAddress
    block: Block


@dataclass(frozen=True, slots=True)
class Lease:
    """What one attachment holds: at most one address per family, IPv4 first."""

    who: Attachment
    leased: tuple[Leased, ...]

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        """The addresses alone, IPv4 first."""
        return tuple(one.address for one in self.leased)
