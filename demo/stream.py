"""Traffic that goes on while something happens to the network: what is lost of it, and whether it breaks."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Final, Self

from demo import traffic
from demo.runtime import Pod

RATE: Final = 1000
"""Datagrams per second, each way."""
_SILENCE: Final = 0.5
"""Seconds without a packet after which nothing is expected any more."""
_CHUNK: Final = 1 << 16
_BUFFER: Final = 16 << 20
_SO_RCVBUFFORCE, _SO_MEMINFO = 33, 55
_MEMINFO: Final = struct.Struct("=9I")  # the last is SK_MEMINFO_DROPS (linux/sock_diag.h)


class _Running:
    """What goes on in threads of its own, paced, until it is told to end."""

    def __init__(self) -> None:
        self._is_over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._started = 0.0
        self.sent = 0

    def _begin(self, *works: Callable[[], None]) -> None:
        self._started = time.monotonic()
        self._threads = [threading.Thread(target=work) for work in works]
        for thread in self._threads:
            thread.start()

    def _is_due(self, rate: float) -> bool:
        """Wait until more of what is *sent* may be, at *rate* a second; False: it is over."""
        return not self._is_over.wait(max(0.0, self._started + self.sent / rate - time.monotonic()))

    def _end(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()


class Datagrams(_Running):
    """Datagrams of *size* bytes from one pod to another, `RATE` each second, and each of them back."""

    def __init__(self, sender: Pod, receiver: Pod, family: int = 4, size: int = 100) -> None:
        super().__init__()
        address = receiver.address(family)
        self.size = size
        self._server = receiver.place.socket(traffic.family_of(address), socket.SOCK_DGRAM)
        self._client = sender.place.socket(traffic.family_of(address), socket.SOCK_DGRAM)
        for end in (self._server, self._client):
            try:
                end.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
            except PermissionError:  # an ordinary user's: what it cannot hold is counted
                end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            end.settimeout(traffic.PATIENCE)
        self._server.bind((address, 0))
        self._client.connect(self._server.getsockname()[:2])
        self.back = 0
        self.overrun = 0
        """How many arrived and found a socket's buffer full, since this machine had no time for its reader."""

    @property
    def lost(self) -> int:
        """How many did not arrive there, or not back; whole after the end."""
        return self.sent - self.back - self.overrun

    def __enter__(self) -> Self:
        # One there and back first: while nodes look for each other's hardware address, only so many packets wait.
        self._client.send(b"")
        _, peer = self._server.recvfrom(_CHUNK)
        self._server.sendto(b"", peer)
        self._client.recv(_CHUNK)
        for end in (self._server, self._client):
            end.settimeout(_SILENCE)
        self._begin(self._send, self._echo, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        for end in (self._client, self._server):
            self.overrun += _MEMINFO.unpack(end.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))[-1]
            end.close()

    def _send(self) -> None:
        data = b"x" * self.size
        while self._is_due(RATE):
            self._client.send(data)
            self.sent += 1

    def _echo(self) -> None:
        try:
            while True:
                data, peer = self._server.recvfrom(_CHUNK)
                self._server.sendto(data, peer)
        except TimeoutError:
            return

    def _receive(self) -> None:
        try:
            while True:
                self._client.recv(_CHUNK)
                self.back += 1
        except TimeoutError:
            return


class Transfer(_Running):
    """One TCP connection that carries a counted stream of bytes, as fast as *rate* (bytes a second), to its end."""

    def __init__(self, sender: Pod, receiver: Pod, family: int = 4, rate: int = 8 << 20) -> None:
        super().__init__()
        address = receiver.address(family)
        self._rate = rate
        self._server = receiver.place.socket(traffic.family_of(address), socket.SOCK_STREAM)
        self._server.bind((address, 0))
        self._server.listen()
        self._client = sender.place.socket(traffic.family_of(address), socket.SOCK_STREAM)
        self._client.settimeout(traffic.PATIENCE)
        self._client.connect(self._server.getsockname()[:2])
        self._accepted, _ = self._server.accept()
        self._accepted.settimeout(10 * traffic.PATIENCE)
        self.received = 0
        self.fault = ""

    def __enter__(self) -> Self:
        self._begin(self._send, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        for end in (self._client, self._accepted, self._server):
            end.close()
        if not self.fault and self.sent != self.received:
            self.fault = f"{self.received} of {self.sent} bytes arrived"

    def _send(self) -> None:
        try:
            while self._is_due(self._rate):
                self._client.sendall(bytes([(self.sent // _CHUNK) & 255]) * _CHUNK)
                self.sent += _CHUNK
            self._client.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.fault = f"the sender's end broke: {error}"
            self._client.close()

    def _receive(self) -> None:
        try:
            while data := self._accepted.recv(_CHUNK):
                at = 0
                while at < len(data):
                    expected = bytes([(self.received // _CHUNK) & 255])
                    length = min(len(data) - at, _CHUNK - self.received % _CHUNK)
                    if data[at : at + length] != expected * length:
                        self.fault = f"byte {self.received} and what follows it arrived changed"
                        return
                    at += length
                    self.received += length
        except OSError as error:
            self.fault = f"the receiver's end broke: {error}"
