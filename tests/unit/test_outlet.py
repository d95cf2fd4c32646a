"""The way out of the log, with readers that are slow, stuck and gone."""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from agent.process import logs, outlet
from agent.process.outlet import Outlet

DEADLINE = 60.0
F_SETPIPE_SZ = 1031
MADE: list[Outlet] = []
"""What the test under way has made."""


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe that holds little: where it is read, and where it is written."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, F_SETPIPE_SZ, 4096)
    MADE.clear()
    yield reader, writer
    with suppress(OSError):
        os.close(reader)
    for one in MADE:  # or its thread would go on writing to whatever has the descriptor's number next
        one.flush()
    os.close(writer)


def died(thread: str, error: BaseException) -> None:
    raise AssertionError(f"{thread} died: {error}")


def made(descriptor: int, most: int = 20_000) -> Outlet:
    one = Outlet(outlet.to(descriptor), died, most)
    one.setFormatter(logs.Text())
    MADE.append(one)
    return one


def record(message: str, *args: object) -> logging.LogRecord:
    return logging.getLogger("agent").makeRecord("agent", logging.INFO, __file__, 1, message, args, None)


def read(descriptor: int, until: bytes) -> bytes:
    data = b""
    while until not in data:
        data += os.read(descriptor, 1 << 16)
    return data


def test_lines_come_whole_and_in_order(pipe: tuple[int, int]) -> None:
    """More than the pipe holds, while somebody reads."""
    reader, writer = pipe
    one = made(writer, 1 << 20)
    for number in range(1000):
        one.emit(record(f"line {number}"))
    data = read(reader, b"line 999\n")
    assert [line.rpartition(b" ")[2] for line in data.splitlines()] == [str(one).encode() for one in range(1000)]
    one.flush()
    assert one.dropped == 0


@pytest.mark.parametrize("is_blocking", [True, False])
def test_a_reader_that_is_stuck_costs_lines_and_nobody_waits(pipe: tuple[int, int], is_blocking: bool) -> None:
    """How many stands in the log when it is read again; each is there or counted."""
    reader, writer = pipe
    os.set_blocking(writer, is_blocking)
    one = made(writer)
    done = threading.Event()

    def talk() -> None:
        for number in range(2000):
            one.emit(record(f"line {number}"))
        done.set()

    threading.Thread(target=talk, daemon=True).start()
    assert done.wait(DEADLINE)
    lost = one.dropped
    assert lost > 500
    lines = read(reader, f"dropped={lost}\n".encode()).splitlines()
    assert sum(b"info line" in line for line in lines) == 2000 - lost
    assert lines[-1].endswith(f" warning lines of the log were dropped: nobody took them dropped={lost}".encode())


def test_a_reader_that_is_gone_costs_lines_and_nothing_else(pipe: tuple[int, int]) -> None:
    """They are counted, and the thread goes on."""
    reader, writer = pipe
    one = made(writer)
    os.close(reader)
    for number in range(3):
        one.emit(record(f"line {number}"))
        one.flush()
    assert one.dropped == 3


def test_the_end_does_not_wait_for_a_reader_that_is_stuck(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives it a moment."""
    monkeypatch.setattr(outlet, "FLUSH", 0.1)
    one = made(pipe[1])
    one.emit(record("x" * 3000))
    one.emit(record("x" * 3000))
    one.emit(record("x" * 3000))
    one.flush()
    one.close()


def test_a_line_that_is_wrong_says_where_it_is(pipe: tuple[int, int]) -> None:
    """What it was to be about goes on."""
    reader, writer = pipe
    made(writer).emit(record("%d leases", "many"))
    line = read(reader, b"\n")
    assert b"a line of the log is wrong: TypeError" in line
    assert b"'%d leases' at " in line


def test_the_death_of_its_thread_is_told() -> None:
    """As that of every other."""
    told: list[str] = []
    heard = threading.Event()

    def on_death(thread: str, error: BaseException) -> None:
        told.append(f"{thread}: {error}")
        heard.set()

    def write(data: bytes) -> None:
        raise ZeroDivisionError("a bug")

    Outlet(write, on_death).put("one")
    assert heard.wait(DEADLINE)
    assert told == ["log: a bug"]
