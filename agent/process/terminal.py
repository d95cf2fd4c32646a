"""Where a program prints for people: a reader that goes, as ``head`` does, ends nothing that was begun."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO

from agent.process import outlet
from cni.errors import ConfigInvalid


@contextmanager
def forgiving() -> Iterator[None]:
    """Within this block what is printed to the process's own standard output may be read or not."""
    stdout: TextIO | None = sys.stdout  # None where a process began without one
    try:
        descriptor = stdout.fileno() if stdout is not None else -1
    except OSError:  # somebody redirected it to what is no file
        descriptor = -1
    if stdout is None or descriptor < 0:
        yield
        return
    stdout.flush()
    # Each line at once, and nothing kept: there is nothing to fail when the process ends. What the terminal's encoding
    # has no sign for is no reason to fail either.
    output: Any = _Output(descriptor)
    with redirect_stdout(io.TextIOWrapper(output, stdout.encoding, "backslashreplace", write_through=True)):
        yield


class _Output(io.RawIOBase):
    """Writes to a descriptor. ConfigInvalid: it takes nothing, and why."""

    def __init__(self, descriptor: int) -> None:
        self._write = outlet.to(descriptor)

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: Any) -> int:
        """All of it, unless nobody reads any more."""
        try:
            self._write(bytes(data))
        except BrokenPipeError:
            pass
        except OSError as error:
            raise ConfigInvalid("the standard output takes nothing", error.strerror or str(error)) from error
        return len(data)
