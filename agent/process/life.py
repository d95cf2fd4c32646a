"""How the agent ends: by a signal, or with the death of any of its threads.

What always holds: once the end has been asked for, the process ends, whatever hangs. It is asked for before it is
logged; a part that does not stop in time is named and left behind, as a crash would leave it: what it had begun is in
the journal, and the next process goes on from there.
"""

from __future__ import annotations

import ctypes
import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

log = logging.getLogger(__name__)

GRACE: Final = 10.0
"""Seconds for all parts to stop after a signal; requests under way are finished. systemd and kubelet wait longer."""
HASTE: Final = 0.5
"""Seconds for the same after a death: who waits for an answer has one sooner from the next process."""
_CLOSE: Final = 0.2
"""Seconds for the journal to close, and for the last lines of the log: neither needs it, both may be stuck."""
_BACKSTOP: Final = 2.0
"""Seconds after which the kernel ends the process if even the thread that ends it is stuck."""
_ENDING: Final = frozenset((signal.SIGTERM, signal.SIGINT))
_SIGSET: Final = 128
"""Bytes of glibc's and musl's sigset_t."""


class Living(Protocol):
    """What lives for as long as the agent does, or almost: mostly in a thread of its own."""

    @property
    def name(self) -> str:
        """What it is called when it does not stop."""

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """End, and return when it has."""


class Life:
    """Made before any thread is, in the thread that waits for the end.

    The signals are blocked and waited for: a handler that comes just before a lock is waited for is not noticed.
    *leave* ends the process at once, with an exit code.
    """

    def __init__(self, leave: Callable[[int], object] = os._exit) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        self._signals = _descriptor()
        self._leave = leave
        self._parts: list[Living] = []
        self._is_ending = False
        self._lock = threading.RLock()  # a part may begin others as it starts
        self._died = ""
        self._is_told = threading.Event()

    @property
    def code(self) -> int:
        """The exit code of a process that ends now."""
        return 1 if self._died else 0

    def begin(self, part: Living) -> None:
        """Start *part*, unless it is the end already; `end` stops it. Any thread may call."""
        with self._lock:
            if not self._is_ending:
                part.start()
                self._parts.append(part)

    def finish(self, part: Living) -> None:
        """Stop *part* before the end. Any thread may call."""
        part.stop()
        with self._lock:
            if not self._is_ending:
                self._parts.remove(part)

    def die(self, thread: str, error: BaseException) -> None:
        """A thread ended unasked: the process follows, for its supervisor to start anew. Any thread may call."""
        self._died = self._died or thread
        signal.setitimer(signal.ITIMER_REAL, _BACKSTOP)
        os.kill(os.getpid(), signal.SIGTERM)
        log.critical("a thread died, so the agent ends", exc_info=error, extra={"died": thread, "error": repr(error)})
        self._is_told.set()

    def wait(self, look: Callable[[], object], every: float) -> None:
        """Return when it is time to end; until then *look* is called every so many seconds."""
        # Not signal.sigtimedwait: in a process that was stopped and goes on (SIGCONT, a debugger) after its time was
        # over, CPython 3.11 and newer answer with a signal that nobody sent.
        signals = select.poll()
        signals.register(self._signals, select.POLLIN)
        while not signals.poll(every * 1000.0):
            look()

    def end(self, close: Callable[[], object], flush: Callable[[], object]) -> None:
        """Stop all parts at once. If one does not, or a thread died, the process ends here: *close* is called for the
        journal, *flush* for the log, but neither is waited for if it is stuck."""
        seconds = HASTE if self._died else GRACE
        signal.setitimer(signal.ITIMER_REAL, seconds + _BACKSTOP)
        with self._lock:
            self._is_ending = True
        late = _late({part.name: part.stop for part in self._parts}, seconds)
        if late:
            log.error("some parts do not stop, and are left behind", extra={"parts": ", ".join(late)})
        if late or self._died:
            if self._died:
                self._is_told.wait(_CLOSE)
            _late({"journal": close}, _CLOSE)
            _late({"log": flush}, _CLOSE)
            self._leave(1)
        signal.setitimer(signal.ITIMER_REAL, 0.0)


def _descriptor() -> int:
    """What can be read of when one of the signals that are `_ENDING` waits (signalfd(2)); it stays for as long as the
    process."""
    wanted = sum(1 << (number - 1) for number in _ENDING).to_bytes(_SIGSET, "little")
    descriptor: int = ctypes.CDLL(None, use_errno=True).signalfd(-1, wanted, os.O_CLOEXEC | os.O_NONBLOCK)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "signalfd")
    return descriptor


def _late(work: Mapping[str, Callable[[], object]], seconds: float) -> list[str]:
    """Do all of *work* at once; the names of what has not come to its end within *seconds*, and goes on."""
    until = time.monotonic() + seconds
    threads = [
        threading.Thread(target=_told, args=(name, do), name=f"end {name}", daemon=True) for name, do in work.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return [name for name, thread in zip(work, threads, strict=True) if thread.is_alive()]


def _told(name: str, do: Callable[[], object]) -> None:
    try:
        do()
    except Exception:
        log.exception("an end that failed", extra={"part": name})
