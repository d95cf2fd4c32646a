"""Threads that take turns: one runs at a time, and who is next is the caller's choice, so that it can be had again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

_PATIENCE = 60.0


class Turns:
    """Runs works side by side, one at a time: each goes on from one ``turn`` to its next."""

    def __init__(self, choose: Callable[[Sequence[int]], int], most: int) -> None:
        """*choose* picks who is next out of the numbers of those that have not ended; after *most* turns it is over."""
        self._choose = choose
        self._left = most
        self._changed = threading.Condition()
        self._now: int | None = None
        self._number = threading.local()

    def turn(self) -> None:
        """Called by a work: let others go on, and wait to be chosen again. Others' calls, and any outside ``run``,
        return at once."""
        mine: int | None = getattr(self._number, "mine", None)
        if mine is None:
            return
        with self._changed:
            self._now = None
            self._changed.notify_all()
            self._await(mine)

    def run(self, works: Sequence[Callable[[], None]]) -> None:
        """All of them, to their ends. AssertionError: there were too many turns; else the first error of a work."""
        errors: list[BaseException] = []
        alive = set(range(len(works)))

        def body(number: int) -> None:
            self._number.mine = number
            try:
                with self._changed:
                    self._await(number)
                works[number]()
            except BaseException as error:  # noqa: BLE001 - raised again below
                errors.append(error)
            with self._changed:
                alive.discard(number)
                self._now = None
                self._changed.notify_all()

        threads = [threading.Thread(target=body, args=(number,), daemon=True) for number in range(len(works))]
        for thread in threads:
            thread.start()
        with self._changed:
            while alive and not errors:
                self._left -= 1
                assert self._left > 0, "too many turns: this does not end"
                self._now = self._choose(sorted(alive))
                self._changed.notify_all()
                assert self._changed.wait_for(lambda: self._now is None, _PATIENCE), "a work neither ends nor turns"
        if errors:
            raise errors[0]
        for thread in threads:
            thread.join()

    def _await(self, mine: int) -> None:
        assert self._changed.wait_for(lambda: self._now == mine, _PATIENCE), "was never chosen again"
