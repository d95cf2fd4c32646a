"""The netlink sockets of the host's own namespace, and whose turn it is to change something."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dataplane.netlink import Socket


class Sockets:
    """*connect* opens one in the calling thread's namespace. Any thread may call; a socket is used by one at a time.

    Attributes:
        turn: the kernel makes one change of links and routes at a time (rtnl_mutex), and who waits for it there burns a
            processor; here it sleeps.
    """

    def __init__(self, connect: Callable[[], Socket]) -> None:
        self.connect = connect
        self.turn = threading.Lock()
        self._idle: deque[Socket] = deque()

    def close(self) -> None:
        """Close the idle sockets."""
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def host(self) -> Iterator[Socket]:
        """One of the host's namespace, in which the calling thread is."""
        try:
            sock = self._idle.pop()
        except IndexError:
            sock = self.connect()
        try:
            yield sock
        except BaseException:
            sock.close()  # an answer may still be under way in it
            raise
        self._idle.append(sock)
