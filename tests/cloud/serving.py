"""HTTP servers for the emulated clouds, each in a thread of its own."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

HANG = 3.0
"""Seconds."""
Pages = Mapping[str, tuple[int, bytes, str]]
"""What is answered instead, by kind: status, body, and its type."""


class Server(ThreadingHTTPServer):
    """On a port of its own. Connections are made in the namespace that *listener* was opened in."""

    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler], listener: socket.socket | None) -> None:
        super().__init__(("127.0.0.1", 0), handler, bind_and_activate=listener is None)
        if listener is not None:
            self.socket.close()
            self.socket = listener
            self.server_address = listener.getsockname()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    timeout = 30.0

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Tests say themselves what was asked."""

    def page(self, pages: Pages, kind: str) -> None:
        """One of *pages*; 'hang': nothing for a while, and then the end of the connection."""
        if kind == "hang":
            time.sleep(HANG)
            self.close_connection = True
        else:
            self.answer(*pages[kind])

    def answer(self, status: int, body: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


class Endpoint:
    """A server in a thread: a context manager."""

    def __init__(self, handler: type[BaseHTTPRequestHandler], listener: socket.socket | None) -> None:
        self._server = Server(handler, listener)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """Where it is."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
