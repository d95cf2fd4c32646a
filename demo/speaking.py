"""Labs whose nodes speak BGP, and routers that do: a real BIRD on each.

The nodes' BIRDs outlive their agents, as they are meant to, so the lab ends them.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from backends.bgp import replies
from backends.bgp.control import Conversation
from cni.errors import Failure
from demo import lab as labs
from demo.lab import POWER, Family, Lab, Node, eventually
from demo.place import Failed, Place

ASN: Final = 64512
"""The cluster's."""
TOR: Final = 65001
"""The router's."""
ACCEPT: Final = ("10.244.0.0/16", "2001:db8::/32")
BIRDS_POWER: Final = f"{POWER},+net_bind_service"
"""Of agents that start BIRD, and so BIRD's: what deploy/routable-agent-bgp.conf adds."""
_UNPACKED: Final = Path(__file__).parents[1] / ".venv" / "debian"


def program(directory: Path) -> Path:
    """A ``bird`` to be run: the machine's, or the one that was unpacked for the tests. Failed: there is none."""
    found = shutil.which("bird", path="/usr/sbin:/usr/local/sbin")
    if found:
        return Path(found)
    if not (_UNPACKED / "usr/sbin/bird").exists():
        raise Failed("there is no BIRD: run make setup-test")
    path = directory / "bird"
    path.write_text(f'#!/bin/sh\nexec {_UNPACKED}/run bird "$@"\n')
    path.chmod(0o755)
    return path


def socket_of(node: Node) -> Path:
    """Where the node's BIRD is asked."""
    return Path(node.settings["bgp"]["directory"]) / "bird.ctl"


def pid_of(path: Path) -> int:
    """The process of the BIRD at that socket."""
    with Conversation(str(path)) as bird:
        return bird.pid


def sessions(path: Path) -> dict[str, replies.Shown]:
    """What the BIRD at that socket shows of its sessions."""
    try:
        with Conversation(str(path)) as bird:
            return replies.sessions(bird.ask("show protocols all"))
    except Failure:
        return {}


def are_up(path: Path, number: int) -> bool:
    """Whether it has so many sessions, all of them up."""
    found = sessions(path)
    return len(found) == number and all(one.is_up for one in found.values())


@dataclass(slots=True)
class Router:
    """A router of the network with a BIRD of its own, which is told *text*."""

    place: Place
    directory: Path
    bird: Path
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def socket(self) -> Path:
        """Where it is asked."""
        return self.directory / "router.ctl"

    def start(self, text: str) -> None:
        """Start it, and wait until it answers."""
        self.directory.mkdir(exist_ok=True)
        path = self.directory / "router.conf"
        path.write_text(f'log "{self.directory}/router.log" all;\n{text}')
        line = [str(self.bird), "-f", "-c", str(path), "-s", str(self.socket)]
        self.process = subprocess.Popen(self.place.enter("setpriv", "--pdeathsig", "KILL", "--", *line))
        eventually("the router's BIRD answers", self._answers)

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise Failed("the router's BIRD ended")
        with suppress(Failure):
            return pid_of(self.socket) > 0
        return False

    def ask(self, command: str) -> list[str]:
        """What it answers."""
        with Conversation(str(self.socket)) as bird:
            return [one.text for one in bird.ask(command)]

    def end(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@contextmanager
def mesh(
    family: Family = "dual", nodes: int = 3, settings: Mapping[str, Any] | None = None, **built: Any
) -> Iterator[Lab]:
    """Nodes on one segment, each with a session with each other; *settings* are added to [bgp], *built* is told
    `demo.lab.built`."""
    table = {"topology": "mesh", "asn": ASN, **(settings or {})}
    with ExitStack() as cleanup:
        yield _begun(cleanup, table, family=family, nodes=nodes, **built)


@contextmanager
def rack(
    family: Family = "dual", nodes: int = 2, settings: Mapping[str, Any] | None = None, said: str = ""
) -> Iterator[tuple[Lab, Router]]:
    """Nodes in segments of their own below one router, which is told of their pods by them alone, and which knows a way
    to an outside machine; what is *said* there besides is in its configuration. Their agents are not started."""
    families = labs.FAMILIES[family]
    routers = [
        {"address": _gateway(number, one), "asn": TOR, "where": f"number={number}"}
        for number in range(1, nodes + 1)
        for one in families
    ]
    table = {"topology": "tor", "asn": ASN, "accept_own_asn": True, "router": routers, **(settings or {})}
    with ExitStack() as cleanup:
        lab = _begun(cleanup, table, family=family, nodes=nodes, is_routed=True, is_started=False, has_routes=False)
        router = Router(lab.fabric, lab.directory / "router", program(lab.directory))
        cleanup.callback(router.end)
        router.start(_of_router(lab) + said)
        yield lab, router


def _gateway(number: int, family: int) -> str:
    return f"198.51.{number}.1" if family == 4 else f"2001:db8:ffff:{number}::1"


def _of_router(lab: Lab) -> str:
    """What a router says and takes: all that its neighbours do."""
    kernels = [
        f"protocol kernel {{ scan time 2; persist; graceful restart; ipv{family} {{ import none; "
        "export where source = RTS_BGP; }; }"
        for family in lab.families
    ]
    neighbours = [
        f"protocol bgp '{node.name}.v{family}' {{ local as {TOR}; neighbor {node.address(family)} as {ASN}; "
        "graceful restart on; connect delay time 1; error wait time 1, 2; bfd graceful; "
        f"ipv{family} {{ import all; export all; }}; }}"
        for node in lab.nodes
        for family in lab.families
    ]
    bfd = 'protocol bfd { interface "*" { interval 100 ms; multiplier 3; }; }'
    return "\n".join(["router id 198.51.0.1;", "protocol device { }", *kernels, bfd, *neighbours, ""])


def _begun(cleanup: ExitStack, table: Mapping[str, Any], *, is_started: bool = True, **built: Any) -> Lab:
    settings = {"bgp": {"accept": ACCEPT, **table}}
    lab = cleanup.enter_context(labs.built(**{"backend": "bgp", "settings": settings, "is_started": False, **built}))
    bird = program(lab.directory)
    for node in lab.nodes:
        speaks(node, bird)
        node.labels = {"number": str(node.number)}
        cleanup.callback(finished, node)
    lab.write_nodes()
    if is_started:
        for node in lab.nodes:
            node.write_config()
            node.launch()
        for node in lab.nodes:
            node.await_ready()
    return lab


def speaks(node: Node, bird: Path) -> None:
    """What lets the *node*'s agent start a BIRD of its own."""
    node.settings["bgp"] = {**node.settings["bgp"], "bird": str(bird), "directory": str(node.directory / "bgp")}
    node.power = BIRDS_POWER


def finished(node: Node) -> None:
    """The end of the agent and of its BIRD; the agent first, since it would start BIRD again."""
    if node.agent is not None and node.agent.poll() is None:
        node.stop(signal.SIGTERM)
    with suppress(Failure, ProcessLookupError):
        os.kill(pid_of(socket_of(node)), signal.SIGKILL)
