"""What this node's Node shall say, from what is wrong on it.

What always holds: a moment is not worth a word. What is said changes when something lasted, so that a pool which is
full and free by turns, or a start, costs the API server nothing; and nothing that is said names a pod.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from agent.config.schema import KubernetesTable
from agent.tell.trouble import Kind, Trouble
from cluster.ownnode import DOWN, NETWORK, UP, Condition, Wish, quantity
from ipam.family import Counts

PRESSURE: Final = "routable.io/PodAddressPressure"
"""The condition that is True while there is no address for a new pod."""
LASTS: Final = 30.0
"""Seconds for which the node cannot serve pods, or has no address for one, until that is said."""
OVER: Final = 60.0
"""Seconds for which there are addresses again until that is said."""
MOST: Final = 1_000_000
"""As many addresses as are said: an IPv6 range has more than the API has numbers for."""
_TEXT: Final = 500
"""Characters of a message."""


class Lasting:
    """A yes or no that is believed once it lasted: *yes* and *no* are after how many seconds."""

    def __init__(self, yes: float, no: float, value: bool | None = None) -> None:
        self._seconds = {True: yes, False: no}
        self.value = value
        """None: neither has lasted yet."""
        self._heard: bool | None = None
        self._since = 0.0

    def hear(self, value: bool, now: float) -> None:
        """It is so at *now* (seconds, monotonic)."""
        if value != self._heard:
            self._heard, self._since = value, now
        if now - self._since >= self._seconds[value]:
            self.value = value


class Wishes:
    """*troubles* answers what is wrong, *counts* what addresses there are; *clock* answers seconds, monotonic."""

    def __init__(
        self,
        table: KubernetesTable,
        troubles: Callable[[], Sequence[Trouble]],
        counts: Callable[[], Sequence[Counts]],
        clock: Callable[[], float],
    ) -> None:
        self._table = table
        self._troubles = troubles
        self._counts = counts
        self._clock = clock
        self._is_up = Lasting(0.0, LASTS)
        self._is_full = Lasting(LASTS, OVER, value=False)

    def now(self) -> Wish | None:
        """What shall be said now; None: nothing is known yet."""
        troubles, now = self._troubles(), self._clock()
        fatal = next((one for one in troubles if one.is_fatal), None)
        full = next((one for one in troubles if one.kind is Kind.POOL and one.bars_adds), None)
        self._is_up.hear(fatal is None, now)
        self._is_full.hear(full is not None, now)
        if self._is_up.value is None:
            return None
        if not self._is_up.value:
            return Wish((Condition(NETWORK, "True", DOWN, _told(fatal, "the agent begins to serve pods again")),), "")
        network = Condition(NETWORK, "False", UP, "routable-agent serves pods on this node")
        pressure = Condition(PRESSURE, "False", "HasFreeAddresses", "there are addresses for new pods")
        if self._is_full.value:
            pressure = Condition(PRESSURE, "True", "NoFreeAddress", _told(full, "there are a few addresses again"))
        capacity = ((self._table.capacity, quantity(self._addresses())),) if self._table.advertise_capacity else ()
        return Wish((network, pressure), self._table.taint, capacity)

    def _addresses(self) -> int:
        """How many pods can have addresses: each has one of every family that there is."""
        totals: dict[int, int] = {}
        for one in self._counts():
            totals[one.block.family] = totals.get(one.block.family, 0) + one.total
        return min(MOST, *totals.values()) if totals else 0


def _told(trouble: Trouble | None, otherwise: str) -> str:
    return str(trouble.failure)[:_TEXT] if trouble is not None else otherwise
