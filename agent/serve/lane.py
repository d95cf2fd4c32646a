"""Requests and answers as the server passes them on, and lanes: requests of one kind that are served together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from cni import frame

T = TypeVar("T")
"""Whom the answer goes to."""


class Incoming(NamedTuple):
    """A request as it arrived: *sequence* is the answer of ``arrival`` at that moment, *is_gone* tells whether the
    client has hung up meanwhile. *has_patience*: it may be answered later. *arrived* is that time (monotonic)."""

    request: frame.Request
    sequence: int
    is_gone: Callable[[], bool]
    has_patience: bool = False
    arrived: float | None = None

    @property
    def command(self) -> bytes:
        """Its CNI_COMMAND."""
        return self.request.env.get("CNI_COMMAND", b"")


class Answer(NamedTuple):
    """What is sent back, and what to do afterwards, which is told whether the client has all of it."""

    response: frame.Response
    afterwards: Callable[[bool], None] | None = None


ServeTogether = Callable[[Sequence[Incoming]], Callable[[], Sequence[Answer | None]]]
"""Begins to serve all that wait, and answers with what finishes it: that is called once, while the next batch begins,
and answers each of them, or None where a request is better served alone."""


class Together(NamedTuple):
    """Requests that are served *most* at a time, all that wait. Who came while others were begun waits *company*
    seconds for those that are on their way, too."""

    serve: ServeTogether
    most: int = 1 << 20
    company: float = 0.0


@dataclass(slots=True)
class Lane(Generic[T]):
    """The requests of one kind that wait to be served together. At most one is begun at a time."""

    together: Together
    beginning: threading.Lock = field(default_factory=threading.Lock)
    guard: threading.Lock = field(default_factory=threading.Lock)
    waiting: list[tuple[T, Incoming]] = field(default_factory=list)
    is_scheduled: bool = False

    def enter(self, client: T, incoming: Incoming) -> bool:
        """Wait here; True: somebody has to be sent for this lane."""
        with self.guard:
            self.waiting.append((client, incoming))
            is_new, self.is_scheduled = not self.is_scheduled, True
        return is_new

    def batch(self) -> tuple[list[tuple[T, Incoming]], bool]:
        """Who is served now, and whether somebody has to be sent for the others."""
        most = self.together.most
        with self.guard:
            batch, self.waiting = self.waiting[:most], self.waiting[most:]
            self.is_scheduled = bool(self.waiting)
        return batch, self.is_scheduled
