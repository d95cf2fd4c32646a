"""FRR as a router of the network: zebra, bgpd and bfdd, a set of them for each namespace. All that is theirs, sockets
included, lies in one directory."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from demo.lab import eventually
from demo.place import Failed, Place

UNPACKED: Final = Path(__file__).parents[1] / ".venv" / "debian"
"""Where `make setup-test` unpacks what would start a service if it were installed."""
PROFILE: Final = "fast"
"""The BFD profile that bfdd knows: as the nodes' own default, 100 ms three times."""
_DAEMONS: Final = ("zebra", "bfdd", "bgpd")
_BFD: Final = f"bfd\n profile {PROFILE}\n  detect-multiplier 3\n  receive-interval 100\n  transmit-interval 100\n"
# Debian's FRR gives its sockets to a group, which only an installation makes (/etc/group).
_WITH_GROUP: Final = 'mount --bind "$0" /etc/group && exec "$@"'
_END: Final = b"\0\0\0"
"""Before the status, at the end of an answer (lib/vty.c)."""


@dataclass(slots=True)
class Frr:
    """The router in *place*; what bgpd is told is the text of `start`."""

    place: Place
    directory: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, text: str) -> None:
        """Start the daemons, and wait until each answers."""
        self.directory.mkdir(exist_ok=True)
        (self.directory / "group").write_text(f"{Path('/etc/group').read_text().rstrip()}\nfrrvty:x:0:\n")
        for daemon, told in zip(_DAEMONS, ("", _BFD, text), strict=True):
            path = self.directory / f"{daemon}.conf"
            path.write_text(f"frr defaults datacenter\nlog file {self.directory}/{daemon}.log\n{told}")
            self.processes[daemon] = self._launched(daemon, path)
            eventually(f"{daemon} answers", lambda daemon=daemon: self._answers(daemon))

    def _launched(self, daemon: str, configuration: Path) -> subprocess.Popen[bytes]:
        program = UNPACKED / "usr/lib/frr" / daemon
        if not program.exists():
            raise Failed("there is no FRR: run make setup-test")
        own, libraries = self.directory, next((UNPACKED / "usr/lib").glob("*-linux-*/frr"))
        line = ["unshare", "--mount", "sh", "-c", _WITH_GROUP, str(own / "group")]
        line += ["setpriv", "--pdeathsig", "KILL", "--", str(UNPACKED / "run"), str(program)]
        line += ["-u", "root", "-g", "root", "-P", "0", "-f", str(configuration), "--vty_socket", str(own)]
        line += ["-i", str(own / f"{daemon}.pid"), "-z", str(own / "zebra.api")]
        line += ["--bfdctl", str(own / "bfdd.ctl")] if daemon == "bfdd" else []
        with (own / f"{daemon}.err").open("wb") as errors:
            return subprocess.Popen(
                self.place.enter(*line), stdout=errors, stderr=errors,
                env={**os.environ, "LD_LIBRARY_PATH": str(libraries)},
            )  # fmt: skip

    def _answers(self, daemon: str) -> bool:
        if self.processes[daemon].poll() is not None:
            raise Failed(f"{daemon} ended: {(self.directory / f'{daemon}.err').read_text()}")
        try:
            self.ask("show version", daemon)
        except OSError:
            return False
        return True

    def ask(self, command: str, daemon: str = "bgpd") -> str:
        """What the daemon answers, as ``vtysh`` would show it. Failed: it does not know that."""
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as stream:
            stream.settimeout(10.0)
            stream.connect(str(self.directory / f"{daemon}.vty"))
            _said(stream, "enable")
            return _said(stream, command)

    def configure(self, *lines: str) -> None:
        """Have bgpd told *lines* as one would by hand. Failed: it does not know them."""
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as stream:
            stream.settimeout(10.0)
            stream.connect(str(self.directory / "bgpd.vty"))
            for line in ("enable", "configure terminal", *lines):
                _said(stream, line)

    def sessions(self) -> dict[str, dict[str, Any]]:
        """Its neighbours, by address."""
        found: dict[str, dict[str, Any]] = json.loads(self.ask("show bgp neighbors json"))
        return found

    def end(self) -> None:
        """End all of them."""
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()


def _said(stream: socket.socket, command: str) -> str:
    stream.sendall(command.encode() + b"\0")
    answer = b""
    while answer[-4:-1] != _END:
        data = stream.recv(1 << 16)
        if not data:
            raise OSError("the daemon closed the connection")
        answer += data
    text = answer[:-4].decode()
    if answer[-1]:
        raise Failed(f"{command}: {text.strip()}")
    return text
