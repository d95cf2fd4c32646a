"""The difference between what is and what should be: pure, and the same for every verb.

Laws: applying ``diff(have, want)`` to *have* gives *want*; ``diff(x, x)`` is empty; undoing any prefix of the
changes gives *have* back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from dataplane.items import Item, Key, Plan, needs


class Change(NamedTuple):
    """One object appears (*old* is None), vanishes (*new* is None) or changes its content."""

    old: Item | None
    new: Item | None

    @property
    def item(self) -> Item:
        """The object that the change is about, as it will be or, if it vanishes, as it was."""
        item = self.new or self.old
        assert item is not None, "a change is about something"
        return item

    def __str__(self) -> str:
        return "\n".join(f"{sign} {item}" for sign, item in (("-", self.old), ("+", self.new)) if item is not None)


def diff(have: Plan, want: Plan) -> list[Change]:
    """The changes that turn *have* into *want*: what appears or changes by rising rank, then removals by falling rank.

    In this order, make before break: a nexthop moves to another link under its routes before the old link goes.
    """
    gone = [Change(old, None) for key, old in have.items() if key not in want]
    rest = []
    for key, new in want.items():
        old = have.get(key)
        if old is not new and old != new:  # most are the very same object: to compare 20,000 by content takes longer
            rest.append(Change(old, new))
    gone.sort(key=_rank, reverse=True)
    rest.sort(key=_rank)
    return rest + gone


def invert(changes: Sequence[Change]) -> list[Change]:
    """The changes that undo *changes*, last first."""
    return [Change(new, old) for old, new in reversed(changes)]


def apply(have: Plan, changes: Iterable[Change]) -> dict[Key, Item]:
    """What *have* becomes by the changes: the model of what the kernel does."""
    state: dict[Key, Item] = dict(have)
    for old, new in changes:
        if new is not None:
            state[new.key] = new
        elif old is not None:
            del state[old.key]
    return state


def render(changes: Iterable[Change]) -> str:
    """The changes as lines for a person: ``-`` is there and should not be, ``+`` should be and is not."""
    return "\n".join(str(change) for change in changes)


def standing(changes: Iterable[Change], is_made: Callable[[Change], bool]) -> list[Change]:
    """Those of *changes* that *is_made*, asked one after the other, lets be: it is not asked for what would stand on an
    object that is not there, nor for the removal of what something still stands on, because of a change that was not
    made. What hangs on another's link of that name, or leads through another's nexthop object, would go wrong."""
    missing: set[Key] = set()
    held: set[Key] = set()
    made = []
    for change in changes:
        old, new = change
        is_possible = change.item.key not in held if new is None else missing.isdisjoint(needs(new))
        if is_possible and is_made(change):
            made.append(change)
        elif old is None:
            missing.add(change.item.key)
        else:
            held.update(needs(old))
    return made


def _rank(change: Change) -> int:
    return change.item.rank
