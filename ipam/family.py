"""The addresses of one family: which one is given next, and which may not be given yet.

Addresses are plain integers here and no block is ever enumerated, so a /16 and a /64 cost the same.
What always holds: an address of an offered block is *held* (by an attachment), *released* (remembered with
the time of its release) or *unknown* (never given, or released so long ago that it was forgotten), and each
block knows how many it has of each. Unknown ones are given first, then the least recently released one that
has cooled down; but a block of which nothing is held is begun last, since a source that grows takes such blocks back.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, takewhile
from operator import itemgetter
from typing import Literal

from cni.spec import Attachment
from ipam.lease import Block

EXACT = 1 << 16
"""Blocks up to this many addresses remember every release, so their order of reuse is exact."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many usable addresses of *block* are in which state: ``used + cooling + free == total``."""

    block: Block
    total: int
    used: int
    cooling: int
    free: int


class Range:
    """One offered block: its usable addresses *first* to *last*, how many are held, how many released."""

    __slots__ = ("block", "cursor", "first", "held", "is_queued", "last", "released")

    def __init__(self, block: Block) -> None:
        self.block = block
        self.first, self.last = block.usable
        self.cursor = self.first
        self.held = 0
        self.released = 0
        self.is_queued = False

    @property
    def total(self) -> int:
        """How many addresses may be given from this block at all."""
        return self.last - self.first + 1

    @property
    def unknown(self) -> int:
        """How many addresses were never given, or were forgotten."""
        return self.total - self.held - self.released

    def seek(self, held: Container[int], released: Container[int]) -> int:
        """The next unknown address at or after the cursor, going round once; there must be one."""
        value = self.cursor
        while value > self.last or value in held or value in released:
            value = self.first if value >= self.last else value + 1
        self.cursor = value
        return value


