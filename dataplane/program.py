"""Programs that are called for what the kernel itself does not offer in a form that lasts: nft, iptables.

What always holds: a call ends by itself, and well or not, within `TIMEOUT`; or it raises a `Failure` that says why.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import FileIO
from typing import Final, NamedTuple

from cni.errors import KernelRefused, TryAgain
from dataplane.refusal import unable

TIMEOUT: Final = 10.0
"""Seconds that a call may take: they wait for whoever else is changing the rules."""
REST: Final = 5.0
"""Seconds after a call that took too long for which the program is not called, and twice as many after each further
one, up to `REST_MOST`: a pass that waits for it mends nothing else."""
REST_MOST: Final = 60.0
_MOMENT: Final = 1.0
"""Seconds."""


class Done(NamedTuple):
    """How a call ended: below 0 *code* is the signal that killed it."""

    code: int
    said: str
    complained: str


Run = Callable[[Sequence[str], str], Done]
"""Calls a program with arguments and a text on its standard input. Raises TimeoutError, OSError."""


class Program:
    """The program *name*, of the Debian package *package*. *run* calls it; *clock* answers seconds, monotonic."""

    def __init__(
        self, name: str, package: str, run: Run | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name = name
        self._package = package
        self._run: Run = run or (lambda arguments, text: call([name, *arguments], text))
        self._clock = clock
        self._rest = 0.0
        self._rests_until = -REST

    def done(self, arguments: Sequence[str], text: str, what: str) -> Done:
        """One call that ended by itself; *what* it is for, in words for the operator.

        Raises:
            KernelRefused: the program is missing, or cannot be called.
            TryAgain: it is slow, was killed, or the machine is short of something.
        """
        if self._clock() < self._rests_until:
            raise TryAgain(f"{self._name} is not asked for a while: {what}", _SLOW)
        try:
            done = self._run(arguments, text)
        except TimeoutError as error:
            self._rest = min(max(REST, 2 * self._rest), REST_MOST)
            self._rests_until = self._clock() + self._rest
            raise TryAgain(f"{self._name} did not answer within {TIMEOUT:g} s: {what}", _SLOW) from error
        except FileNotFoundError as error:
            remedy = f"install the package {self._package}"
            raise KernelRefused(f"the program {self._name} is missing", remedy) from error
        except OSError as error:
            raise unable(f"call {self._name} to {what}", error) from error
        self._rest = 0.0
        if done.code < 0:
            why = "see the machine's log: out of memory?"
            raise TryAgain(f"{self._name} was killed by signal {-done.code}: {what}", why)
        return done


_SLOW: Final = "the machine is very busy, or another program holds the rules"


def call(arguments: Sequence[str], text: str = "", timeout: float = TIMEOUT) -> Done:
    """Call the program that *arguments* begin with, with *text* on its standard input.

    Raises:
        TimeoutError: it did not end in time, and is killed.
        OSError: it could not be started.
    """
    # Files in memory instead of pipes: Popen leaks those it has when it gets no more of them, and a child of the
    # program's that goes on would keep them open.
    with _file() as stdin, _file() as stdout, _file() as stderr:
        stdin.write(text.encode())
        stdin.seek(0)
        # What it says is read, so it has to be in one language.
        process = subprocess.Popen(
            list(arguments), stdin=stdin, stdout=stdout, stderr=stderr, env={**os.environ, "LC_ALL": "C"}
        )
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            process.kill()
            with suppress(subprocess.TimeoutExpired):  # unless it is stuck in the kernel: that it may be for long
                process.wait(_MOMENT)
            raise TimeoutError(f"{arguments[0]} did not end within {timeout:g} s") from error
        return Done(code, _content(stdout), _content(stderr).strip())


def _file() -> FileIO:
    return FileIO(os.memfd_create("program", os.MFD_CLOEXEC), "r+")


def _content(file: FileIO) -> str:
    file.seek(0)
    return file.readall().decode(errors="replace")
