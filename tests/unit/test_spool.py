"""DELs that waited while the agent was away."""

from __future__ import annotations

import errno
import logging
import os
import resource
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from agent.keep.spool import TICK, Spool, Spooled, Written
from cni import frame
from cni.errors import ConfigInvalid, Failure, TryAgain, Unreadable
from ipam.moment import Moment

BOOT = "0f8fad5b-d9cb-469f-a165-70867728950e"
ID = BOOT.replace("-", "")


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
    spool = Spool(directory, BOOT, lambda: 10_000.0)
    spool.prepare()
    return spool


class Served:
    """Remembers what it was given; the containers in *failing* are refused."""

    def __init__(self, *failing: str) -> None:
        self.failing = failing
        self.seen: list[tuple[str, Written]] = []

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


def test_it_is_ordered_by_the_clock_that_nobody_sets(spool: Spool, directory: Path) -> None:
    """Whatever the wall clock said; what was written during another boot comes first, and before anything of this one;
    what an older executable wrote, which says the wall clock's time alone, is believed that."""
    other = "0" * 32
    for name in (
        f"del-1000000000-8.70000000000.{ID}",
        f"del-9999000000000-7.50000000000.{ID}",
        f"del-5000000000-9.90000000000.{other}",
        "del-6000000000-9",
    ):
        write(directory, name, frame.encode(request(name.partition(".")[2][:3])))
    served = Served()
    assert spool.replay(served) == 4
    assert served.seen == [
        ("900", Written(-1.0, 5.0)),
        ("", Written(None, 6.0 + TICK)),
        ("500", Written(50.0, 9999.0)),
        ("700", Written(70.0, 1.0)),
    ]
    begun = Moment(60.0, 7.0)
    assert [written.is_after(begun) for _, written in served.seen] == [False, False, False, True]
    assert Written(None, 8.0).is_after(begun)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM, errno.EACCES])
def test_what_cannot_be_read_now_stays(directory: Path, caplog: pytest.LogCaptureFixture, number: int) -> None:
    """Without descriptors nothing can be said of a file, so it waits, and that is said once; then it is served."""
    is_short = True

    def read(file: Path) -> frame.Request:
        if is_short:
            raise OSError(number, os.strerror(number), str(file))
        return frame.decode(file.read_bytes())

    spool = Spool(directory, BOOT, lambda: 10_000.0, read)
    spool.prepare()
    file = write(directory, "del-1-1", frame.encode(request("a")))
    served = Served()
    assert [spool.replay(served) for _ in range(3)] == [0, 0, 0]
    assert file.exists()
    assert [vars(one)["error"] for one in caplog.records] == [f"it cannot be read now: {os.strerror(number)}"]
    is_short = False
    assert spool.replay(served) == 1
    assert [container for container, _ in served.seen] == ["a"]


def test_a_directory_that_cannot_be_read_now_holds_nothing_now(spool: Spool, directory: Path) -> None:
    """Without a single descriptor not even that is known, and the next look has one again."""
    write(directory, "del-1-1", frame.encode(request("a")))
    held: list[int] = []
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(one.name) for one in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 8, before[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        assert [len(spool), spool.replay(Served())] == [0, 0]
        spool.sweep()
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert [len(spool), spool.replay(Served())] == [1, 1]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_text("mine"), "cannot be made"),
        (lambda path: path.symlink_to("elsewhere"), "cannot be made"),
        (lambda path: (path.parent / "dir").mkdir() or path.symlink_to("dir"), "which is a symbolic link"),
        (lambda path: path.mkdir(0o755) or (path / "photos").mkdir(), "which has photos in it"),
    ],
)
def test_a_directory_of_somebody_elses_is_left_alone(tmp_path: Path, make: Callable[[Path], None], words: str) -> None:
    """To make it the agent's alone would lock its owner out."""
    path = tmp_path / "spool"
    make(path)
    before = path.lstat().st_mode
    with pytest.raises(ConfigInvalid, match=f"spool.*{words}"):
        Spool(path, BOOT, lambda: 0.0).prepare()
    assert path.lstat().st_mode == before


def test_what_waits_is_served_oldest_first_and_removed(spool: Spool, directory: Path) -> None:
    """By the time in the name, not by the name's letters; the server is told that time in seconds, and a tick more:
    the time may be early by that, and a DEL that came just after its ADD must not be taken for an older one."""
    write(directory, "del-10000000000-7", frame.encode(request("second")))
    write(directory, "del-9000000000-8", frame.encode(request("first")))
    served = Served()
    assert len(spool) == 2
    assert spool.replay(served) == 2
    assert served.seen == [("first", Written(None, 9.0 + TICK)), ("second", Written(None, 10.0 + TICK))]
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
    spool = Spool(tmp_path, BOOT, lambda: now[0])
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
    spool = Spool(tmp_path / "none", BOOT, lambda: 0.0)
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


def test_a_spool_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """Where a file stands in the way, as where the disk is read-only."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigInvalid, match=r"spool .*/file/spool cannot be made: Not a directory"):
        Spool(tmp_path / "file" / "spool", BOOT, lambda: 0.0).prepare()


def test_what_somebody_else_takes_away_meanwhile_is_passed_over(directory: Path) -> None:
    """Between the look at the directory and that at a file, which is what it is, or is no request."""

    def gone(file: Path) -> frame.Request:
        file.unlink()
        if file.name == "del-1-1":
            raise FileNotFoundError(errno.ENOENT, "gone", file)
        raise Unreadable("half a request")

    spool = Spool(directory, BOOT, lambda: 10_000.0, gone)
    spool.prepare()
    for name in ("del-1-1", "del-2-2"):
        write(directory, name, frame.encode(request("a")))
    (directory / ".del-3-3").symlink_to("nowhere")
    served = Served()
    assert spool.replay(served) == 0
    assert served.seen == []
    assert len(spool) == 0
    spool.sweep()


def test_what_cannot_be_removed_or_set_aside_is_told_once(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It comes again with each look, and a DEL that is served twice changes nothing the second time."""

    def read(file: Path) -> frame.Request:
        if file.name == "del-2-2":
            raise Unreadable("half a request")
        return request(file.name)

    spool = Spool(directory, BOOT, lambda: 1e12, read)
    spool.prepare()
    for name in ("del-1-1", "del-2-2", "bad-del-2-2", ".del-3-3"):
        (directory / name / "below").mkdir(parents=True)  # what is a directory no unlink takes, nor a rename replaces
    for _ in range(2):
        assert spool.replay(Served()) == 0
        spool.sweep()
    assert len(spool) == 2
    told = [one.__dict__["error"].partition(":")[0] for one in caplog.records if one.levelno == logging.WARNING]
    assert sorted(told) == [
        "it cannot be removed",
        "it is no request, and cannot be set aside",
        "it was served, and cannot be removed",
    ]


def test_a_directory_that_cannot_be_looked_at_is_named(tmp_path: Path) -> None:
    """As one that went, or that is none."""
    with pytest.raises(ConfigInvalid, match="cannot be made: No such file"):
        Spool(tmp_path / "spool", BOOT, lambda: 0.0).refuse_others()
    (tmp_path / "spool").write_text("")
    with pytest.raises(ConfigInvalid, match=r"which is a regular file.*left alone"):
        Spool(tmp_path / "spool", BOOT, lambda: 0.0).refuse_others()
