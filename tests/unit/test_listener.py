"""What is at the socket's path is the agent's, or it is left alone."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from agent.serve.listener import Listener, listening
from cni.errors import ConfigInvalid


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (Path.touch, "regular file"),
        (Path.mkdir, "directory"),
        (os.mkfifo, "FIFO"),
        (lambda path: path.symlink_to("precious"), "symbolic link"),
    ],
)
def test_what_is_no_socket_is_left_alone(tmp_path: Path, make: Callable[[Path], None], kind: str) -> None:
    """Somebody mistyped paths.socket: it is told what is there."""
    (tmp_path / "precious").write_text("precious")
    path = tmp_path / "agent.sock"
    make(path)
    before = path.lstat()
    with pytest.raises(ConfigInvalid, match=f"which is a {kind}: it was left alone; set paths.socket"):
        listening(path)
    after = path.lstat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_another_programs_living_socket_is_left_alone(tmp_path: Path, kind: socket.SocketKind) -> None:
    """Of whatever kind it is, and however many wait there: the probe itself does not wait."""
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX, kind) as other, socket.socket(socket.AF_UNIX, kind) as client:
        other.bind(str(path))
        if kind is not socket.SOCK_DGRAM:
            other.listen(0)
            client.connect(str(path))
        before = path.lstat().st_ino
        with pytest.raises(ConfigInvalid, match=r"the socket .* (is served already|cannot be used)"):
            listening(path)
        assert path.lstat().st_ino == before


def test_a_socket_that_nobody_serves_is_replaced(tmp_path: Path) -> None:
    """An agent that was killed left it."""
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with closing(listening(path)), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_socket_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """Why, and which key of the configuration says where it is; nothing is left open."""
    gc.collect()  # what other tests left open would be closed at any moment
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(ConfigInvalid, match=r"the socket /proc/agent\.sock cannot be made: .*check paths\.socket"):
        listening(Path("/proc/agent.sock"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigInvalid, match="cannot be made: File exists"):
        listening(tmp_path / "file" / "agent.sock")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_what_stands_in_the_place_of_a_lost_socket_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not each second for as long as it stands there; something else is told again."""
    path = tmp_path / "agent.sock"
    with closing(Listener(path)) as listener:
        for make, undo in ((Path.touch, Path.unlink), (Path.mkdir, Path.rmdir)):
            path.unlink(missing_ok=True)
            make(path)
            assert [listener.anew() for _ in range(3)] == [None, None, None]
            undo(path)
    told = [record for record in caplog.records if record.message == "the socket is gone and cannot be made anew"]
    assert ["directory" in str(vars(record)["error"]) for record in told] == [False, True]
