"""The HTTP port, where another has it at the start."""

from __future__ import annotations

import socket
import threading

from agent.serve.binding import Binding
from agent.serve.http import Http, listening
from agent.serve.port import HttpPort
from cni.errors import ConfigInvalid


def died(thread: str, error: BaseException) -> None:
    raise AssertionError(f"{thread} died: {error}")


def shown(listener: socket.socket) -> Http:
    return Http(listener, scrape=lambda: ("", b""), ready=lambda: (True, ""), on_death=died)


def test_a_port_that_is_anothers_is_had_when_it_is_free() -> None:
    """Meanwhile the problem is known, and nothing fails."""
    freed = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]

        def made() -> socket.socket:
            try:
                return listening("127.0.0.1", number)
            except ConfigInvalid:
                freed.set()
                raise

        binding = Binding(made)
        port = HttpPort(binding, shown, died, again=0.01)
        port.start()
        assert f"port {number}" in str(binding.problem)
        freed.clear()
        assert freed.wait(10)
    try:
        for _ in range(1000):
            if binding.problem is None:
                break
            threading.Event().wait(0.01)
        assert binding.problem is None
        with socket.create_connection(("127.0.0.1", number), 10) as stream:
            stream.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            assert stream.recv(12) == b"HTTP/1.0 200"
    finally:
        port.stop()


def test_one_that_is_never_had_is_given_up_at_the_end() -> None:
    """Stopping does not wait for the next try."""

    def refused() -> socket.socket:
        raise ConfigInvalid("metrics.listen: in use")

    binding = Binding(refused)
    port = HttpPort(binding, shown, died, again=3600)
    port.start()
    port.stop()
    assert str(binding.problem) == "metrics.listen: in use"


def test_a_bug_while_it_is_tried_again_is_a_death() -> None:
    """As of every thread: it is told who died, and of what."""
    told: list[tuple[str, BaseException]] = []
    dead = threading.Event()
    failures = iter([ConfigInvalid("metrics.listen: in use"), ZeroDivisionError("a bug")])

    def made() -> socket.socket:
        raise next(failures)

    def on_death(thread: str, error: BaseException) -> None:
        told.append((thread, error))
        dead.set()

    port = HttpPort(Binding(made), shown, on_death, again=0.0)
    port.start()
    assert dead.wait(10)
    port.stop()
    assert [(name, str(error)) for name, error in told] == [("port", "a bug")]
