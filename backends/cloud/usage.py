"""What a fabric is told of the pods: who uses the addresses, and who waits for one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from netaddr import IPAddress, IPNetwork

from ipam.family import Counts
from ipam.lease import Block


class Usage(Protocol):
    """Who uses the addresses, and who waits for one."""

    def counts(self) -> Sequence[Counts]:
        """The state of every block that is offered."""

    def busy(self, block: IPNetwork) -> int:
        """How many addresses of *block* are held or cooling down."""

    def waiting(self) -> int:
        """How many pods wait for an address."""

    def addresses(self) -> Collection[IPAddress]:
        """Those that pods have."""

    def blocks(self) -> Collection[Block]:
        """Those that these are of, as they were when pods were given them."""
