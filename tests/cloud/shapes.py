"""What the emulated instance types can have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Shape(NamedTuple):
    """An instance type: *cards* are the interfaces of each network card, *addresses* per interface with its own."""

    cards: tuple[int, ...]
    addresses: int
    processors: int
    is_nitro: bool = True


TYPES: Mapping[str, Shape] = {
    "t2.medium": Shape((3,), 6, 2, is_nitro=False),
    "t3.medium": Shape((3,), 6, 2),
    "m5.large": Shape((3,), 10, 2),
    "m5.xlarge": Shape((4,), 15, 4),
    "m5.4xlarge": Shape((8,), 30, 16),
    "m5.24xlarge": Shape((15,), 50, 96),
    "p4d.24xlarge": Shape((15, 15, 15, 15), 50, 96),
    "z9.24xlarge": Shape((15, 15, 15, 15), 50, 96),  # of tomorrow: no built-in table has it
}
