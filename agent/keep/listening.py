"""The thread in which a source of nodes that tells by itself is listened to.

The first news in a while has a pass come at once. What follows within a second is for the pass that comes every second
anyway: of a cluster whose nodes are replaced by the hundred a pass per node would be one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from agent.keep.reconciler import QUICK
from backends.threads import OnDeath, thread


class Telling(Protocol):
    """A source that tells: see `cluster.kubernetes.KubernetesNodes`."""

    def live(self, wake: Callable[[], None]) -> None:
        """Listen until the end; *wake* is called when there is something new."""

    def end(self) -> None:
        """Listen no more."""


class Listening:
    """*wake* is the reconciler's, which looks by itself every `QUICK` seconds; *on_death* is told if the thread ends
    unasked; *clock* answers seconds, monotonic. *name* is the thread's."""

    def __init__(
        self,
        source: Telling,
        wake: Callable[[], None],
        on_death: OnDeath,
        clock: Callable[[], float],
        name: str = "nodes",
    ) -> None:
        self.name: Final = name
        self._source = source
        self._wake = wake
        self._clock = clock
        self._woken_at = clock() - QUICK
        self._thread = thread(self.name, self._live, on_death)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, in the middle of an answer or a wait."""
        self._source.end()
        self._thread.join()

    def _news(self) -> None:
        if self._clock() - self._woken_at >= QUICK:
            self._woken_at = self._clock()
            self._wake()

    def _live(self) -> None:
        self._source.live(self._news)
