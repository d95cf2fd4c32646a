"""The local HTTP port: its three paths, its limits, and what happens when it dies."""

from __future__ import annotations

import http.client
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from agent.serve.http import CONNECTIONS_MAX, Http, listening
from cni.errors import ConfigInvalid
from tests.fakes.descriptors import descriptors


class World:
    """What the server under test is given."""

    def __init__(self) -> None:
        self.ready = (True, "")
        self.died: list[tuple[str, BaseException]] = []
        self.dead = threading.Event()
        self.scrape: Callable[[], tuple[str, bytes]] = lambda: ("text/plain; version=0.0.4", b"up 1\n")

    def page(self) -> tuple[str, bytes]:
        """What the test wants a scrape to do now."""
        return self.scrape()

    def on_death(self, name: str, error: BaseException) -> None:
        """Remember who died of what."""
        self.died.append((name, error))
        self.dead.set()


@pytest.fixture
def world() -> World:
    """What the server under test is given."""
    return World()


@pytest.fixture
def server(world: World) -> Iterator[Http]:
    """A started server on a free port of the loopback address."""
    made = Http(listening("127.0.0.1", 0), scrape=world.page, ready=lambda: world.ready, on_death=world.on_death)
    made.start()
    yield made
    made.stop()


def ask(server: Http, method: str, path: str) -> tuple[int, str, str | None]:
    """Status, body and content type of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.getheader("Content-Type")
    finally:
        connection.close()


def raw(server: Http, data: bytes) -> bytes:
    """All that is answered to these bytes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(data)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_answers_its_three_paths(server: Http) -> None:
    """Metrics come with their own content type, and both probes say ok; a query is ignored."""
    assert ask(server, "GET", "/metrics?name[]=up") == (200, "up 1\n", "text/plain; version=0.0.4")
    assert ask(server, "GET", "/healthz")[:2] == (200, "ok\n")
    assert ask(server, "GET", "/readyz")[:2] == (200, "ok\n")
    assert ask(server, "HEAD", "/metrics")[:2] == (200, "")


def test_says_why_it_is_not_ready(world: World, server: Http) -> None:
    """While ADDs are not served, /readyz is 503 with the reason; /healthz stays 200."""
    world.ready = (False, "no address is free")
    assert ask(server, "GET", "/readyz")[:2] == (503, "no address is free\n")
    assert ask(server, "GET", "/healthz")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "HACK"])
def test_allows_reading_alone(server: Http, method: str) -> None:
    """Any method but GET and HEAD is 405 on any path."""
    assert ask(server, method, "/metrics")[:2] == (405, "allowed: GET, HEAD\n")


@pytest.mark.parametrize("path", ["/", "/metrics/", "/METRICS", "/../etc/passwd", "/readyz%00"])
def test_knows_no_other_path(server: Http, path: str) -> None:
    """Every other path is 404 and names those that there are."""
    assert ask(server, "GET", path)[:2] == (404, "there are /metrics, /healthz and /readyz\n")


def test_survives_a_failing_scrape(world: World, server: Http) -> None:
    """A failure while collecting is a 500 without its details, and the next scrape is served."""

    def fail() -> tuple[str, bytes]:
        raise KeyError("secret")

    works, world.scrape = world.scrape, fail
    assert ask(server, "GET", "/metrics")[:2] == (500, "internal error, see the agent's log\n")
    world.scrape = works
    assert ask(server, "GET", "/metrics")[0] == 200
    assert world.died == []


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\r\n", b""),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/9.9\r\n\r\n", b"505"),
        (b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", b"431"),
        (b"GET /healthz HTTP/1.1\r\n\r\nGET /healthz HTTP/1.1\r\n\r\n", b"200"),
    ],
)
def test_bounds_what_it_reads(server: Http, data: bytes, status: bytes) -> None:
    """Malformed, oversized and pipelined requests get one plain answer or none, and the port goes on."""
    try:
        answer = raw(server, data)
    except ConnectionResetError:  # what was not read is reset on close
        answer = b""
    assert answer.count(b"HTTP/1.0 ") == (1 if answer else 0)
    assert status in answer[:20] or not answer
    assert ask(server, "GET", "/healthz")[0] == 200


def test_serves_no_more_than_so_many_at_once(server: Http) -> None:
    """Idle connections fill the places; one more is closed unanswered, and a freed place is given again."""
    idle = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(CONNECTIONS_MAX)]
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as extra:
            assert extra.recv(1) == b""
    finally:
        for one in idle:
            one.close()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            assert ask(server, "GET", "/healthz")[0] == 200
            return
        except (http.client.RemoteDisconnected, ConnectionResetError):
            continue
    pytest.fail("no place was given again")


