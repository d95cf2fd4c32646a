"""The process that has Google's library, as the agent sees it: every way in which it can begin, answer and die."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.cloud.failures import CloudError, Lost, Refused, Throttled
from backends.cloud.steps import Call
from backends.gcp import remote as module
from backends.gcp.frames import MOST, Garbage, receive, send
from backends.gcp.remote import Remote, refuse_without_library
from backends.gcp.worker import serve
from cni.errors import ConfigInvalid

ROOT = Path(__file__).parents[2]
CALL = Call("instances.get", {"instance": "node-a"})
PREAMBLE = """
import os, socket, sys, time
from backends.gcp.frames import receive, send
sock = socket.socket(fileno=int(sys.argv[-1]))
"""
READY = PREAMBLE + "send(sock, {'ready': True})\n"
DEADLINE = 60.0


def remote(code: str, **limits: float) -> Remote:
    """A worker that does what *code* says."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return Remote([sys.executable, "-c", code], environment, **{"start": DEADLINE, "answer": DEADLINE, **limits})


def test_one_worker_answers_one_call_after_the_other() -> None:
    """It is started when something is asked, and goes on."""
    code = "while (asked := receive(sock)): send(sock, {'answer': {'was': asked, 'pid': os.getpid()}})"
    worker = remote(READY + code)
    assert worker.pid is None
    first, second = worker.call(CALL), worker.call(CALL)
    assert first["was"] == {"action": "instances.get", "parameters": {"instance": "node-a"}}
    assert first["pid"] == second["pid"] == worker.pid
    worker.close()
    assert worker.pid is None


@pytest.mark.parametrize("kind", [Lost, Refused, Throttled])
def test_what_the_api_says_arrives_as_it_was(kind: type[CloudError]) -> None:
    """By kind, code and message; the worker goes on."""
    failed = {"failed": kind.__name__, "code": "forbidden", "message": "no"}
    worker = remote(READY + f"while receive(sock): send(sock, {failed!r})")
    for _ in range(2):
        with pytest.raises(kind, match=r"instances\.get: forbidden: no"):
            worker.call(CALL)
    assert worker.pid is not None
    worker.close()


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ("receive(sock); os.kill(os.getpid(), 9)", Lost, "Died: the process that asks the API ended meanwhile"),
        ("sock.recv(4); os.kill(os.getpid(), 9)", Lost, "Died: the process that asks the API ended meanwhile"),
        ("receive(sock); sys.exit('out of memory')", Lost, r"exit code 1\): out of memory"),
        ("receive(sock); sock.sendall(b'HTTP/1.1 500')", Lost, "Garbage: a frame of"),
        ("receive(sock); sock.sendall(b'\\0\\0\\0\\4nope')", Lost, "Garbage"),
        ("receive(sock); sock.sendall(b'\\0\\0\\0\\2[]')", Lost, "Garbage: list in the place of an object"),
        ("receive(sock); sock.sendall(b'\\0\\0\\0\\x09half'); sock.close()", Lost, "Garbage: half a frame"),
        ("receive(sock); send(sock, {'failed': 'Bored', 'code': '', 'message': ''})", Lost, "Garbage"),
        ("receive(sock); send(sock, {'answer': 'text'})", Lost, "Garbage"),
        ("receive(sock); time.sleep(60)", Lost, "Hung: no answer in 0.5 s"),
    ],
)
def test_every_way_of_its_dying_is_a_lost_call(code: str, kind: type[CloudError], words: str) -> None:
    """Whatever it was: it may have been done. The next call has a new worker."""
    worker = remote(READY + code, answer=0.5 if "sleep" in code else DEADLINE)
    for _ in range(2):
        with pytest.raises(kind, match=words):
            worker.call(CALL)
        assert worker.pid is None
    worker.close()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise MemoryError('too small')", "it ended before it began.*too small"),
        (PREAMBLE + "send(sock, {'missing': \"No module named 'google'\"})", "No module named 'google'"),
        (PREAMBLE + "sock.sendall(b'x' * 9)", "it does not begin: a frame of"),
        (PREAMBLE + "time.sleep(60)", "it does not begin: timed out"),
    ],
)
def test_one_that_does_not_begin_has_done_nothing(code: str, words: str) -> None:
    """So its call is refused, with what it said last."""
    worker = remote(code, start=1.0 if "sleep" in code else DEADLINE)
    with pytest.raises(Refused, match=f"NoWorker: {words}"):
        worker.call(CALL)
    assert worker.pid is None


def test_what_cannot_be_started_is_told() -> None:
    """A program that is not there."""
    with pytest.raises(Refused, match=r"NoWorker: it cannot be started: .*No such file"):
        Remote(["/nowhere/python"], {}).call(CALL)


def test_one_that_was_killed_between_calls_is_replaced() -> None:
    """Nothing was under way, so nothing is lost."""
    worker = remote(READY + "while receive(sock): send(sock, {'answer': {'pid': os.getpid()}})")
    first = worker.call(CALL)
    os.kill(first["pid"], signal.SIGKILL)
    os.waitid(os.P_PID, first["pid"], os.WEXITED | os.WNOWAIT)
    assert worker.call(CALL)["pid"] != first["pid"]
    worker.close()


