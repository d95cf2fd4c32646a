"""The address of the HTTP port, had as soon as it can be.

Whoever else has it, such as a pod on the host's network, must not keep the agent from its work: a node whose agent does
not start is NotReady, and its pods are evicted. What always holds: `problem` says why nobody listens.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

from cni.errors import ConfigInvalid

log = logging.getLogger(__name__)


class Binding:
    """*listen* listens, or raises ConfigInvalid; it is tried at once."""

    def __init__(self, listen: Callable[[], socket.socket]) -> None:
        self._listen = listen
        self.problem: ConfigInvalid | None = None
        """Why nobody listens; None when somebody does."""
        self.listener: socket.socket | None = None
        """What listens, once it is had."""
        self.have()

    def have(self) -> socket.socket | None:
        """What listens, after another try where there is none."""
        if self.listener is None:
            try:
                self.listener = self._listen()
                self.problem = None
            except ConfigInvalid as error:
                if self.problem is None:
                    log.error("nobody can see the metrics", extra={"error": str(error)})
                self.problem = error
        return self.listener
