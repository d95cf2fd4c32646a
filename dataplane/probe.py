"""Whether another node answers: a TCP connection to a port that nobody listens at.

A refusal (RFC 9293, 3.10.7.1) is as good an answer as an acceptance, and so is the other node's own word that there is
no such host (ICMP, RFC 792 and RFC 4443): all prove the way there and back, and none needs a capability or a listener.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections.abc import Collection
from contextlib import closing
from typing import Final

PORT: Final = 9
"""Of the discard service (RFC 863)."""
_IP_RECVERR: Final = {socket.AF_INET: (socket.IPPROTO_IP, 11), socket.AF_INET6: (socket.IPPROTO_IPV6, 25)}
_SO_BINDTODEVICE: Final = 25
_IPV6_FREEBIND: Final = 78
_MSG_ERRQUEUE: Final = 0x2000
_EXTENDED: Final = struct.Struct("=IBBBBII")  # struct sock_extended_err: errno, origin, type, code, pad, info, data
_ORIGIN_ICMP: Final = frozenset((2, 3))
_ANSWERED: Final = frozenset((0, errno.ECONNREFUSED))


def silence(source: str, target: str, answerers: Collection[str], patience: float, device: str = "") -> str:
    """Why nothing came back from *target* to *source* within *patience* seconds; '' if something did.

    An ICMP error counts where one of the addresses *answerers* sent it. With *device* the packet leaves by that link,
    and an answer that comes in by another does not count.
    """
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    try:
        opened = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as error:  # no descriptor is left, or IPv6 is switched off
        return f"{target} cannot be asked: {error.strerror}"
    with closing(opened) as stream:
        try:
            stream.setsockopt(*_IP_RECVERR[family], 1)
            if family == socket.AF_INET6:  # the node may have the address by a route alone, which IPv6 does not look at
                stream.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
            if device:
                stream.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, device.encode())
            stream.bind((source, 0))
        except OSError as error:
            return f"cannot send from {source}: {error.strerror}"
        number = stream.connect_ex((target, PORT))
        if number == errno.EINPROGRESS:
            poll = select.poll()
            poll.register(stream, select.POLLOUT)
            if not poll.poll(patience * 1000):
                return f"no answer from {target} within {patience:g} s"
            number = stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number in _ANSWERED:
            return ""
        offender = _offender(stream)
        if offender in answerers:
            return ""
        return f"{target}: {os.strerror(number)}" + (f" (says {offender})" if offender else "")


def _offender(stream: socket.socket) -> str:
    """Who sent the ICMP error that ended the connection; '' if none did."""
    try:
        _, messages, _, _ = stream.recvmsg(1, 512, _MSG_ERRQUEUE)
    except OSError:
        return ""
    for _, _, data in messages:
        if len(data) < _EXTENDED.size + 8:
            continue
        origin = _EXTENDED.unpack_from(data)[1]
        if origin in _ORIGIN_ICMP:
            if origin == 2:
                return socket.inet_ntop(socket.AF_INET, data[_EXTENDED.size + 4 : _EXTENDED.size + 8])
            return socket.inet_ntop(socket.AF_INET6, data[_EXTENDED.size + 8 : _EXTENDED.size + 24])
    return ""
