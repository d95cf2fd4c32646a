"""One lock per key, for as long as somebody wants it: requests for one pod go one by one, others in parallel."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager


class KeyLocks:
    """Locks by key; a key that nobody holds or waits for takes no memory."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[Hashable, tuple[threading.Lock, int]] = {}

    @contextmanager
    def hold(self, key: Hashable) -> Iterator[None]:
        """The body runs while no other thread holds *key*. Not reentrant."""
        lock = self._join(key)
        try:
            with lock:
                yield
        finally:
            self._leave(key)

    @contextmanager
    def hold_if_free(self, key: Hashable) -> Iterator[bool]:
        """Like ``hold``, but does not wait: the body is told whether it holds *key*."""
        lock = self._join(key)
        try:
            held = lock.acquire(blocking=False)
            try:
                yield held
            finally:
                if held:
                    lock.release()
        finally:
            self._leave(key)

    def let_pass(self, patience: float) -> bool:
        """Whether, within *patience* seconds, nobody holds a key any more who holds one now."""
        until = time.monotonic() + patience
        with self._guard:
            locks = [lock for lock, _ in self._locks.values()]
        for lock in locks:
            if not lock.acquire(timeout=max(0.0, until - time.monotonic())):
                return False
            lock.release()
        return True

    def __len__(self) -> int:
        """How many keys are held or waited for."""
        return len(self._locks)

    def _join(self, key: Hashable) -> threading.Lock:
        with self._guard:
            lock, users = self._locks.get(key, (None, 0))
            lock = lock or threading.Lock()
            self._locks[key] = lock, users + 1
            return lock

    def _leave(self, key: Hashable) -> None:
        with self._guard:
            lock, users = self._locks[key]
            if users == 1:
                del self._locks[key]
            else:
                self._locks[key] = lock, users - 1
