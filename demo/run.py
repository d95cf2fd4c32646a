"""What every demonstration is made for."""

from __future__ import annotations

from dataclasses import dataclass

from demo.lab import Family
from demo.text import Printer


@dataclass(frozen=True, slots=True)
class Run:
    """One run with a *backend*, for pods of a *family*; *out* is told what there is to see."""

    backend: str
    family: Family
    out: Printer
