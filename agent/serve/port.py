"""The HTTP port: its pages, shown from when its address can be had: see ``agent.serve.binding``."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from typing import Final

from agent.serve.binding import Binding
from agent.serve.http import Http
from backends.threads import OnDeath, thread

log = logging.getLogger(__name__)

AGAIN: Final = 10.0
"""Seconds between tries."""


class HttpPort:
    """*show* makes the pages of what *binding* has; *on_death* is told if the thread that tries again ends unasked."""

    name: Final = "port"

    def __init__(
        self, binding: Binding, show: Callable[[socket.socket], Http], on_death: OnDeath, again: float = AGAIN
    ) -> None:
        self._binding = binding
        self._show = show
        self._again = again
        self._stopping = threading.Event()
        self._thread = thread(self.name, self._try, on_death)
        self._http: Http | None = None

    def start(self) -> None:
        """Answer, now or when the port can be had."""
        if self._binding.listener is not None:
            self._begin(self._binding.listener)
        else:
            self._thread.start()

    def stop(self) -> None:
        """Try no more, and stop answering."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._http is not None:
            self._http.stop()

    def _begin(self, listener: socket.socket) -> None:
        self._http = self._show(listener)
        self._http.start()

    def _try(self) -> None:
        while not self._stopping.wait(self._again):
            listener = self._binding.have()
            if listener is not None:
                self._begin(listener)
                log.info("the metrics can be seen now")
                return