class Family:
    """The held and released addresses of IP *version* 4 or 6, in the offered blocks and outside them.

    No *now* may lie before an earlier one: the caller says ``rewind`` first when its clock was set back.
    """

    def __init__(self, version: Literal[4, 6], cooldown: float, exact: int = EXACT) -> None:
        self.version: Literal[4, 6] = version
        self.holders: dict[int, Attachment] = {}
        self.ranges: list[Range] = []
        self._cooldown = cooldown
        self._exact = exact
        self._firsts: list[int] = []
        # Both oldest release first. Not plain dicts: taking from their front again and again is quadratic.
        self._released: OrderedDict[int, float] = OrderedDict()
        self._elsewhere: OrderedDict[int, float] = OrderedDict()
        self._remembered = 0
        self._queue: deque[Range] = deque()

    @property
    def released(self) -> Mapping[int, float]:
        """The remembered releases in the offered blocks, oldest first."""
        return self._released

    def offer(self, blocks: Iterable[Block]) -> None:
        """Give from these disjoint blocks from now on; costs a walk over all that is held and remembered."""
        cursors = {each.block: each.cursor for each in self.ranges}
        released = sorted(chain(self._released.items(), self._elsewhere.items()), key=itemgetter(1))
        self.ranges = sorted(map(Range, blocks), key=lambda each: each.first)
        self._firsts = [each.first for each in self.ranges]
        self._released, self._elsewhere = OrderedDict(), OrderedDict()
        for value in self.holders:
            if (each := self.range_of(value)) is not None:
                each.held += 1
                each.cursor = max(each.cursor, value + 1)
        for value, when in released:
            if (each := self.range_of(value)) is None:
                self._elsewhere[value] = when
            else:
                self._released[value] = when
                each.released += 1
                each.cursor = max(each.cursor, value + 1)
        self._queue.clear()
        for each in self.ranges:
            each.cursor = cursors.get(each.block, each.cursor)
            self._enqueue(each)
        # Small blocks are remembered whole; huge ones would be remembered without end, and for nothing.
        self._remembered = sum(each.total for each in self.ranges if each.total <= self._exact)

    def restore(self, held: Mapping[int, Attachment], released: Mapping[int, float]) -> None:
        """Replace everything that is held and remembered; the offered blocks stay."""
        blocks = [each.block for each in self.ranges]
        self.holders = dict(held)
        self.ranges = []
        self._released.clear()
        self._elsewhere = OrderedDict((value, when) for value, when in released.items() if value not in held)
        self.offer(blocks)

    def range_of(self, value: int) -> Range | None:
        """The offered range that may give this address."""
        at = bisect_right(self._firsts, value) - 1
        return self.ranges[at] if at >= 0 and value <= self.ranges[at].last else None

    def cooling(self, value: int, now: float) -> float:
        """Seconds until the address may be given again; 0.0 when it is not in cool-down."""
        when = self._released.get(value)
        return 0.0 if when is None else max(0.0, self._cooldown - (now - when))

    def busy(self, first: int, last: int, now: float) -> int:
        """How many addresses from *first* to *last* are held or in cool-down, whether or not they are offered."""
        held = sum(first <= value <= last for value in self.holders)
        since = now - self._cooldown
        late = chain(self._released.items(), self._elsewhere.items())
        return held + sum(first <= value <= last and when > since for value, when in late)

    def next(self, now: float) -> int | None:
        """The address to give next; None when all are held or in cool-down. Nothing is taken yet."""
        self._forget(now)
        while self._queue and not self._queue[0].unknown:
            self._queue.popleft().is_queued = False
        cooled = takewhile(lambda value: not self.cooling(value, now), self._released)
        if not self._queue:
            return next(cooled, None)
        begun = next((each for each in self._queue if each.held and each.unknown), None)
        if begun is not None:
            return begun.seek(self.holders, self._released)
        again = next((value for value in cooled if self._is_begun(value)), None)
        return again if again is not None else self._queue[0].seek(self.holders, self._released)

    def _is_begun(self, value: int) -> bool:
        each = self.range_of(value)
        return each is not None and each.held > 0

    def take(self, value: int, who: Attachment) -> Block:
        """Let *who* hold an address that is free in an offered block; the answer is that block."""
        each = self.range_of(value)
        if each is None or value in self.holders:
            raise ValueError(f"address {value} is held already or not in an offered block")
        self.holders[value] = who
        each.held += 1
        if value == each.cursor:
            each.cursor += 1
        if self._released.pop(value, None) is not None:
            each.released -= 1
        return each.block

    def give_back(self, value: int, now: float) -> None:
        """End the holding of an address and start its cool-down; its block need not be offered any more."""
        del self.holders[value]
        if (each := self.range_of(value)) is None:
            self._elsewhere[value] = now
        else:
            each.held -= 1
            each.released += 1
            self._released[value] = now
        self._forget(now)

    def cancel(self, value: int) -> None:
        """End the holding of an address that was never used: it is as if it had never been given."""
        del self.holders[value]
        if (each := self.range_of(value)) is not None:
            each.held -= 1
            self._enqueue(each)

    def rewind(self, now: float) -> None:
        """The clock was set back to *now*: what was released "later" counts as released now, in its order."""
        for releases in (self._released, self._elsewhere):
            for value, _ in list(takewhile(lambda release: release[1] > now, reversed(releases.items()))):
                releases[value] = now

    def counts(self, now: float) -> Iterator[Counts]:
        """The state of each offered block, lowest first; costs a walk over what is in cool-down."""
        cooling = dict.fromkeys(self._firsts, 0)
        for value in takewhile(lambda value: self.cooling(value, now), reversed(self._released)):
            cooling[self._firsts[bisect_right(self._firsts, value) - 1]] += 1
        for each in self.ranges:
            warm = cooling[each.first]
            yield Counts(each.block, each.total, each.held, warm, each.total - each.held - warm)

    def _forget(self, now: float) -> None:
        while len(self._released) > self._remembered and not self.cooling(next(iter(self._released)), now):
            value, _ = self._released.popitem(last=False)
            each = self.range_of(value)
            assert each is not None, "released addresses outside the offered blocks are kept elsewhere"
            each.released -= 1
            self._enqueue(each)
        # A block may be offered again, with its releases in order; beyond that only cool-downs matter.
        while len(self._elsewhere) > self._exact:
            if now - next(iter(self._elsewhere.values())) < self._cooldown:
                break
            self._elsewhere.popitem(last=False)

    def _enqueue(self, each: Range) -> None:
        if each.unknown and not each.is_queued:
            each.is_queued = True
            self._queue.append(each)
