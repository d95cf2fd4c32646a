"""What the operator chose for ``gcp-alias``: see `backends.gcp.table`."""

from __future__ import annotations

from dataclasses import dataclass, field

from netaddr import IPNetwork

from ipam.warmpool import Targets

BITS: int = 32


@dataclass(frozen=True, slots=True)
class AliasOptions:
    """Pods' addresses are of the secondary range *range*, '' for the subnet's primary one; *warm* is what is kept
    ready, and how large ranges are. The interface has at most *most* ranges, of whatever kind; what is in *foreign* is
    somebody else's. If it *is_fixed*, all that it has is the pods', and nothing is ever changed.
    """

    range: str = ""
    warm: Targets = field(default_factory=Targets)
    most: int = 150
    foreign: tuple[IPNetwork, ...] = ()
    is_fixed: bool = False

    def is_for_pods(self, block: IPNetwork, name: str) -> bool:
        """Whether pods may have addresses of *block*, of the range of that *name*. What is smaller than the agent ever
        asks for is somebody's who wants a single address, or a few, for himself."""
        if any(block in one or one in block for one in self.foreign):
            return False
        return self.is_fixed or (name == self.range and block.size >= self.warm.prefix_size)


def length(size: int) -> int:
    """The prefix length of a range of so many addresses."""
    return BITS + 1 - size.bit_length()