DEAF = PREAMBLE + "sock.shutdown(socket.SHUT_RD); send(sock, {'ready': True})\n"
"""It ended by itself at the moment of the call."""


def test_one_that_reads_nothing_more_is_replaced(tmp_path: Path) -> None:
    """What could not be sent was not done: it is asked of the next."""
    first = f"is_first = not os.path.exists({str(tmp_path / 'x')!r}); open({str(tmp_path / 'x')!r}, 'w').close()\n"
    code = PREAMBLE + first + "if is_first: sock.shutdown(socket.SHUT_RD)\nsend(sock, {'ready': True})\n"
    worker = remote(code + "receive(sock) and send(sock, {'answer': {'is_first': is_first}})")
    assert worker.call(CALL) == {"is_first": False}
    worker.close()


def test_two_in_a_row_that_read_nothing_are_told() -> None:
    """That is no accident."""
    worker = remote(DEAF + "time.sleep(60)")
    with pytest.raises(Refused, match="ends before it is asked anything"):
        worker.call(CALL)
    assert worker.pid is None


# --- the worker itself --------------------------------------------------------------------------------------------


class Api:
    """Answers what was asked; an action "fail" is refused."""

    def call(self, action: str, parameters: dict[str, Any]) -> dict[str, Any]:
        if action == "fail":
            raise Throttled(action, "rateLimitExceeded", "slow down")
        return {"action": action, **parameters}


@pytest.fixture
def served() -> Iterator[tuple[socket.socket, threading.Thread]]:
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=serve, args=(theirs, Api(), 0.3))
    thread.start()
    yield ours, thread
    ours.close()
    thread.join(DEADLINE)
    theirs.close()


def test_it_answers_what_it_is_asked(served: tuple[socket.socket, threading.Thread]) -> None:
    """And tells a refusal as one."""
    sock, _ = served
    send(sock, {"action": "get", "parameters": {"a": 1}})
    assert receive(sock) == {"answer": {"action": "get", "a": 1}}
    send(sock, {"action": "fail", "parameters": {}})
    assert receive(sock) == {"failed": "Throttled", "code": "rateLimitExceeded", "message": "slow down"}


def test_it_ends_when_nothing_was_asked_for_a_while(served: tuple[socket.socket, threading.Thread]) -> None:
    """From then on nothing can be sent to it, so nobody takes what was not read for done."""
    sock, thread = served
    thread.join(DEADLINE)
    assert not thread.is_alive()
    with pytest.raises(BrokenPipeError):
        send(sock, {"action": "get", "parameters": {}})


@pytest.mark.parametrize("data", [b"", b"\xff\xff\xff\xff", b"\0\0\0\x04nope"])
def test_it_ends_with_the_agent(served: tuple[socket.socket, threading.Thread], data: bytes) -> None:
    """Also one that does not speak as it should."""
    sock, thread = served
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)
    thread.join(DEADLINE)
    assert not thread.is_alive()


def test_a_frame_is_bounded() -> None:
    """Whoever is at the other end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall((MOST + 1).to_bytes(4, "big"))
        with pytest.raises(Garbage, match="a frame of 1048577 bytes"):
            receive(ours)


def test_a_worker_without_the_library_says_so(tmp_path: Path) -> None:
    """The real one, where no google is to be found."""
    (tmp_path / "google").mkdir()
    (tmp_path / "google" / "__init__.py").write_text("raise ImportError('no google here')")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    worker = Remote([sys.executable, "-P", "-m", "backends.gcp.worker"], environment)
    with pytest.raises(Refused, match="NoWorker: no google here"):
        worker.call(CALL)


def test_the_agent_does_not_start_without_the_library() -> None:
    """It says what to install; the worker's process is not needed to find that out, and nothing of google's is
    imported."""
    code = """
import sys
from importlib import metadata
from backends.gcp import remote
from cni.errors import ConfigInvalid
remote.LIBRARY = "no-such-library"
try:
    remote.refuse_without_library()
except ConfigInvalid as error:
    print(error)
from backends.gcp import check, table
print(next(check.verdicts(table.GcpTable(), {})))
print([name for name in sys.modules if name.partition(".")[0] in ("google", "requests", "grpc")])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    first, checked, second = done.stdout.splitlines()
    assert checked.startswith("WRONG library:")
    assert "is not installed" in first
    assert "install routable[gcp]" in first
    assert second == "[]"
    refuse_without_library()  # here it is
    assert module.installed() is not None
    assert not isinstance(ConfigInvalid, str)


def test_what_is_idle_is_buried() -> None:
    """No process stays behind as a zombie."""
    worker = remote(READY)
    with pytest.raises(CloudError):
        worker.call(CALL)
    worker = remote(READY + "send(sock, {'answer': {}})")
    worker.call(CALL)
    pid = worker.pid
    assert pid is not None
    deadline = time.monotonic() + DEADLINE
    while worker.pid is not None and time.monotonic() < deadline:
        worker.reap()
        time.sleep(0.01)
    assert not Path(f"/proc/{pid}").exists()
