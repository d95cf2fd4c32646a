"""A point in time by two clocks, because no single one serves both people and order."""

from __future__ import annotations

from typing import NamedTuple


class Moment(NamedTuple):
    """*up*: seconds since the machine's boot (CLOCK_BOOTTIME), which nobody sets and which counts sleep, too: for what
    came first and how long something lasted, over restarts of the agent, too. *wall*: seconds since the epoch, for
    people alone: it may be wrong by years until something sets it, and then it jumps."""

    up: float
    wall: float
