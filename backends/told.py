"""What a backend tells of itself, in words of its own: the agent passes it on, and understands none of it.

Everything that tells is a `Teller`: the fabric, and each part that lives. What all of them tell is put together, for
``routablectl status``, /readyz and the metrics; how a person is shown it, the descriptor says (`Shown`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from cni.errors import Failure

_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Complaint:
    """What is wrong, *count* times: why, and what to do. It is told to people; never by CNI STATUS, for which the node
    would be NotReady."""

    failure: Failure
    count: int = 1


class Measure(NamedTuple):
    """A metric, called ``routable_…``: in *numbers* one for each combination of values of its *labels*, which are few.
    A counter's *name* is without the ``_total`` that it is shown with."""

    name: str
    help: str
    numbers: Sequence[tuple[tuple[str, ...], float]]
    labels: tuple[str, ...] = ()
    is_counter: bool = False


class Told(NamedTuple):
    """All that there is to tell at one moment.

    *complaints* are by kind, a label of ``routable_problems``: every kind that there may ever be, with none where
    all is well. *sections* are further keys of the document of ``routablectl status --json``: plain values alone.
    """

    complaints: Mapping[str, Sequence[Complaint]] = {}
    sections: Mapping[str, Any] = {}
    measures: Sequence[Measure] = ()


class Teller(Protocol):
    """What has something to tell."""

    def told(self) -> Told:
        """What there is to tell now, out of memory, at once. Any thread may call."""


class Table(NamedTuple):
    """What ``routablectl status`` prints under a *title*, with the *head* of each column."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


class Shown(NamedTuple):
    """What ``routablectl status`` prints of a backend: *lines* among those at the top, and *tables* after the peers."""

    lines: Sequence[str] = ()
    tables: Sequence[Table] = ()


def few(names: Sequence[str]) -> str:
    """The first of *names*, and how many there are besides: what one sentence can hold."""
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def together(all_told: Iterable[Told]) -> Told:
    """One for all: complaints of one kind add up; a section, and a metric, has one author."""
    complaints: dict[str, list[Complaint]] = {}
    sections: dict[str, Any] = {}
    measures: list[Measure] = []
    for one in all_told:
        for kind, found in one.complaints.items():
            complaints.setdefault(kind, []).extend(found)
        sections |= one.sections
        measures += one.measures
    return Told(complaints, sections, measures)