def test_a_slow_caller_is_cut_off(world: World) -> None:
    """A head that drips in is given up at the deadline, however regularly its bytes come."""
    made = Http(
        listening("127.0.0.1", 0), scrape=world.page, ready=lambda: world.ready, on_death=world.on_death, deadline=0.5
    )
    made.start()
    try:
        before = time.monotonic()
        with socket.create_connection(("127.0.0.1", made.port), timeout=0.05) as connection:
            while not _is_closed(connection):
                assert time.monotonic() - before < 10
        assert time.monotonic() - before >= 0.5
    finally:
        made.stop()


def _is_closed(connection: socket.socket) -> bool:
    """Whether the other side has closed, seen by sending a byte and waiting a moment for an answer."""
    try:
        connection.sendall(b"G")
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except (BrokenPipeError, ConnectionResetError):
        return True


def test_answers_in_one_segment_without_delay(server: Http) -> None:
    """A request takes milliseconds: head and body do not wait for each other (Nagle and delayed ACK cost 40 ms)."""
    took = []
    for _ in range(30):
        before = time.monotonic()
        ask(server, "GET", "/metrics")
        took.append(time.monotonic() - before)
    assert min(took) < 0.03


def test_a_port_in_use_is_said_by_name(server: Http) -> None:
    """Listening where another listens is refused with the key, the address and the remedy."""
    with pytest.raises(ConfigInvalid) as caught:
        listening("127.0.0.1", server.port)
    said = f"metrics.listen: cannot listen on 127.0.0.1 port {server.port}: Address already in use; choose"
    assert str(caught.value).startswith(said)


def test_stops_and_frees_the_port(server: Http, world: World) -> None:
    """After stop the port is free, nobody is told of a death, and a second stop does nothing."""
    port = server.port
    server.stop()
    server.stop()
    assert world.died == []
    again = Http(listening("127.0.0.1", port), scrape=world.scrape, ready=lambda: (True, ""), on_death=world.on_death)
    again.stop()


def test_without_a_descriptor_callers_wait_and_the_processor_rests(server: Http) -> None:
    """The connection stays in the kernel's queue, which would wake a loop again and again."""
    with socket.socket() as caller:
        with descriptors(0):
            before = time.process_time()
            caller.connect(("127.0.0.1", server.port))
            caller.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            assert select.select([caller], [], [], 0.6)[0] == []
            assert time.process_time() - before < 0.3
        caller.settimeout(10)
        assert caller.recv(100).startswith(b"HTTP/1.0 200 OK")


def test_a_caller_that_breaks_its_connection_costs_nothing(server: Http, world: World) -> None:
    """In the middle of its request, as a prober's time limit does."""
    for _ in range(CONNECTIONS_MAX + 1):
        with socket.create_connection(("127.0.0.1", server.port)) as caller:
            caller.sendall(b"GET /heal")
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close is a reset
        assert ask(server, "GET", "/healthz")[0] == 200
    assert world.died == []


def test_tells_of_the_death_of_its_thread(server: Http, world: World) -> None:
    """When the listening socket is lost the thread ends rather than spins, and on_death hears who and why."""
    handle = server._listener.fileno()
    spare = os.open(os.devnull, os.O_RDONLY)
    try:
        os.dup2(spare, handle)
        assert world.dead.wait(10)
    finally:
        os.close(spare)
    [(name, error)] = world.died
    assert name == "http"
    assert "the listening socket is gone" in str(error)


def test_serves_ipv6(world: World) -> None:
    """An IPv6 address is listened on just the same."""
    made = Http(listening("::1", 0), scrape=world.scrape, ready=lambda: (True, ""), on_death=world.on_death)
    made.start()
    try:
        connection = http.client.HTTPConnection("::1", made.port, timeout=10)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        connection.close()
    finally:
        made.stop()


def test_an_agent_that_does_not_do_its_work_is_not_healthy(world: World) -> None:
    """A new one may: whoever asks /healthz starts it."""
    made = Http(
        listening("127.0.0.1", 0),
        scrape=world.scrape,
        ready=lambda: (True, ""),
        works=lambda: (False, "no pass was completed"),
        on_death=world.on_death,
    )
    made.start()
    try:
        assert ask(made, "GET", "/healthz")[:2] == (503, "no pass was completed\n")
        assert ask(made, "GET", "/readyz")[0] == 200
    finally:
        made.stop()
