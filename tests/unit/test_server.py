"""The agent's socket, with real clients on real sockets."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from agent.serve import parking as parkings
from agent.serve import reading
from agent.serve.connections import CONNECTIONS_MAX
from agent.serve.lane import Answer, Incoming, Together
from agent.serve.listener import Listener, listening
from agent.serve.parking import Parking
from agent.serve.server import Server
from agent.serve.serving import MORE
from cni import frame
from cni.errors import ConfigInvalid
from tests.fakes.descriptors import descriptors
from tests.pace import within

DEADLINE = 60.0
WORKERS = 3
MANY = 80
"""Connections: more than are accepted at once."""


def echo(incoming: Incoming) -> Answer:
    """Answers with what came."""
    return Answer(frame.Response(0, incoming.request.stdin))


def echoes(batch: Sequence[Incoming]) -> Callable[[], list[Answer]]:
    """The same for many."""
    return lambda: [echo(incoming) for incoming in batch]


class Slow:
    """Serves batches once it *may_go_on*: *begun* tells that one has arrived, *sizes* how many were in each."""

    def __init__(self) -> None:
        self.begun, self.may_go_on = threading.Event(), threading.Event()
        self.sizes: list[int] = []

    def __call__(self, batch: Sequence[Incoming]) -> Callable[[], list[Answer]]:
        self.sizes.append(len(batch))
        self.begun.set()
        self.may_go_on.wait(DEADLINE)
        return lambda: self.finished(batch)

    def finished(self, batch: Sequence[Incoming]) -> list[Answer]:
        return echoes(batch)()


def died(thread: str, error: BaseException) -> None:
    raise AssertionError(f"{thread} died: {error}")


def made(
    at: Path | Listener,
    serve: Callable[[Incoming], Answer | None] = echo,
    arrival: Callable[[], int] = lambda: 0,
    on_death: Callable[[str, BaseException], None] = died,
    is_trusted: Callable[[int], bool] = lambda uid: uid == os.geteuid(),
    together: Together | None = None,
    on_wait: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
    parking: Parking | None = None,
    room: int = CONNECTIONS_MAX,
    beside: Mapping[bytes, Together] = MappingProxyType({}),
) -> Server:
    return Server(
        at if isinstance(at, Listener) else Listener(at),
        parking or Parking(room, clock=clock),
        serve,
        arrival,
        on_death,
        workers=WORKERS,
        together={b"DEL": together or Together(echoes), **beside},
        is_trusted=is_trusted,
        on_wait=on_wait,
        clock=clock,
        room=room,
    )


@contextmanager
def serving(
    path: Path | Listener,
    serve: Callable[[Incoming], Answer | None] = echo,
    arrival: Callable[[], int] = lambda: 0,
    **options: Any,
) -> Iterator[Server]:
    server = made(path, serve, arrival, **options)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def connected(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(DEADLINE)
        stream.connect(os.fspath(path))
        yield stream


def answer(stream: socket.socket) -> frame.Response:
    data = b""
    while piece := stream.recv(1 << 16):
        data += piece
    return frame.decode_response(data)


def asked(path: Path, stdin: bytes = b"hello", command: bytes = b"ADD") -> frame.Response:
    with connected(path) as stream:
        stream.sendall(frame.encode(frame.Request({"CNI_COMMAND": command}, stdin)))
        return answer(stream)


def error_of(response: frame.Response) -> dict[str, object]:
    assert response.code == 1
    document = json.loads(response.stdout)
    assert isinstance(document, dict)
    return document


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "agent.sock"


def test_a_request_is_answered_and_the_connection_closed(path: Path) -> None:
    """One request, one answer; also one of the largest size, which arrives in many pieces."""
    with serving(path):
        assert asked(path) == frame.Response(0, b"hello")
        large = b"x" * frame.STDIN_MAX
        assert asked(path, large) == frame.Response(0, large)


def test_the_socket_and_its_directory_are_for_their_owner_alone(path: Path) -> None:
    """Whoever can connect can give and take pods' networks."""
    with serving(path):
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700


