"""What is found where somebody looks at all that a start needs: see `agent.start.check`."""

from __future__ import annotations

import enum
from typing import NamedTuple


class Mark(enum.StrEnum):
    """What a verdict means for a start."""

    GOOD = "ok"
    NOTE = "note"
    """The agent starts, and something may not be as it was meant."""
    WRONG = "WRONG"


class Verdict(NamedTuple):
    """One thing that was looked at."""

    mark: Mark
    what: str
    said: str

    def __str__(self) -> str:
        return f"{self.mark:<6}{self.what + ': ':<15}{self.said}"
