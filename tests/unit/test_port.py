"""The HTTP port, where another has it at the start."""

from __future__ import annotations

import socket
import threading

from agent.serve.http import Http
from agent.serve.port import Port
from cni.errors import ConfigInvalid


def died(thread: str, error: BaseException) -> None:
    raise AssertionError(f"{thread} died: {error}")


def test_a_port_that_is_anothers_is_had_when_it_is_free() -> None:
    """Meanwhile the problem is known, and nothing fails."""
    freed = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]

        def made() -> Http:
            try:
                return Http("127.0.0.1", number, scrape=lambda: ("", b""), ready=lambda: (True, ""), on_death=died)
            except ConfigInvalid:
                freed.set()
                raise

        port = Port(made, died, again=0.01)
        port.start()
        assert f"port {number}" in str(port.problem)
        freed.clear()
        assert freed.wait(10)
    try:
        for _ in range(1000):
            if port.problem is None:
                break
            threading.Event().wait(0.01)
        assert port.problem is None
        with socket.create_connection(("127.0.0.1", number), 10) as stream:
            stream.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            assert stream.recv(12) == b"HTTP/1.0 200"
    finally:
        port.stop()


def test_one_that_is_never_had_is_given_up_at_the_end() -> None:
    """Stopping does not wait for the next try."""

    def refused() -> Http:
        raise ConfigInvalid("metrics.listen: in use")

    port = Port(refused, died, again=3600)
    port.start()
    port.stop()
    assert str(port.problem) == "metrics.listen: in use"
