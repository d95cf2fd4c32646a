"""The worker as the agent sees it: started when something is to be asked, spoken to, and buried.

What always holds: a call whose answer did not come is `Lost`, whatever became of the worker, and that one is ended
before the next is started; what could not even be sent was not done, and is asked of a new one.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from typing import Any, Final

from backends.cloud.failures import CloudError, Lost, Refused, Throttled
from backends.cloud.steps import Call
from backends.gcp.frames import Garbage, receive, send
from cni.errors import ConfigInvalid

LIBRARY: Final = "google-cloud-compute"
START: Final = 60.0
"""Seconds for a worker to have loaded the library: seconds, on a machine that has something else to do."""
ANSWER: Final = 60.0
"""Seconds for an answer: more than the worker itself gives the API."""
_END: Final = 2.0
"""Seconds for one that has closed its socket to end."""
_SHOWN: Final = 300
"""Characters of what a worker said of its end."""
_KINDS: Final[Mapping[str, type[CloudError]]] = {one.__name__: one for one in (Lost, Refused, Throttled)}


class Remote:
    """*command* starts a worker, to which the number of a descriptor is added; *environment* is its own. One thread
    calls; *start* and *answer* are seconds that it waits."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        start: float = START,
        answer: float = ANSWER,
    ) -> None:
        self._command = command
        self._environment = environment
        self._start = start
        self._answer = answer
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._words = -1

    @property
    def pid(self) -> int | None:
        """Of the worker; None where there is none."""
        return self._process.pid if self._process is not None else None

    def call(self, call: Call) -> dict[str, Any]:
        """One call, once. Refused, Throttled, Lost: see there."""
        asked = {"action": call.action, "parameters": dict(call.parameters)}
        self.reap()
        for _ in range(2):
            sock = self._socket if self._socket is not None else self._started(call.action)
            try:
                send(sock, asked)
            except OSError:  # it has ended, idle as it was: it has not read this
                self.close()
                continue
            return self._answered(call.action, sock)
        raise Refused(call.action, "NoWorker", "the process that asks the API ends before it is asked anything")

    def reap(self) -> None:
        """Bury a worker that has ended."""
        if self._process is not None and self._process.poll() is not None:
            self.close()

    def close(self) -> None:
        """End the worker, if there is one: at the end of its socket it ends by itself."""
        if self._socket is not None:
            self._socket.close()
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_END)
            self._process.kill()
            self._process.wait()
        if self._words >= 0:
            os.close(self._words)
        self._process, self._socket, self._words = None, None, -1

    def _started(self, action: str) -> socket.socket:
        """A worker that has said that it is ready. Refused: there is none."""
        ours, theirs = socket.socketpair()
        self._socket, self._words = ours, os.memfd_create("routable-worker")
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [*self._command, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=self._words,
                    stderr=self._words,
                    pass_fds=[theirs.fileno()],
                    env=dict(self._environment),
                )
            except OSError as error:
                self.close()
                raise Refused(action, "NoWorker", f"it cannot be started: {error}") from error
        ours.settimeout(self._start)
        try:
            said = receive(ours)
        except (Garbage, OSError) as error:
            why = f"it does not begin: {str(error) or 'no answer'}"
            raise Refused(action, "NoWorker", self._buried(why)) from error
        if said is None or "ready" not in said:
            why = said["missing"] if said and "missing" in said else "it ended before it began"
            raise Refused(action, "NoWorker", self._buried(str(why), _END))
        return ours

    def _answered(self, action: str, sock: socket.socket) -> dict[str, Any]:
        sock.settimeout(self._answer)
        try:
            said = receive(sock)
        except TimeoutError as error:
            raise Lost(action, "Hung", self._buried(f"no answer in {self._answer:g} s")) from error
        except ConnectionError:
            said = None  # it had not even read all
        except (Garbage, OSError) as error:
            raise Lost(action, "Garbage", self._buried(str(error))) from error
        if said is None:
            raise Lost(action, "Died", self._buried("the process that asks the API ended meanwhile", _END))
        answer = said.get("answer")
        if isinstance(answer, dict):
            return answer
        kind = _KINDS.get(str(said.get("failed")))
        if kind is None:
            raise Lost(action, "Garbage", self._buried(str(said)[:_SHOWN]))
        raise kind(action, str(said.get("code")), str(said.get("message")))

    def _buried(self, why: str, patience: float = 0.0) -> str:
        """End it, if it does not within *patience* seconds; *why*, and what it said last."""
        code = None
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
            self._process.kill()
            code = self._process.wait()
        words = self._last_words()
        self.close()
        if code is not None and code not in (0, -signal.SIGKILL):
            why += f" (exit code {code})"
        return f"{why}: {words}" if words else why

    def _last_words(self) -> str:
        size = os.fstat(self._words).st_size
        text = os.pread(self._words, _SHOWN, max(0, size - _SHOWN)).decode(errors="replace")
        return (text.strip().splitlines() or [""])[-1]


def here(environment: Mapping[str, str], endpoint: str) -> Remote:
    """A worker with the library, which asks the API at *endpoint*, '' for the usual one."""
    own = [sys.executable, "-P", "-m", "backends.gcp.worker"]
    return Remote([*own, *(("--endpoint", endpoint) if endpoint else ())], environment)


def installed() -> str | None:
    """The version of the library that a worker would load, which this does not; None: there is none."""
    try:
        return metadata.version(LIBRARY)
    except metadata.PackageNotFoundError:
        return None


def refuse_without_library() -> None:
    """Raise ConfigInvalid where the library is not installed: at the start, not at the first call."""
    if installed() is None:
        what = f"Google's library, {LIBRARY}, is not installed"
        raise ConfigInvalid(what, f"install routable[gcp], or {LIBRARY} beside it; or set gcp.fixed = true")