def test_another_user_is_hung_up_on(path: Path) -> None:
    """The kernel says who connected (SO_PEERCRED), whatever the file's mode lets in."""
    with serving(path, is_trusted=lambda uid: uid != os.geteuid()), connected(path) as stream:
        assert stream.recv(1) == b""


def test_bytes_that_are_no_request_get_an_error(path: Path) -> None:
    """At once, as a CNI error, without waiting for more."""
    with serving(path), connected(path) as stream:
        stream.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert error_of(answer(stream))["code"] == 5


def test_a_client_that_ends_early_gets_an_error_if_it_still_listens(path: Path) -> None:
    """A half-closed connection with half a request cannot become one."""
    with serving(path), connected(path) as stream:
        stream.sendall(frame.encode(frame.Request({}, b"hello"))[:-1])
        stream.shutdown(socket.SHUT_WR)
        error = error_of(answer(stream))
        assert error["code"] == 5
        assert "cut off after 16 of 17 bytes" in str(error["msg"])


def test_a_half_closed_client_with_a_whole_request_is_served(path: Path) -> None:
    """It may well say that it will send nothing more."""
    with serving(path), connected(path) as stream:
        stream.sendall(frame.encode(frame.Request({}, b"hello")))
        stream.shutdown(socket.SHUT_WR)
        assert answer(stream).stdout == b"hello"


