"""A network namespace with a name: making it, running programs in it, and opening sockets in it."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dataplane.netns import Netns

T = TypeVar("T")


class Failed(Exception):
    """A program of the lab failed; the text is its own."""


def run(*arguments: str, stdin: str | None = None, environment: Mapping[str, str] | None = None) -> str:
    """Run a program and return its output. Failed: it did not succeed."""
    done = subprocess.run(
        arguments,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment} if environment else None,
    )
    if done.returncode:
        raise Failed(f"{' '.join(arguments)}: exit code {done.returncode}\n{done.stdout}{done.stderr}".strip())
    return done.stdout


@dataclass(frozen=True, slots=True)
class Place:
    """A namespace under /run/netns. Names are chosen by the caller and must be free."""

    name: str

    @classmethod
    def make(cls, name: str) -> Place:
        """A new namespace with its loopback up."""
        run("ip", "netns", "add", name)
        place = cls(name)
        place.ip("link set lo up")
        return place

    @property
    def path(self) -> Path:
        """What CNI_NETNS names."""
        return Path("/run/netns") / self.name

    def remove(self) -> None:
        """Remove the name; the namespace goes with its last process and socket. One that is gone is no error."""
        if self.path.exists():
            run("ip", "netns", "delete", self.name)

    def enter(self, *arguments: str) -> list[str]:
        """The command line that runs a program in here."""
        return ["nsenter", f"--net={self.path}", "--", *arguments]

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Run a program in here and return its output. Failed: it did not succeed."""
        return run(*self.enter(*arguments), stdin=stdin)

    def ip(self, words: str) -> str:
        """``ip WORDS`` in here."""
        return run("ip", "-n", self.name, *words.split())

    def sysctl(self, path: str, value: str) -> None:
        """Set a sysctl of this namespace, by its path below /proc/sys."""
        self.run("sh", "-c", f"echo {value} > /proc/sys/{path}")

    def socket(self, family: socket.AddressFamily, kind: socket.SocketKind, protocol: int = 0) -> socket.socket:
        """A socket that lives in here, whoever uses it."""
        return self.within(lambda: socket.socket(family, kind, protocol))

    def within(self, do: Callable[[], T]) -> T:
        """What *do* answers when the calling thread is in here."""
        netns = Netns()
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                with netns.inside(descriptor):
                    return do()
            finally:
                os.close(descriptor)
        finally:
            netns.close()
