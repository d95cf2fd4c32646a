"""What the demo prints: progress, tables, marks. Colour only where a person's terminal shows it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

GOOD, BAD, DIM, BOLD = "32", "31", "2", "1"


class Printer:
    """Prints to standard output, with the seconds since it was made before each step."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._faults = 0
        self._is_colourful = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def colour(self, text: str, code: str) -> str:
        """*text* in a colour, or as it is."""
        return f"\033[{code}m{text}\033[0m" if self._is_colourful else text

    def step(self, text: str) -> None:
        """A heading: what is done next."""
        seconds = f"{time.monotonic() - self._started:5.1f} s"
        print(f"\n{self.colour(seconds, DIM)}  {self.colour(text, BOLD)}", flush=True)

    def line(self, text: str = "") -> None:
        """A line under a step."""
        print(f"         {text}".rstrip(), flush=True)

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Aligned columns."""
        widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
        for number, row in enumerate((head, *rows)):
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            text = "  ".join(cells)
            self.line(self.colour(text, DIM) if number == 0 else self._marked(text))

    def claim(self, claim: str, faults: Sequence[str]) -> None:
        """Whether a claim held, and where it did not; counted for `conclusion`."""
        self._faults += bool(faults)
        if not faults:
            self.line(f"{self.colour('held', GOOD)}: {claim}")
            return
        self.line(f"{self.colour('DID NOT HOLD', BAD)}: {claim}")
        for fault in faults[:20]:
            self.line(f"  {fault}")

    def conclusion(self) -> int:
        """Whether all claims held; the answer is the exit code."""
        self.step("all claims held" if not self._faults else f"{self._faults} claims did not hold")
        return 1 if self._faults else 0

    def _marked(self, text: str) -> str:
        return text.replace("FAILS", self.colour("FAILS", BAD))
