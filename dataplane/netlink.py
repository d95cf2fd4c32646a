"""One rtnetlink socket: many requests in one send, their refusals, and dumps (netlink(7)).

A socket belongs to the network namespace that its thread was in when it was opened, for ever; it is used by one
thread at a time.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, TypeVar

from pyroute2.netlink import NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR

from dataplane.rtnl import Message, attrs

T = TypeVar("T")

_HEADER: Final = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ERRNO: Final = struct.Struct("=i")
_SOL_NETLINK, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK = 270, 10, 11, 12
_NLM_F_ACK_TLVS, _NLMSGERR_ATTR_MSG = 0x200, 1
_SO_RCVBUFFORCE: Final = 33
_RECEIVE_BUFFER: Final = 4 << 20
_RECEIVE: Final = 1 << 16
"""More than the kernel puts into one datagram (32 KiB), and little enough to be malloc's to keep."""
_SIOCGIFINDEX: Final = 0x8933
_IFREQ: Final = struct.Struct("=16si20x")
_DUMP_TRIES: Final = 20
_PADS: Final = (b"", b"\0\0\0", b"\0\0", b"\0")
"""What fills a message up to a multiple of four bytes, by the remainder of its length."""
_PER_SEND: Final = 256
"""Requests in one send. Refusals come back while the kernel works through them, so they must fit the buffer."""


class Nack(NamedTuple):
    """One request that the kernel refused: which of the batch, the errno, and the kernel's own words if any."""

    position: int
    errno: int
    words: str


