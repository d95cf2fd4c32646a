"""What a cloud's fabric yields, as values: see `backends.cloud.errands`, which has it done."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, NamedTuple, TypeAlias, TypeVar

T = TypeVar("T")


class Call(NamedTuple):
    """One call of the cloud's API, by the names that this has; its answer is what the cloud's library would answer."""

    action: str
    parameters: Mapping[str, Any]


class Look(NamedTuple):
    """Read the metadata of the machine; the answer is a value of the cloud's own."""


class Settle(NamedTuple):
    """Wait until the kernel and the addresses that are offered are as the fabric says now; there is no answer."""


class Wait(NamedTuple):
    """Wait that many seconds, or until there is something to do; there is no answer. Who is told of every change of the
    pool by then may wait as long as *most*."""

    seconds: float
    most: float


Step: TypeAlias = Call | Look | Settle | Wait
Steps: TypeAlias = Generator[Step, Any, T]
"""What yields steps, is sent their answers, or thrown their failures, and returns a T. A fabric's whole life is a
``Steps[None]`` that never ends."""
