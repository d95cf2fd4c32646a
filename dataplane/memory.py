"""The seam of what outlives the process, by names: the journal, to those who keep a few words there."""

from __future__ import annotations

from typing import Protocol


class Memory(Protocol):
    """What outlives the process. Failure: it cannot be read or written."""

    def recall(self, name: str) -> str | None:
        """What was remembered under *name*."""

    def remember(self, name: str, value: str) -> None:
        """Keep *value* under *name*."""
