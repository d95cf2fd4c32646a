"""systemd, where that started the agent: it is told when the agent is ready, stops, and still works (sd_notify(3))."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress


class Supervisor:
    """What *environment* says of it. Where nothing started us that wants to be told, nothing is."""

    def __init__(self, environment: Mapping[str, str], pid: int) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # "@" stands for the zero byte of a name that is in no file system; whatever else there may be is not for us.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address if address.startswith("/") else ""
        is_ours = environment.get("WATCHDOG_PID", str(pid)) == str(pid)
        allowed = environment.get("WATCHDOG_USEC", "") if is_ours else ""
        self.patience = int(allowed) / 1e6 if allowed.isdecimal() else 0.0
        """Seconds after which it ends a process that has not said that it works; 0: it waits for ever."""
        self._told = ""

    def ready(self) -> None:
        """Requests are served."""
        self._tell("READY=1")

    def stopping(self) -> None:
        """The end has begun."""
        self._tell("STOPPING=1")

    def works(self, problem: object) -> None:
        """The agent does its work; or with a *problem* it does not, and is ended when that lasts."""
        if problem is None:
            self._tell("WATCHDOG=1")
        text = " ".join(str(problem or "").split())
        if text != self._told:
            self._tell(f"STATUS={text}")
            self._told = text

    def _tell(self, text: str) -> None:
        if not self._address:
            return
        # One that takes nothing must not hold us up, and has nothing to say about how pods are served.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as stream:
            stream.sendto(text.encode("utf-8", "backslashreplace"), self._address)


def here() -> Supervisor:
    """This process's."""
    return Supervisor(os.environ, os.getpid())
