"""What something was like a while ago: clouds show their resources late."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Past(Generic[T]):
    """The versions of things, by name; each is forgotten when a newer one is as old as was said."""

    def __init__(self) -> None:
        self._versions: dict[str, deque[tuple[float, T]]] = {}

    def names(self) -> list[str]:
        """Of all that there is, or was."""
        return list(self._versions)

    def put(self, name: str, when: float, version: T, forgotten: float) -> None:
        """From then on it is like this; who looks, looks for no time before *forgotten*."""
        versions = self._versions.setdefault(name, deque())
        versions.append((when, version))
        while len(versions) > 1 and versions[1][0] <= forgotten:
            versions.popleft()

    def at(self, name: str, then: float) -> T | None:
        """As it was then; None: there was none."""
        found = [version for when, version in self._versions.get(name, ()) if when <= then]
        return found[-1] if found else None
