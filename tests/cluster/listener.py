"""A source that listens, as the agent has it: its thread, and a reconciler that asks it when it is woken."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cluster.kubernetes import KubernetesNodes

PATIENCE = 60.0


class Listener:
    """*died* is what ended the thread, if anything did."""

    def __init__(self, source: KubernetesNodes) -> None:
        self.source = source
        self.woken = 0
        self.died: BaseException | None = None
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self.source.live(self._woken)
        except BaseException as error:  # noqa: BLE001 (the top of a thread)
            self.died = error

    def _woken(self) -> None:
        with self._wake:
            self.woken += 1
            self._wake.notify_all()

    @property
    def names(self) -> str:
        """The nodes that are known, in order."""
        return " ".join(sorted(one.name for one in self.source.nodes))

    def until(self, what: Callable[[], object]) -> None:
        """Refresh, at every wake-up and now and then, until *what* is so."""
        deadline = time.monotonic() + PATIENCE
        while True:
            self.source.refresh()
            if what():
                return
            assert self.died is None, repr(self.died)
            assert time.monotonic() < deadline, f"it does not come; nodes: {self.names}; error: {self.source.error}"
            with self._wake:
                self._wake.wait(0.02)

    def knows(self, names: str) -> None:
        """Wait until these nodes are known."""
        self.until(lambda: self.names == names)

    def begin(self) -> None:
        """Listen."""
        self._thread.start()

    def end(self) -> None:
        """Listen no more."""
        self.source.end()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "it does not end"
        assert self.died is None, repr(self.died)


@contextmanager
def listening(source: KubernetesNodes) -> Iterator[Listener]:
    """A thread that listens to *source* meanwhile."""
    listener = Listener(source)
    listener.begin()
    try:
        yield listener
    finally:
        listener.end()
