"""Values on a stream socket, each as one frame: four bytes of length, and so much JSON."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any, Final

MOST: Final = 1 << 20
"""Bytes of a frame: an answer that a worker gives has some kilobytes."""
_LENGTH: Final = struct.Struct("!I")


class Garbage(ValueError):
    """What came is no frame."""


def send(sock: socket.socket, value: dict[str, Any]) -> None:
    """Send *value*. OSError: nobody has got all of it."""
    body = json.dumps(value).encode()
    sock.sendall(_LENGTH.pack(len(body)) + body)


def receive(sock: socket.socket) -> dict[str, Any] | None:
    """The next value; None at the end. Garbage: it is none; OSError, TimeoutError: there is none."""
    head = _exactly(sock, _LENGTH.size)
    if not head:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > MOST:
        raise Garbage(f"a frame of {length} bytes")
    body = _exactly(sock, length)
    try:
        value = json.loads(body)
    except ValueError as error:
        raise Garbage(str(error)) from error
    if not isinstance(value, dict):
        raise Garbage(f"{type(value).__name__} in the place of an object")
    return value


def _exactly(sock: socket.socket, length: int) -> bytes:
    """So many bytes; none at the end. Garbage: the end came in between."""
    found = b""
    while len(found) < length:
        part = sock.recv(length - len(found))
        if not part:
            if found:
                raise Garbage("half a frame")
            return b""
        found += part
    return found
