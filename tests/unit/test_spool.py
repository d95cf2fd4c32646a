"""DELs that waited while the agent was away."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from agent.spool import TICK, Spool, Spooled
from cni import frame
from cni.errors import Failure, TryAgain


def request(container: str) -> frame.Request:
    return frame.Request({"CNI_COMMAND": b"DEL", "CNI_CONTAINERID": container.encode()}, b'{"name": "pods"}')


def write(directory: Path, name: str, content: bytes) -> Path:
    file = directory / name
    file.write_bytes(content)
    return file


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def spool(directory: Path) -> Spool:
    spool = Spool(directory, lambda: 10_000.0)
    spool.prepare()
    return spool


class Served:
    """Remembers what it was given; the containers in *failing* are refused."""

    def __init__(self, *failing: str) -> None:
        self.failing = failing
        self.seen: list[tuple[str, float]] = []

    def __call__(self, spooled: Sequence[Spooled]) -> list[Failure | None]:
        found = [(request.env["CNI_CONTAINERID"].decode(), written) for request, written in spooled]
        self.seen += found
        return [TryAgain("not now") if container in self.failing else None for container, _ in found]


def test_the_directory_is_for_its_owner_alone(spool: Spool, directory: Path) -> None:
    """Who could write there could delete any pod's network."""
    assert directory.stat().st_mode & 0o777 == 0o700
    directory.chmod(0o755)
    spool.prepare()
    assert directory.stat().st_mode & 0o777 == 0o700


def test_what_waits_is_served_oldest_first_and_removed(spool: Spool, directory: Path) -> None:
    """By the time in the name, not by the name's letters; the server is told that time in seconds, and a tick more:
    the time may be early by that, and a DEL that came just after its ADD must not be taken for an older one."""
    write(directory, "del-10000000000-7", frame.encode(request("second")))
    write(directory, "del-9000000000-8", frame.encode(request("first")))
    served = Served()
    assert len(spool) == 2
    assert spool.replay(served) == 2
    assert served.seen == [("first", 9.0 + TICK), ("second", 10.0 + TICK)]
    assert list(directory.iterdir()) == []


def test_one_that_fails_stays_and_does_not_keep_others_waiting(spool: Spool, directory: Path) -> None:
    """It is served again the next time."""
    write(directory, "del-1-1", frame.encode(request("stuck")))
    write(directory, "del-2-1", frame.encode(request("fine")))
    assert spool.replay(Served("stuck")) == 1
    assert [file.name for file in directory.iterdir()] == ["del-1-1"]
    assert spool.replay(Served()) == 1
    assert len(spool) == 0


def test_a_file_that_is_no_request_is_set_aside(
    spool: Spool, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not tried again and again, not lost either, and the log names it with the reason."""
    write(directory, "del-1-1", b"CNI1 is how it should begin, and go on")
    with caplog.at_level(logging.ERROR):
        assert spool.replay(Served()) == 0
    assert [file.name for file in directory.iterdir()] == ["bad-del-1-1"]
    assert len(spool) == 0
    (record,) = caplog.records
    assert vars(record)["file"] == "del-1-1"
    assert "frame" in vars(record)["error"]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_regular_file_is_not_read(spool: Spool, directory: Path, make: Callable[[Path], None]) -> None:
    """A FIFO would hang, a link may lead anywhere."""
    make(directory / "del-1-1")
    served = Served()
    assert spool.replay(served) == 0
    assert served.seen == []
    assert [file.name for file in directory.iterdir()] == ["bad-del-1-1"]


def test_half_written_files_are_ignored_and_swept_when_old(tmp_path: Path) -> None:
    """The executable writes under a name with a dot first; one that died leaves such a file behind."""
    now = [0.0]
    spool = Spool(tmp_path, lambda: now[0])
    half = write(tmp_path, ".del-1-1", b"CNI1")
    assert len(spool) == 0
    now[0] = half.stat().st_mtime + 10
    spool.sweep()
    assert half.exists()
    now[0] = half.stat().st_mtime + 7200
    spool.sweep()
    assert not half.exists()


def test_a_missing_directory_holds_nothing(tmp_path: Path) -> None:
    """Somebody may have removed it while the agent runs."""
    spool = Spool(tmp_path / "none", lambda: 0.0)
    assert len(spool) == 0
    assert spool.replay(Served()) == 0
    spool.sweep()


def test_a_bug_in_serving_is_not_swallowed(spool: Spool, directory: Path) -> None:
    """Only failures that name who must act leave a file for later; anything else ends the pass."""

    def serve(spooled: Sequence[Spooled]) -> list[Failure | None]:
        raise ZeroDivisionError

    write(directory, "del-1-1", frame.encode(request("a")))
    with pytest.raises(ZeroDivisionError):
        spool.replay(serve)
    assert issubclass(TryAgain, Failure)


def test_many_are_served_together_and_none_is_kept_waiting_by_those_that_fail(spool: Spool, directory: Path) -> None:
    """A node that was long without an agent has thousands; each by itself would take the kernel 20 ms."""
    for number in range(1, 601):
        write(directory, f"del-{number}-1", frame.encode(request("stuck" if number <= 300 else f"c{number}")))
    served = Served("stuck")
    assert spool.replay(served) == 300
    assert len(served.seen) == 600
    assert len(spool) == 300
