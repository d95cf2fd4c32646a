"""The HTTP port, had as soon as it can be.

Whoever else has the address, such as a pod on the host's network, must not keep the agent from its work: a node whose
agent does not start is NotReady, and its pods are evicted. What always holds: `problem` says why nobody listens.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from agent.serve.http import Http, OnDeath
from cni.errors import ConfigInvalid

log = logging.getLogger(__name__)

AGAIN: Final = 10.0
"""Seconds between tries."""


class Port:
    """*make* listens, or raises ConfigInvalid; *on_death* is told if the thread that tries again ends unasked."""

    name: Final = "port"

    def __init__(self, make: Callable[[], Http], on_death: OnDeath, again: float = AGAIN) -> None:
        self._make = make
        self._on_death = on_death
        self._again = again
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self.problem: ConfigInvalid | None = None
        """Why nobody listens; None when somebody does."""
        self._http = self._had()

    def start(self) -> None:
        """Answer, now or when the port can be had."""
        if self._http is not None:
            self._http.start()
        else:
            self._thread.start()

    def stop(self) -> None:
        """Try no more, and stop answering."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._http is not None:
            self._http.stop()

    def _had(self) -> Http | None:
        try:
            http = self._make()
        except ConfigInvalid as error:
            if self.problem is None:
                log.error("nobody can see the metrics", extra={"error": str(error)})
            self.problem = error
            return None
        self.problem = None
        return http

    def _run(self) -> None:
        try:
            while self._http is None and not self._stopping.wait(self._again):
                self._http = self._had()
            if self._http is not None and not self._stopping.is_set():
                self._http.start()
                log.info("the metrics can be seen now")
        except BaseException as error:  # noqa: BLE001 (the top of a thread)
            self._on_death(self.name, error)