class Socket:
    """A NETLINK_ROUTE socket in the namespace that the opening thread is in."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        try:
            self._prepare()
        except BaseException:
            self._socket.close()
            raise
        self._sequence = 0

    def _prepare(self) -> None:
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        make_room(self._socket)
        self._socket.bind((0, 0))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def fileno(self) -> int:
        """The descriptor: the ioctls of netdevice(7) take any socket, and speak of its namespace."""
        return self._socket.fileno()

    def index(self, link: str) -> int:
        """The interface index of *link*. Unlike if_nametoindex(3) this needs no descriptor of its own, and tells a
        link that is not there (OSError, ENODEV) from an answer that could not be had."""
        asked = _IFREQ.pack(link.encode(), 0)
        return int(_IFREQ.unpack(fcntl.ioctl(self._socket, _SIOCGIFINDEX, asked))[1])

    def transact(self, messages: Sequence[Message]) -> list[Nack]:
        """Send all *messages*, a batch at a time, and return what was refused.

        The kernel works through a batch in order and does not stop at a refusal. Only the last message of a batch
        asks for an acknowledgement: refusals are reported in any case, and before it.
        """
        refused: list[Nack] = []
        for start in range(0, len(messages), _PER_SEND):
            refused += self._send(messages[start : start + _PER_SEND], start)
        return refused

    def _send(self, batch: Sequence[Message], start: int) -> list[Nack]:
        first = self._sequence + 1
        last = self._sequence = self._sequence + len(batch)
        parts: list[bytes] = []
        for sequence, (kind, flags, body) in enumerate(batch, first):
            asked = NLM_F_REQUEST | flags | (NLM_F_ACK if sequence == last else 0)
            parts += (_HEADER.pack(len(body) + 16, kind, asked, sequence, 0), body, _PADS[len(body) & 3])
        self._socket.send(b"".join(parts))
        refused: list[Nack] = []
        while True:
            for kind, flags, sequence, body in messages(self._socket.recv(_RECEIVE)):
                if kind != NLMSG_ERROR or not first <= sequence <= last:
                    continue
                (code,) = _ERRNO.unpack_from(body)
                if code:
                    refused.append(Nack(start + sequence - first, -code, _words(flags, body)))
                if sequence == last:
                    return refused

    def get(self, kind: int, bodies: Sequence[bytes], decode: Callable[[bytes], T | None]) -> list[T | None]:
        """The single answer to each request, decoded, or None where the kernel knows no such object.

        Raises:
            OSError: the kernel refused one.
        """
        if not bodies:
            return []
        first = self._sequence + 1
        last = self._sequence = self._sequence + len(bodies)
        requests: list[bytes] = []
        for sequence, body in enumerate(bodies, first):
            requests += (_HEADER.pack(len(body) + 16, kind, NLM_F_REQUEST, sequence, 0), body, _PADS[len(body) & 3])
        self._socket.send(b"".join(requests))
        found: list[T | None] = []
        while len(found) < len(bodies):
            for answer, _, sequence, content in messages(self._socket.recv(_RECEIVE)):
                if not first <= sequence <= last:
                    continue
                if answer != NLMSG_ERROR:
                    found.append(_decoded(decode, content))
                    continue
                (code,) = _ERRNO.unpack_from(content)
                if code not in (-errno.ENODEV, -errno.ENOENT):
                    raise OSError(-code, os.strerror(-code))
                found.append(None)
        return found

    def dump(self, kind: int, body: bytes, decode: Callable[[bytes], T | None], most: int = 0) -> list[T]:
        """Every object that a dump request lists and that *decode* does not answer with None.

        Of more than *most*, where that is not 0, it is ended; the socket is then good for nothing else. A dump that the
        kernel marks as interrupted by a change is taken again (NLM_F_DUMP_INTR).

        Raises:
            OSError: the kernel refused the dump; EINTR: changes got in the way of every one of many; E2BIG: there are
                more than *most*.
        """
        for _ in range(_DUMP_TRIES):
            found: list[T] = []
            whole = True
            for number, (flags, content) in enumerate(self._dump(kind, body)):
                if most and number > most:
                    raise OSError(errno.E2BIG, f"there are more than {most} of them, so the look was ended")
                whole = whole and not flags & NLM_F_DUMP_INTR
                value = _decoded(decode, content) if content else None
                if value is not None:
                    found.append(value)
            if whole:
                return found
        raise OSError(errno.EINTR, f"a dump was interrupted by changes {_DUMP_TRIES} times in a row")

    def _dump(self, kind: int, body: bytes) -> Iterator[tuple[int, bytes]]:
        # The closing NLMSG_DONE is passed on with an empty body: it too can say that the dump was interrupted.
        self._sequence += 1
        header = _HEADER.pack(len(body) + 16, kind, NLM_F_REQUEST | NLM_F_DUMP, self._sequence, 0)
        self._socket.send(header + body)
        while True:
            for answer, flags, sequence, content in messages(self._socket.recv(_RECEIVE)):
                if sequence != self._sequence:
                    continue
                if answer in (NLMSG_DONE, NLMSG_ERROR):
                    (code,) = _ERRNO.unpack_from(content)
                    if code:
                        raise OSError(-code, os.strerror(-code))
                    yield flags, b""
                    return
                yield flags, content


def make_room(sock: socket.socket) -> None:
    """Have the kernel keep more for a socket than it usually does: what does not fit is lost."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
    except PermissionError:  # in a user namespace: the ordinary limit holds
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """The messages in one datagram: type, flags, sequence and body of each."""
    at, end = 0, len(data)
    while at + 16 <= end:
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
        if length < 16:
            return
        yield kind, flags, sequence, data[at + 16 : at + length]
        at += (length + 3) & ~3


def _decoded(decode: Callable[[bytes], T | None], body: bytes) -> T | None:
    """What *body* says; OSError (EBADMSG) where it cannot be read."""
    try:
        return decode(body)
    except (struct.error, LookupError, ValueError) as error:
        raise OSError(errno.EBADMSG, f"an answer of the kernel cannot be read: {error!r}") from error


def _words(flags: int, body: bytes) -> str:
    """The extended acknowledgement's message: with NETLINK_CAP_ACK it follows the errno and the request's header."""
    if not flags & _NLM_F_ACK_TLVS:
        return ""
    return attrs(body, 20, len(body)).get(_NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode(errors="replace")
