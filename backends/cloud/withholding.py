"""Blocks that are not offered while it is found out whether they may go: how everything that leaves a node begins.

What always holds: nobody is given an address of a block from before the cloud is asked about it until its intent is
entered, or it is known that it stays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, TypeVar

from netaddr import IPNetwork

from backends.cloud.asking import Later
from backends.cloud.failures import CloudError
from backends.cloud.steps import Settle, Steps

Held: TypeAlias = tuple[str, IPNetwork]
"""A block on an interface, by its id: a block may go from one and come to another."""
Found = TypeVar("Found")
Begun = TypeVar("Begun")


class Withholding:
    """*now* are not offered."""

    def __init__(self) -> None:
        self.now: frozenset[Held] = frozenset()

    def begun(
        self, blocks: frozenset[Held], asked: Steps[Found], begin: Callable[[Found], Begun | None]
    ) -> Steps[Begun | None]:
        """Withdraw *blocks*, have the cloud *asked* what there is, and *begin* what of it may go, by entering an
        intent; None: nothing may, and all is offered again."""
        self.now |= blocks
        try:
            yield Settle()
            found = yield from asked
        except (CloudError, Later):
            self.now -= blocks
            yield Settle()
            raise
        begun = begin(found)
        self.now -= blocks
        if begun is None:
            yield Settle()
        return begun