def test_silent_clients_do_not_keep_others_waiting_and_are_sent_away(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred that say nothing cost others nothing; at the deadline each is told why."""
    monkeypatch.setattr(reading, "READ_DEADLINE", 1.0)
    with serving(path):
        silent = [socket.socket(socket.AF_UNIX) for _ in range(100)]
        try:
            for stream in silent:
                stream.settimeout(DEADLINE)
                stream.connect(os.fspath(path))
                stream.send(b"C")
            assert asked(path).code == 0
            for stream in silent:
                assert "time allowed" in str(error_of(answer(stream))["msg"])
        finally:
            for stream in silent:
                stream.close()


def test_more_connections_than_allowed_wait_until_there_is_room(path: Path) -> None:
    """A flood fills the kernel's queue, not the agent; when it ends, the next are served."""
    with serving(path, room=2):
        first, second = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        first.connect(os.fspath(path))
        second.connect(os.fspath(path))
        with connected(path) as third:
            third.sendall(frame.encode(frame.Request({}, b"hello")))
            third.settimeout(0.3)
            with pytest.raises(TimeoutError):
                third.recv(1)
            first.close()
            third.settimeout(DEADLINE)
            assert answer(third).stdout == b"hello"
        second.close()


def test_requests_are_served_in_parallel(path: Path) -> None:
    """Two that need each other to go on both end."""
    barrier = threading.Barrier(2, timeout=DEADLINE)

    def serve(incoming: Incoming) -> Answer:
        barrier.wait()
        return echo(incoming)

    with serving(path, serve):
        other = threading.Thread(target=asked, args=(path,))
        other.start()
        assert asked(path).code == 0
        other.join(DEADLINE)


def test_what_waits_is_served_together_and_keeps_nobody_waiting(path: Path) -> None:
    """DELs that come while others are begun wait for them and are then served at once; an ADD is served meanwhile."""
    slow = Slow()
    with serving(path, together=Together(slow)), ExitStack() as streams:
        deletes = [streams.enter_context(connected(path)) for _ in range(6)]
        for stream in deletes:
            stream.sendall(frame.encode(frame.Request({"CNI_COMMAND": b"DEL"}, b"bye")))
            assert slow.begun.wait(DEADLINE)
        assert asked(path).stdout == b"hello"
        slow.may_go_on.set()
        assert [answer(stream).stdout for stream in deletes] == [b"bye"] * 6
    assert slow.sizes == [1, 5]


def test_of_what_waits_no_more_are_served_together_than_allowed(path: Path) -> None:
    """The others follow while those are finished."""
    slow = Slow()
    with serving(path, together=Together(slow, most=2)), ExitStack() as streams:
        deletes = [streams.enter_context(connected(path)) for _ in range(6)]
        for number, stream in enumerate(deletes):
            stream.sendall(frame.encode(frame.Request({"CNI_COMMAND": b"DEL"}, str(number).encode())))
            assert slow.begun.wait(DEADLINE)
        assert asked(path).stdout == b"hello"
        slow.may_go_on.set()
        assert [answer(stream).stdout for stream in deletes] == [str(number).encode() for number in range(6)]
    assert slow.sizes == [1, 2, 2, 1]


def test_what_cannot_be_served_together_is_served_alone(path: Path) -> None:
    """Such as a DEL whose attachment has a request under way: that must not keep the other DELs waiting."""
    alone = Together(lambda batch: lambda: [None for _ in batch])
    with serving(path, together=alone), connected(path) as stream:
        stream.sendall(frame.encode(frame.Request({"CNI_COMMAND": b"DEL"}, b"bye")))
        assert answer(stream).stdout == b"bye"


def test_who_waits_for_a_batch_keeps_it_from_nothing(path: Path) -> None:
    """DELs of pods whose ADDs are begun wait for these, as many as there are threads for what is served alone; the ADDs
    are finished all the same."""
    first, second, waiting, finished = threading.Event(), threading.Event(), threading.Semaphore(0), threading.Event()

    def begin(batch: Sequence[Incoming]) -> Callable[[], list[Answer]]:
        number = batch[0].request.stdin
        if number == b"0":
            first.set()
            second.wait(DEADLINE)
        elif number == b"1":  # a third ADD waits, so this one is finished elsewhere
            for _ in range(MORE):
                waiting.acquire(timeout=DEADLINE)

        def finish() -> list[Answer]:
            if number == b"1":
                finished.set()
            return echoes(batch)()

        return finish

    def alone(incoming: Incoming) -> Answer:
        if incoming.command == b"DEL":
            waiting.release()
            if not finished.wait(DEADLINE):
                return Answer(frame.Response(1, b"the ADD was never finished"))
        return echo(incoming)

    lanes = {b"ADD": Together(begin, most=1)}
    deletions = Together(lambda batch: lambda: [None for _ in batch])
    with serving(path, alone, beside=lanes, together=deletions), ExitStack() as streams:
        commands = [b"ADD"] * 3 + [b"DEL"] * (MORE + 4)
        clients = [streams.enter_context(connected(path)) for _ in commands]
        for number, (command, stream) in enumerate(zip(commands, clients, strict=True)):
            stream.sendall(frame.encode(frame.Request({"CNI_COMMAND": command}, str(number).encode())))
            assert first.wait(DEADLINE)
            if number == 2:
                assert asked(path, command=b"CHECK").stdout == b"hello"  # all that came before was read
                second.set()
        assert [answer(stream).stdout for stream in clients] == [str(number).encode() for number in range(len(clients))]


def test_a_request_carries_the_number_at_its_arrival(path: Path) -> None:
    """Not the number when a worker has time for it."""
    number = iter(range(7, 100))
    with serving(path, lambda incoming: Answer(frame.Response(incoming.sequence, b"")), lambda: next(number)):
        assert [asked(path).code, asked(path).code] == [7, 8]


def test_delivery_is_told_only_when_the_client_has_the_answer(path: Path) -> None:
    """An ADD whose runtime is gone counts as unanswered; and a worker can see that it hung up."""
    told: list[tuple[str, bool]] = []
    begun, may_go_on, seen = threading.Event(), threading.Event(), []

    def serve(incoming: Incoming) -> Answer:
        if incoming.request.stdin == b"gone":
            begun.set()
            may_go_on.wait(DEADLINE)
            seen.append(incoming.is_gone())
        return Answer(frame.Response(0, b"x"), lambda is_so: told.append((incoming.request.stdin.decode(), is_so)))

    with serving(path, serve):
        assert asked(path, b"there").code == 0
        with connected(path) as stream:
            stream.sendall(frame.encode(frame.Request({}, b"gone")))
            assert begun.wait(DEADLINE)
        may_go_on.set()
    assert seen == [True]
    assert told == [("there", True), ("gone", False)]


def test_stopping_answers_what_was_asked_and_removes_the_socket(path: Path) -> None:
    """A request under way is finished; afterwards nobody can connect."""
    begun, may_go_on = threading.Event(), threading.Event()

    def serve(incoming: Incoming) -> Answer:
        begun.set()
        may_go_on.wait(DEADLINE)
        return echo(incoming)

    server = made(path, serve)
    server.start()
    with connected(path) as stream:
        stream.sendall(frame.encode(frame.Request({}, b"hello")))
        assert begun.wait(DEADLINE)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        deadline = time.monotonic() + DEADLINE
        while path.exists():
            assert time.monotonic() < deadline, "the socket stays"
        may_go_on.set()
        assert answer(stream).stdout == b"hello"
        stopping.join(DEADLINE)


def test_who_has_connected_before_the_end_is_answered(path: Path) -> None:
    """Also who was not even accepted, since nobody had time to; who comes later is told by the kernel that nobody
    listens, and waits for the next agent: of a roll nobody has a request that failed."""
    begun, may_go_on = threading.Semaphore(0), threading.Event()

    def serve(incoming: Incoming) -> Answer:
        begun.release()
        assert may_go_on.wait(DEADLINE)
        return echo(incoming)

    server = made(path, serve)
    server.start()
    with ExitStack() as held:
        streams = [held.enter_context(connected(path)) for _ in range(MANY)]
        for number, stream in enumerate(streams[:-1]):
            stream.sendall(frame.encode(frame.Request({}, b"%d" % number)))
            if number < WORKERS:
                assert begun.acquire(timeout=DEADLINE)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        streams[-1].sendall(frame.encode(frame.Request({}, b"at the last moment")))
        deadline = time.monotonic() + DEADLINE
        while path.exists():
            assert time.monotonic() < deadline, "the socket stays"
        may_go_on.set()
        said = [answer(stream).stdout for stream in streams]
        stopping.join(DEADLINE)
    assert said == [*(b"%d" % number for number in range(len(streams) - 1)), b"at the last moment"]


def test_nobody_can_connect_between_the_last_who_is_answered_and_the_sockets_end(path: Path) -> None:
    """Refused by the kernel, in the same moment from which on nobody is accepted who was not there before."""
    listener = Listener(path)
    listener.listen()
    with connected(path), closing(listener):
        listener.refuse()
        with pytest.raises(ConnectionRefusedError), connected(path):
            pass
        listener.stream.accept()[0].close()
        with pytest.raises(BlockingIOError):
            listener.stream.accept()


def test_a_socket_that_nobody_serves_is_replaced(path: Path) -> None:
    """An agent that was killed leaves its socket behind."""
    listening(path).close()
    assert path.exists()
    with serving(path):
        assert asked(path).code == 0


def test_a_socket_that_is_served_is_left_alone(path: Path) -> None:
    """A second agent says so, and the first goes on."""
    with serving(path):
        with pytest.raises(ConfigInvalid, match="served already"):
            listening(path)
        assert asked(path).code == 0


def test_a_socket_that_cannot_be_made_is_an_error_in_words(tmp_path: Path) -> None:
    """A file where its directory should be, for example."""
    (tmp_path / "run").write_text("")
    with pytest.raises(ConfigInvalid, match=r"run/agent.sock cannot be"):
        listening(tmp_path / "run" / "agent.sock")


def test_the_death_of_a_thread_is_told(path: Path) -> None:
    """Without it the process would live on and serve nobody."""
    told: list[tuple[str, str]] = []

    def arrival() -> int:
        raise ZeroDivisionError("a bug")

    server = made(path, echo, arrival, lambda thread, error: told.append((thread, str(error))))
    server.start()
    with connected(path) as stream:
        stream.sendall(frame.encode(frame.Request({}, b"")))
        stream.recv(1)
    server.stop()
    assert [(name.partition("-")[0], why) for name, why in told] == [("request", "a bug")]


def test_a_bug_in_what_finishes_a_batch_is_told_too(path: Path) -> None:
    """Wherever it runs: its clients would wait for ever."""
    told: list[str] = []

    class Buggy(Slow):
        def finished(self, batch: Sequence[Incoming]) -> list[Answer]:
            if batch[0].request.stdin == b"bug":
                raise ZeroDivisionError("a bug")
            return super().finished(batch)

    slow = Buggy()
    server = made(
        path, on_death=lambda name, error: told.append(f"{name}: {error}"), together=Together(slow, most=1)
    )
    server.start()
    with ExitStack() as streams:
        for text in (b"fine", b"bug", b"fine"):  # the second is finished elsewhere, since a third waits
            stream = streams.enter_context(connected(path))
            stream.sendall(frame.encode(frame.Request({"CNI_COMMAND": b"DEL"}, text)))
            assert slow.begun.wait(DEADLINE)
        assert asked(path).code == 0
        slow.may_go_on.set()
    server.stop()
    assert told == ["more: a bug"]


class Patient:
    """Has nothing to serve with until it *has_something*; who has no patience any more is told so."""

    def __init__(self) -> None:
        self.has_something = False
        self.told = threading.Semaphore(0)

    def __call__(self, incoming: Incoming) -> Answer | None:
        if self.has_something:
            return echo(incoming)
        return None if incoming.has_patience else Answer(frame.Response(1, b"nothing came"))

    def on_wait(self) -> None:
        self.told.release()


@contextmanager
def parked(
    path: Path,
    patient: Patient,
    *texts: bytes,
    patience: Mapping[bytes, float] | None = None,
    clock: Callable[[], float] = time.monotonic,
    room: int = CONNECTIONS_MAX,
) -> Iterator[tuple[Parking, list[socket.socket]]]:
    """Where a request with each of *texts* waits, and the streams that wait for their answers."""
    parking = Parking(room, patience=patience or {}, clock=clock)
    server = serving(path, patient, on_wait=patient.on_wait, parking=parking, clock=clock, room=room)
    with server, ExitStack() as stack:
        streams = [stack.enter_context(connected(path)) for _ in texts]
        for stream, text in zip(streams, texts, strict=True):
            stream.sendall(frame.encode(frame.Request({"CNI_COMMAND": b"ADD"}, text)))
            assert patient.told.acquire(timeout=DEADLINE)
        yield parking, streams


def test_who_cannot_be_served_now_waits_and_is_served_when_there_is_hope(path: Path) -> None:
    """Without a thread of its own; others are served meanwhile; without hope nobody is asked again."""
    patient = Patient()
    with parked(path, patient, b"one", b"two") as (parking, streams):
        assert parking.waiting() == 2
        parking.resume(has_news=False)
        assert parking.waiting() == 2
        patient.has_something = True
        assert asked(path, b"another").stdout == b"another"
        parking.resume(has_news=True)
        assert [answer(stream).stdout for stream in streams] == [b"one", b"two"]
        assert parking.waiting() == 0


def test_hope_that_was_vain_lets_it_wait_on(path: Path) -> None:
    """The time for which it may is counted from its arrival."""
    patient, now = Patient(), [0.0]
    with parked(path, patient, b"one", clock=lambda: now[0]) as (parking, streams):
        now[0] = parkings.PATIENCE / 2
        parking.resume(has_news=True)
        assert patient.told.acquire(timeout=DEADLINE)
        assert parking.waiting() == 1
        now[0] = parkings.PATIENCE + 1
        parking.resume(has_news=False)
        assert answer(streams[0]) == frame.Response(1, b"nothing came")
        assert parking.waiting() == 0


def test_who_asks_for_the_status_has_less_patience(path: Path) -> None:
    """Its runtime waits for it; and it is not counted among those that wait for an address."""
    patient, now = Patient(), [0.0]
    parked_one = parked(path, patient, b"one", clock=lambda: now[0], patience={b"STATUS": 3.0})
    with parked_one as (parking, streams), connected(path) as stream:
        stream.sendall(frame.encode(frame.Request({"CNI_COMMAND": b"STATUS"}, b"well?")))
        assert patient.told.acquire(timeout=DEADLINE)
        assert parking.waiting() == 1
        now[0] = 2.9
        parking.resume(has_news=False)
        now[0] = 3.1
        parking.resume(has_news=False)
        assert answer(stream) == frame.Response(1, b"nothing came")
        patient.has_something = True
        parking.resume(has_news=True)
        assert answer(streams[0]).stdout == b"one"


def test_who_hung_up_waits_no_more(path: Path) -> None:
    """And its descriptor is given back."""
    patient = Patient()
    with parked(path, patient, b"one", b"two") as (parking, streams):
        streams[0].close()
        parking.resume(has_news=False)
        assert parking.waiting() == 1
        patient.has_something = True
        parking.resume(has_news=True)
        assert answer(streams[1]).stdout == b"two"


def test_at_the_end_those_that_wait_are_answered(path: Path) -> None:
    """They are told that nothing came, instead of being hung up on."""
    patient = Patient()
    server = made(path, patient, on_wait=patient.on_wait)
    server.start()
    with connected(path) as stream:
        stream.sendall(frame.encode(frame.Request({"CNI_COMMAND": b"ADD"}, b"one")))
        assert patient.told.acquire(timeout=DEADLINE)
        server.stop()
        assert answer(stream) == frame.Response(1, b"nothing came")


def test_those_that_wait_in_a_lane_are_answered_at_the_end_too(path: Path) -> None:
    """Also those that only come to wait while the server stops; and the end is reached."""
    patient, slow = Patient(), Slow()
    none = Together(lambda batch: lambda: [None for _ in slow(batch)()])
    told: list[str] = []
    server = made(
        path, patient, on_wait=patient.on_wait, together=none, on_death=lambda name, error: told.append(name)
    )
    server.start()
    with connected(path) as waiting, connected(path) as late:
        waiting.sendall(frame.encode(frame.Request({"CNI_COMMAND": b"ADD"}, b"one")))
        assert patient.told.acquire(timeout=DEADLINE)
        late.sendall(frame.encode(frame.Request({"CNI_COMMAND": b"DEL"}, b"two")))
        assert slow.begun.wait(DEADLINE)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        assert answer(waiting) == frame.Response(1, b"nothing came")
        slow.may_go_on.set()
        assert answer(late) == frame.Response(1, b"nothing came")
        stopping.join(DEADLINE)
        assert not stopping.is_alive()
    assert told == []


def test_a_socket_that_was_taken_is_nobody_elses_and_not_yet_served(path: Path) -> None:
    """Who begins to change the kernel has it by then; who connects is to come again."""
    server = made(path)
    with socket.socket(socket.AF_UNIX) as early, pytest.raises(ConnectionRefusedError):
        early.connect(os.fspath(path))
    server.start()
    assert asked(path).code == 0
    server.stop()
    assert not path.exists()


def test_a_socket_that_somebody_removed_is_made_anew(path: Path) -> None:
    """Within two seconds; who had connected by then is served as well."""
    listener = Listener(path)
    with serving(listener), connected(path) as early:
        for _ in range(2):
            path.unlink()
            within(2.0, "it is there", path.exists)
            assert asked(path).code == 0
            assert path.stat().st_mode & 0o777 == 0o600
        path.parent.rename(path.parent.with_name("elsewhere"))
        wait_for(path.exists)
        assert asked(path).code == 0
        early.sendall(frame.encode(frame.Request({}, b"hello")))
        assert answer(early).stdout == b"hello"
        assert listener.problem() is None


@pytest.mark.parametrize("is_served", [False, True], ids=["file", "socket"])
def test_what_somebody_put_in_the_place_of_the_socket_is_left_alone_and_told(path: Path, is_served: bool) -> None:
    """Also at the end; when it is gone, the socket is made anew."""
    with ExitStack() as others:
        listener = Listener(path)
        server = made(listener)
        server.start()
        others.callback(server.stop)
        path.unlink()
        if is_served:
            other = others.enter_context(socket.socket(socket.AF_UNIX))
            other.bind(os.fspath(path))
            other.listen()
        else:
            path.write_text("not yours")
        wait_for(lambda: listener.problem() is not None)
        assert str(path) in str(listener.problem())
        assert path.exists()
        path.unlink()
        wait_for(path.exists)
        assert asked(path).code == 0
        assert listener.problem() is None
        path.unlink()
        path.write_text("not yours")
    assert path.read_text() == "not yours"


def wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_who_says_nothing_keeps_nobody_out(path: Path) -> None:
    """Where there is no room for more, the silent have to make some sooner."""
    with serving(path, room=4), ExitStack() as stack:
        silent = [stack.enter_context(connected(path)) for _ in range(10)]
        started = time.monotonic()
        assert asked(path).code == 0
        assert time.monotonic() - started < reading.READ_DEADLINE / 2
        assert "time allowed" in str(error_of(answer(silent[0]))["msg"])


def test_those_that_wait_leave_room_for_others(path: Path) -> None:
    """Of as many connections as there can be three quarters may wait; the next are told at once to try again."""
    patient = Patient()
    with parked(path, patient, *(b"one" for _ in range(6)), room=8) as (parking, streams):
        assert asked(path) == frame.Response(1, b"nothing came")
        assert parking.waiting() == 6
        with connected(path) as stream:
            stream.sendall(frame.encode(frame.Request({"CNI_COMMAND": b"DEL"}, b"bye")))
            assert answer(stream).stdout == b"bye"
        patient.has_something = True
        parking.resume(has_news=True)
        assert [answer(stream).stdout for stream in streams] == [b"one"] * 6


def test_the_time_to_wait_ends_though_nobody_comes_by(path: Path) -> None:
    """Neither a pass nor another request has to."""
    with parked(path, Patient(), b"one", patience={b"ADD": 0.2}) as (parking, streams):
        assert answer(streams[0]) == frame.Response(1, b"nothing came")
        assert parking.waiting() == 0


def test_half_a_request_ends_with_the_server(path: Path) -> None:
    """Who is still sending at the end is not waited for: the executable tries again, or keeps its DEL."""
    server = made(path)
    server.start()
    with connected(path) as stream:
        stream.sendall(b"CNI1\0\0")
        assert asked(path).code == 0
        server.stop()
        assert stream.recv(100) == b""


def test_without_a_descriptor_callers_wait_in_the_kernels_queue(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is told, the processor rests, and when there are some again all are served."""
    with serving(path), ExitStack() as streams:
        clients = [streams.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(3)]
        with descriptors(0):
            before = time.process_time()
            for client in clients:
                client.settimeout(DEADLINE)
                client.connect(os.fspath(path))
                client.sendall(frame.encode(frame.Request({"CNI_COMMAND": b"STATUS"}, b"hello")))
            wait_for(lambda: "no more descriptors for the socket" in caplog.text)
            assert time.process_time() - before < 0.5
        for client in clients:
            assert answer(client).stdout == b"hello"
