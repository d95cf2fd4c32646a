"""What a fabric that asks a cloud yields, besides its calls: see `agent.errands`, which has them done."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple, TypeAlias


class Settle(NamedTuple):
    """Wait until the kernel and the addresses that are offered are as the fabric says now; there is no answer."""


class Wait(NamedTuple):
    """Wait that many seconds, or until there is something to do; there is no answer. Who is told of every change of the
    pool by then may wait as long as *most*."""

    seconds: float
    most: float


Life: TypeAlias = Generator[Any, Any, None]
"""Yields `Settle`, `Wait` and calls of its cloud, is sent their answers, or thrown their failures, and never ends."""
