"""Blocks that addresses come from, and leases of one address per family.

Both are values: equal when their content is equal, never changed in place.
"""

from __future__ import annotations

from dataclasses import dataclass

from netaddr import IPAddress, IPNetwork

from cni.spec import Attachment


@dataclass(frozen=True, slots=True)
class Block:
    """A range of addresses that this node may give to pods, and *owner*: the node, ENI or NIC it belongs to."""

    network: IPNetwork
    owner: str

    @property
    def family(self) -> int:
        """4 or 6."""
        return int(self.network.version)


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
