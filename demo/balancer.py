"""Debian's HAProxy in front of pods, by their own addresses: no Service, no node port, no proxy of a node in between.

The lab plays the controller that tells HAProxy of pods, by its admin socket; that they serve, HAProxy finds out itself.
"""

from __future__ import annotations

import csv
import io
import itertools
import socket
import subprocess
import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final, Self

from demo.frr import UNPACKED
from demo.lab import eventually
from demo.place import Failed, Place
from demo.traffic import PATIENCE, family_of

PORT: Final = 8080
"""Where pods serve; the front end has the usual one."""
RATE: Final = 100
"""Requests per second."""
_WORKERS: Final = 4
_CHECK: Final = "check inter 100ms fall 2 rise 1"
# What a pod does not answer is asked of another one: `redispatch` at the first retry, and whatever the reason was.
_TOLD: Final = """
global
    stats socket {socket} level admin
defaults
    mode http
    timeout connect 500ms
    timeout client 10s
    timeout server 1s
    timeout check 300ms
    retries 3
    option redispatch 1
    retry-on conn-failure empty-response response-timeout
frontend all
    bind {address}:80
    default_backend pods
backend pods
    balance roundrobin
    option httpchk GET /health
"""


def program() -> list[str]:
    """What runs HAProxy. Failed: there is none."""
    if not (UNPACKED / "usr/sbin/haproxy").exists():
        raise Failed("there is no HAProxy: run make setup-test")
    return [str(UNPACKED / "run"), "haproxy"]


class Web:
    """What serves in a pod: who it is, and whom it sees; and whether it wants requests."""

    def __init__(self, label: str, place: Place, address: str) -> None:
        self.label = label
        self.address = address
        self.seen: set[str] = set()
        """Who asked."""
        self.is_leaving = False
        """As after a pod's preStop hook: it serves on, and says that it does not want more."""
        self._server = ThreadingHTTPServer((address, PORT), self._handler(), bind_and_activate=False)
        self._server.socket.close()
        self._server.socket = place.socket(family_of(address), socket.SOCK_STREAM)
        self._server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._server.socket.bind((address, PORT))
        self._server.server_activate()
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.seen.add(str(self.client_address[0]))
                self.send_response(503 if web.is_leaving and self.path == "/health" else 200)
                self.end_headers()
                if self.path != "/health":  # who asks that does not wait for more
                    self.wfile.write(web.label.encode())

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def end(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@dataclass(slots=True)
class Balancer:
    """HAProxy in *place*, at *address*."""

    place: Place
    address: str
    directory: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, without a server, and wait until it answers."""
        self.directory.mkdir(exist_ok=True)
        path = self.directory / "haproxy.cfg"
        bind = f"[{self.address}]" if ":" in self.address else self.address
        path.write_text(_TOLD.format(socket=self._socket, address=bind))
        line = ["setpriv", "--pdeathsig", "KILL", "--", *program(), "-db", "-f", str(path)]
        with (self.directory / "haproxy.log").open("wb") as log:
            self.process = subprocess.Popen(self.place.enter(*line), stdout=log, stderr=log)
        eventually("HAProxy answers", self._answers)

    @property
    def _socket(self) -> Path:
        return self.directory / "haproxy.sock"

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise Failed(f"HAProxy ended: {(self.directory / 'haproxy.log').read_text()}")
        return self._socket.exists() and bool(self.ask("show info"))

    def ask(self, *commands: str) -> str:
        """What it answers to *commands*."""
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as stream:
            stream.settimeout(PATIENCE)
            stream.connect(str(self._socket))
            stream.sendall((";".join(commands) + "\n").encode())
            return b"".join(iter(lambda: stream.recv(1 << 16), b"")).decode()

    def states(self) -> dict[str, str]:
        """What it thinks of its servers: UP, DOWN, MAINT …"""
        rows = csv.DictReader(io.StringIO(self.ask("show stat").removeprefix("# ")))
        return {row["svname"]: row["status"] for row in rows if row["svname"] not in ("FRONTEND", "BACKEND")}

    def is_up(self, web: Web) -> bool:
        """Whether it sends requests there."""
        return self.states().get(web.label, "").startswith("UP")

    def add(self, web: Web) -> None:
        """Have it a server, and wait until it is healthy."""
        target = f"[{web.address}]" if ":" in web.address else web.address
        name = f"pods/{web.label}"
        said = self.ask(f"add server {name} {target}:{PORT} {_CHECK}", f"enable health {name}", f"enable server {name}")
        if "New server registered" not in said:
            raise Failed(f"HAProxy does not take {web.label}: {said.strip()}")
        eventually(f"{web.label} is healthy", lambda: self.is_up(web))

    def remove(self, web: Web) -> None:
        """Have it a server no more, once it has no requests there."""
        self.ask(f"set server pods/{web.label} state maint")
        eventually(f"{web.label} is gone", lambda: "Server deleted" in self.ask(f"del server pods/{web.label}"))

    def end(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@dataclass(slots=True)
class Requests:
    """`RATE` requests a second from *place* to the front end, each by a connection of its own, until the end."""

    place: Place
    address: str
    answered: Counter[str] = field(default_factory=Counter)
    """How many were, by who did."""
    failed: list[str] = field(default_factory=list)
    """Why not, of each other."""
    slowest: float = 0.0
    _is_over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._work) for _ in range(_WORKERS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        began = time.monotonic()
        for number in itertools.count():
            if self._is_over.wait(max(0.0, began + number * _WORKERS / RATE - time.monotonic())):
                return
            at = time.monotonic()
            try:
                self.answered[self._asked()] += 1
            except OSError as error:
                self.failed.append(f"after {at - began:.1f} s: {error}")
            self.slowest = max(self.slowest, time.monotonic() - at)

    def _asked(self) -> str:
        with closing(self.place.socket(family_of(self.address), socket.SOCK_STREAM)) as stream:
            stream.settimeout(PATIENCE)
            stream.connect((self.address, 80))
            stream.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(lambda: stream.recv(1 << 16), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise OSError(f"the answer is {head[:60]!r}")
        return body.decode()
