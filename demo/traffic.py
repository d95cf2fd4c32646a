"""Traffic between places, and who the receiver sees: the proof that nothing in between translates addresses."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import closing

from demo.place import Place

PATIENCE = 10.0
"""Seconds that a packet may take in the lab, on a machine however busy."""


def family_of(address: str) -> socket.AddressFamily:
    """AF_INET or AF_INET6."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def seen_by_tcp(sender: Place, receiver: Place, address: str, source: str = "", size: int = 1) -> str:
    """The address that *receiver* sees on a connection from *sender* to its *address*, once *size* bytes came over it
    and back whole.

    *source* is the address to send from, where the sender has several. OSError: it cannot be reached.
    """
    family = family_of(address)
    payload = os.urandom(size)
    with closing(receiver.socket(family, socket.SOCK_STREAM)) as server:
        server.settimeout(PATIENCE)
        server.bind((address, 0))
        server.listen()
        with closing(sender.socket(family, socket.SOCK_STREAM)) as client:
            client.settimeout(PATIENCE)
            if source:
                client.bind((source, 0))
            client.connect(server.getsockname()[:2])
            accepted, peer = server.accept()
            with closing(accepted):
                accepted.settimeout(PATIENCE)
                echo = threading.Thread(target=_echo, args=(accepted, size))
                echo.start()
                sending = threading.Thread(target=client.sendall, args=(payload,))
                sending.start()
                back = _exactly(client, size)
                sending.join()
                echo.join()
    if back != payload:
        raise OSError(f"{size} bytes came back changed")
    return str(peer[0])


def seen_by_udp(
    sender: Place, receiver: Place, address: str, source: str = "", size: int = 1, patience: float = PATIENCE
) -> str:
    """The same with one datagram of *size* bytes there and one back, each within *patience* seconds."""
    family = family_of(address)
    payload = os.urandom(size)
    with (
        closing(receiver.socket(family, socket.SOCK_DGRAM)) as server,
        closing(sender.socket(family, socket.SOCK_DGRAM)) as client,
    ):
        for end in (server, client):
            end.settimeout(patience)
        server.bind((address, 0))
        if source:
            client.bind((source, 0))
        client.connect(server.getsockname()[:2])
        client.send(payload)
        got, peer = server.recvfrom(1 << 16)
        server.sendto(got, peer)
        if client.recv(1 << 16) != payload:
            raise OSError(f"{size} bytes came back changed")
    return str(peer[0])


def answered(
    client: Place,
    server: Place,
    target: tuple[str, int],
    port: int,
    kind: socket.SocketKind = socket.SOCK_STREAM,
    bound: str = "0.0.0.0",
) -> str:
    """The address that a server at *bound* and *port* sees of a client that asks *target*, which something on the way
    translates, once the client has its answer. OSError: it does not get one."""
    family = family_of(target[0])
    with closing(server.socket(family, kind)) as listener, closing(client.socket(family, kind)) as asker:
        for end in (listener, asker):
            end.settimeout(PATIENCE)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((bound, port))
        if kind == socket.SOCK_STREAM:
            listener.listen()
        asker.connect(target)
        asker.send(b"question")
        if kind == socket.SOCK_DGRAM:
            _, peer = listener.recvfrom(100)
            listener.sendto(b"answer", peer)
        else:
            accepted, peer = listener.accept()
            with closing(accepted):
                accepted.settimeout(PATIENCE)
                accepted.recv(100)
                accepted.send(b"answer")
        if asker.recv(100) != b"answer":
            raise OSError("the answer is another's")
        return str(peer[0])


def _echo(stream: socket.socket, size: int) -> None:
    left = size
    while left:
        data = stream.recv(1 << 16)
        if not data:
            return
        stream.sendall(data)
        left -= len(data)


def _exactly(stream: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        data = stream.recv(1 << 16)
        if not data:
            raise OSError(f"the connection ended after {len(parts)} of {size} bytes")
        parts += data
    return bytes(parts)
