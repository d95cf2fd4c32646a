"""The agent of a node with containerd, as its tests see it: it may be a process, or in a pod (see `daemonset`)."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Protocol

from demo import lab


class Agent(Protocol):
    """The agent of a node, however it runs."""

    sandbox: str
    """Of its own pod; "" where it has none."""

    def start(self) -> None:
        """Begin; it serves when this returns."""

    def stop(self) -> None:
        """End, as it is told to."""

    def kill(self) -> None:
        """End, by SIGKILL."""

    def is_running(self) -> bool:
        """Whether it was begun and not ended."""


@dataclass(slots=True)
class Process:
    """An agent without a container."""

    node: lab.Node
    sandbox: str = ""

    def start(self) -> None:
        """See `Agent`."""
        self.node.start()

    def stop(self) -> None:
        """See `Agent`."""
        self.node.stop()

    def kill(self) -> None:
        """See `Agent`."""
        self.node.stop(signal.SIGKILL)

    def is_running(self) -> bool:
        """See `Agent`."""
        return self.node.agent is not None
