"""Traffic that goes on while something happens to the network: what is lost of it, and whether it breaks."""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final, Self

from demo import traffic
from demo.runtime import Pod

RATE: Final = 1000
"""Datagrams per second, each way."""
_PATIENCE: Final = 30.0
"""Seconds after which a stream counts as broken, on a machine however busy."""
_SILENCE: Final = 3.0
"""Seconds without a packet, once nobody sends any more, after which nothing is expected."""
_LOOK: Final = 0.1
"""Seconds that a reader waits before it looks whether it may end. What was there when these were over, and came too
late to be seen, is seen by the next look: there are several within the silence."""
_NUMBER: Final = struct.Struct("!Q")
"""What a datagram begins with."""
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
    """Numbered datagrams of *size* bytes from one pod to another, `RATE` each second, and each of them back.

    Each stage ends after the one before it: the echo once nothing more comes from a sender that has ended, the receiver
    once nothing more comes from an echo that has. Before that silence means nothing: it may be this machine's.
    """

    def __init__(self, sender: Pod, receiver: Pod, family: int = 4, size: int = 100) -> None:
        super().__init__()
        address = receiver.address(family)
        self.size = size
        self._way = f"{sender.address(family)} -> {address}"
        self._server = receiver.place.socket(traffic.family_of(address), socket.SOCK_DGRAM)
        self._client = sender.place.socket(traffic.family_of(address), socket.SOCK_DGRAM)
        for end in (self._server, self._client):
            try:
                end.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
            except PermissionError:  # an ordinary user's: what it cannot hold is counted
                end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._server.bind((address, 0))
        self._client.connect(self._server.getsockname()[:2])
        self._sent_at: list[float] = []
        self._there: set[int] = set()
        self._back: set[int] = set()
        self._is_sent, self._is_echoed = threading.Event(), threading.Event()
        self._unread = 0
        self.overrun = 0
        """How many arrived and found a socket's buffer full, since this machine had no time for its reader."""

    @property
    def back(self) -> int:
        """How many arrived there and back."""
        return len(self._back)

    @property
    def lost(self) -> int:
        """How many did not arrive there, or not back; whole after the end."""
        return self.sent - self.back - self.overrun

    def losses(self) -> str:
        """Which did not come back, by the way on which they were lost, and when they were sent; '' where none is."""
        ways = {"there": set(range(self.sent)) - self._there, "back": self._there - self._back}
        lost = [f"{way}: {self._runs(numbers)}" for way, numbers in ways.items() if numbers]
        meter = f"{self.overrun} overrun, {self._unread} unread"
        return f"{self._way}: {self.lost} of {self.sent} lost ({meter}); {'; '.join(lost)}" if lost else ""

    def _runs(self, numbers: set[int]) -> str:
        """*numbers* as ranges, with the time of the first of each."""
        ordered = sorted(numbers)
        first = [one for one in ordered if one - 1 not in numbers]
        last = [one for one in ordered if one + 1 not in numbers]
        return ", ".join(
            f"{one}-{other} at {self._sent_at[one] - self._started:.3f} s"
            for one, other in zip(first, last, strict=True)
        )

    def __enter__(self) -> Self:
        try:
            self._meet()
        except BaseException:
            self._close()
            raise
        for end in (self._server, self._client):
            end.settimeout(_PATIENCE)
        self._begin(self._send, self._echo, self._receive)
        return self

    def _meet(self) -> None:
        """One there and back first, however often that takes: while nodes look for each other's hardware address, only
        so many packets wait. What comes of these later has no number."""
        for end in (self._server, self._client):
            end.settimeout(1.0)
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                self._client.send(b"")
                _, peer = self._server.recvfrom(_CHUNK)
                self._server.sendto(b"", peer)
                self._client.recv(_CHUNK)
            except TimeoutError:
                if time.monotonic() > until:
                    raise
            else:
                return

    def _close(self) -> None:
        for end in (self._client, self._server):
            end.close()

    def __exit__(self, *_: object) -> None:
        self._end()
        for end in (self._client, self._server):
            self.overrun += _MEMINFO.unpack(end.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))[-1]
            self._unread += _drained(end)
            end.close()

    def _send(self) -> None:
        filler = b"x" * (self.size - _NUMBER.size)
        try:
            while self._is_due(RATE):
                self._sent_at.append(time.monotonic())
                self._client.send(_NUMBER.pack(self.sent) + filler)
                self.sent += 1
        finally:
            self._is_sent.set()

    def _echo(self) -> None:
        try:
            for data, peer in self._arriving(self._server, self._is_sent, lambda: len(self._there) == self.sent):
                self._there.add(_NUMBER.unpack_from(data)[0])
                self._server.sendto(data, peer)
        finally:
            self._is_echoed.set()

    def _receive(self) -> None:
        for data, _ in self._arriving(self._client, self._is_echoed, lambda: self._back == self._there):
            self._back.add(_NUMBER.unpack_from(data)[0])

    @staticmethod
    def _arriving(
        end: socket.socket, is_over: threading.Event, is_whole: Callable[[], bool]
    ) -> Iterator[tuple[bytes, Any]]:
        """What arrives at *end* until it *is_over* and all is there, or nothing came for `_SILENCE` since then."""
        # Waited for here, since a socket's own time limit is its sender's, too: that may have to wait for longer.
        poll = select.poll()
        poll.register(end, select.POLLIN)
        quiet_since: float | None = None
        while not (is_over.is_set() and is_whole()):
            if poll.poll(_LOOK * 1000):
                data, peer = end.recvfrom(_CHUNK)
                quiet_since = None
                if data:
                    yield data, peer
                continue
            now = time.monotonic()
            if not is_over.is_set():
                quiet_since = None
            elif quiet_since is None:
                quiet_since = now
            elif now - quiet_since > _SILENCE:
                return


def _drained(end: socket.socket) -> int:
    """How many datagrams nobody has read: the meter's fault, not the network's, if there are any."""
    end.setblocking(False)
    count = 0
    with suppress(BlockingIOError):
        while True:
            end.recv(_CHUNK)
            count += 1
    return count


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
        self._client.settimeout(_PATIENCE)
        self._client.connect(self._server.getsockname()[:2])
        self._accepted, _ = self._server.accept()
        self._accepted.settimeout(_PATIENCE)
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
