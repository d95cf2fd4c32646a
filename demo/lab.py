"""The lab: nodes with agents on a fabric, and an outside machine.

The fabric is one segment (a bridge), or with ``is_routed`` one segment per node joined by a router. The outside
machine is on a segment of the fabric and knows one route per node's pod CIDR, by that node: as any router would.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from agent import commands
from cni import install
from cni.errors import Failure
from demo.place import Failed, Place, run
from demo.runtime import Pod, Runtime

PATIENCE: Final = 60.0
"""Seconds for an agent to be ready, or for something to come true."""
POWER: Final = "-all,+net_admin,+net_raw,+sys_admin,+sys_ptrace"
"""What deploy/routable-agent.service leaves an agent: nothing more is needed."""
_NUMBERS = itertools.count(1)

Family = Literal["v4", "v6", "dual"]
FAMILIES: Final[Mapping[Family, tuple[int, ...]]] = {"v4": (4,), "v6": (6,), "dual": (4, 6)}


def eventually(what: str, is_so: Any, patience: float = PATIENCE) -> Any:
    """What *is_so* answers as soon as that is true. Failed: it did not become so in time."""
    deadline = time.monotonic() + patience
    while not (answer := is_so()):
        if time.monotonic() > deadline:
            raise Failed(f"not within {patience:.0f} s: {what}")
        time.sleep(0.01)
    return answer


@dataclass(slots=True)
class Node:
    """One node: its namespace, its entry in the list, its agent's files, and the pods that were added here."""

    name: str
    number: int
    place: Place
    directory: Path
    addresses: list[str]
    pod_cidrs: list[str]
    runtime: Runtime
    settings: dict[str, Any]
    agent: subprocess.Popen[bytes] | None = None
    pods: list[Pod] = field(default_factory=list)
    asn: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    program: Sequence[str] = ("-m", "agent.main")
    launcher: Sequence[str] = ()
    power: str = POWER
    _names: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def config(self) -> Path:
        """The agent's configuration file."""
        return self.directory / "agent.toml"

    @property
    def log(self) -> Path:
        """What the agent wrote."""
        return self.directory / "agent.log"

    def address(self, family: int) -> str:
        """The node's own address of family 4 or 6."""
        return next(one for one in self.addresses if (":" in one) == (family == 6))

    def start(self) -> None:
        """Start the agent and wait until it serves. Failed: it does not, with the end of its log."""
        self.write_config()
        self.launch()
        self.await_ready()

    def write_config(self) -> None:
        """Write the agent's configuration file."""
        self.config.write_text(toml(self.settings))

    def launch(self) -> None:
        """Start the agent and do not wait."""
        power = ["--bounding-set", self.power, "--inh-caps", self.power]
        line = self.place.enter("setpriv", "--pdeathsig", "KILL", *power, "--")
        line += [*self.launcher, sys.executable, *self.program, "--config", str(self.config)]
        with self.log.open("ab") as log:
            self.agent = subprocess.Popen(
                line, stdout=log, stderr=log, cwd=Path(__file__).parent.parent, env={**os.environ, **self.environment}
            )

    def await_ready(self) -> None:
        """Wait until the agent answers. Failed: it does not."""

        def answers() -> bool:
            assert self.agent is not None
            if self.agent.poll() is not None:
                self.agent = None  # told herewith
                raise Failed(f"the agent of {self.name} ended:\n{self.tail()}")
            try:  # the socket is there before the first pass, an answer only after it
                self.status()
            except Failure:
                return False
            return True

        try:
            eventually(f"the agent of {self.name} answers", answers)
        except Failed as error:
            raise Failed(f"{error}\n{self.tail()}") from error

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send the agent a signal and wait for its end; the answer is its exit code."""
        assert self.agent is not None
        self.agent.send_signal(number)
        code = self.agent.wait(PATIENCE)
        self.agent = None
        return code

    def tail(self, lines: int = 40) -> str:
        """The end of the agent's log."""
        return "\n".join(self.log.read_text().splitlines()[-lines:]) if self.log.exists() else "(no log)"

    def ctl(self, *arguments: str) -> str:
        """``routablectl ARGUMENTS`` on this node."""
        return run(*self._ctl(arguments))

    def ctl_begun(self, *arguments: str) -> subprocess.Popen[str]:
        """The same, started and not waited for; its output and errors are pipes."""
        return subprocess.Popen(self._ctl(arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def _ctl(self, arguments: Sequence[str]) -> list[str]:
        return self.place.enter(sys.executable, "-m", "agent.ctl", "--config", str(self.config), *arguments)

    def status(self) -> dict[str, Any]:
        """What ``routablectl status --json`` prints."""
        document: dict[str, Any] = commands.ask(str(self.runtime.socket), commands.STATUS, {})
        return document

    def metrics(self) -> str:
        """What /metrics answers."""
        return self.probe("/metrics")

    def probe(self, path: str) -> str:
        """What the agent's HTTP port answers, with the head."""
        with self.place.socket(socket.AF_INET, socket.SOCK_STREAM) as stream:
            stream.settimeout(PATIENCE)
            stream.connect(("127.0.0.1", 9472))
            stream.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            answer = b""
            while data := stream.recv(1 << 16):
                answer += data
        return answer.decode()

    def pod_place(self) -> Place:
        """A new namespace for a pod."""
        return Place.make(f"{self.place.name}-pod{next(self._names)}")

    def add(self, **options: Any) -> Pod:
        """A new pod: its namespace, and ADD."""
        place = self.pod_place()
        pod = self.runtime.add(options.pop("container", place.name), place, **options)
        self.pods.append(pod)
        return pod

    def delete(self, pod: Pod, **options: Any) -> None:
        """DEL, and the end of the pod's namespace."""
        self.runtime.delete(pod, **options)
        pod.place.remove()
        self.pods.remove(pod)


@dataclass(slots=True)
class Lab:
    """The whole: see ``built``."""

    name: str
    nodes: list[Node]
    outside: Place
    outside_addresses: list[str]
    families: tuple[int, ...]
    directory: Path
    fabric: Place

    @property
    def pods(self) -> list[tuple[Node, Pod]]:
        """All pods and where they are."""
        return [(node, pod) for node in self.nodes for pod in node.pods]

    def outside_address(self, family: int) -> str:
        """The outside machine's address of family 4 or 6."""
        return next(one for one in self.outside_addresses if (":" in one) == (family == 6))

    def write_nodes(self, nodes: Sequence[Node] | None = None) -> None:
        """Write the list of nodes, in one step."""
        lines = []
        for node in self.nodes if nodes is None else nodes:
            lines += ["[[node]]", f'name = "{node.name}"', f"addresses = {json.dumps(node.addresses)}"]
            lines += [f"pod_cidrs = {json.dumps(node.pod_cidrs)}"]
            lines += [f"asn = {node.asn}"] if node.asn else []
            lines += [f"labels = {_value(node.labels)}", ""]
        fresh = self.directory / "nodes.new"
        fresh.write_text("\n".join(lines))
        fresh.rename(self.directory / "nodes.toml")


@contextmanager
def built(
    *,
    backend: str = "static",
    family: Family = "v4",
    nodes: int = 3,
    is_routed: bool = False,
    settings: Mapping[str, Any] | None = None,
    form: Literal["c", "python"] | None = None,
    mtu: int = 1500,
    is_started: bool = True,
    has_routes: bool = True,
) -> Iterator[Lab]:
    """A lab whose agents serve; it is taken down whatever happens. *settings* are added to every agent's
    configuration; *form* is the executable's, None for the better one that can be had here. Unless it *has_routes*,
    nobody but the nodes is told a route to pods."""
    name = unused()
    families = FAMILIES[family]
    with ExitStack() as cleanup:
        directory, executable = home(cleanup, form)
        fabric = place(cleanup, f"{name}-fabric")
        route(fabric, families)
        if not is_routed:
            _bridge(fabric, "br0", mtu)
        made = []
        for number in range(1, nodes + 1):
            cidrs = {4: f"10.244.{number}.0/24", 6: f"2001:db8:{number}::/64"}
            own = {"backend": backend, "nodes": {"file": str(directory / "nodes.toml")}, **(settings or {})}
            node = node_at(cleanup, name, number, directory, executable, own)
            node.pod_cidrs = [cidrs[one] for one in families]
            _join(fabric, node.place, number, families, is_routed, mtu)
            made.append(node)
        outside = place(cleanup, f"{name}-outside")
        _join(fabric, outside, 100, families, is_routed, mtu)
        lab = Lab(
            name,
            made,
            outside,
            [_address(number=100, family=one, is_routed=is_routed) for one in families],
            families,
            directory,
            fabric,
        )
        for node in made:
            node.addresses = [_address(node.number, one, is_routed) for one in families]
            for cidr, address in zip(node.pod_cidrs, node.addresses, strict=True):
                if not has_routes:
                    continue
                if is_routed:
                    fabric.ip(f"route add {cidr} via {address}")
                else:
                    outside.ip(f"route add {cidr} via {address}")
        lab.write_nodes()
        if is_started:
            for node in made:
                node.write_config()
                node.launch()
            for node in made:
                node.await_ready()
        yield lab


def unused() -> str:
    """A name that no other lab of this machine has."""
    return f"lab{os.getpid()}-{next(_NUMBERS)}"


def home(cleanup: ExitStack, form: Literal["c", "python"] | None = None) -> tuple[Path, Path]:
    """A directory for a lab's files, and the executable there."""
    directory = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="routable-")))
    compiler = None if form == "python" else shutil.which("cc")
    python = Path(getattr(sys, "_base_executable", sys.executable))
    installed = install.install(directory / "bin", python, compiler)
    if form is not None and installed.form != form:
        raise Failed(f"the executable cannot be had in the form {form}: {installed.reason}")
    return directory, installed.path


def _address(number: int, family: int, is_routed: bool) -> str:
    if family == 4:
        return f"192.0.2.{number}" if not is_routed else f"198.51.{number}.2"
    return f"2001:db8:ffff::{number}" if not is_routed else f"2001:db8:ffff:{number}::2"


def _gateway(number: int, family: int) -> str:
    return f"198.51.{number}.1" if family == 4 else f"2001:db8:ffff:{number}::1"


def place(cleanup: ExitStack, name: str) -> Place:
    """A namespace that goes with the lab."""
    made = Place.make(name)
    cleanup.callback(made.remove)
    # The uplinks of real nodes have been up for long; these would not solicit neighbours for their first second or two.
    made.sysctl("net/ipv6/conf/default/accept_dad", "0")
    return made


def route(place: Place, families: Sequence[int]) -> None:
    """Make a router of *place*."""
    place.sysctl("net/ipv4/ip_forward", "1")
    if 6 in families:
        place.sysctl("net/ipv6/conf/all/forwarding", "1")


def _bridge(fabric: Place, name: str, mtu: int) -> None:
    fabric.ip(f"link add {name} mtu {mtu} type bridge")
    fabric.ip(f"link set {name} up")


def _join(fabric: Place, place: Place, number: int, families: Sequence[int], is_routed: bool, mtu: int) -> None:
    """Give *place* an eth0 on the fabric."""
    port = f"port{number}"
    fabric.ip(f"link add {port} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {place.name}")
    if not is_routed:
        fabric.ip(f"link set {port} master br0")
    fabric.ip(f"link set {port} up")
    place.ip("link set eth0 up")
    for family in families:
        length, flags = (24, "") if family == 4 else (64, " nodad")
        place.ip(f"address add {_address(number, family, is_routed)}/{length} dev eth0{flags}")
        if is_routed:
            fabric.ip(f"address add {_gateway(number, family)}/{length} dev {port}{flags}")
            place.ip(f"-{family} route add default via {_gateway(number, family)}")


def node_at(
    cleanup: ExitStack, lab: str, number: int, directory: Path, executable: Path, settings: Mapping[str, Any]
) -> Node:
    """A node that goes with the lab: its namespace, and an agent with *settings* that is not started yet."""
    name = f"node-{'abcdefghij'[number - 1]}"
    own = directory / name
    own.mkdir(mode=0o700)
    paths = {"socket": own / "agent.sock", "state": own / "state.db", "spool": own / "spool"}
    whole = {"node": name, "paths": {key: str(path) for key, path in paths.items()}, **settings}
    runtime = Runtime(executable, paths["socket"], paths["spool"])
    node = Node(name, number, place(cleanup, f"{lab}-{name}"), own, [], [], runtime, whole)
    cleanup.callback(_end, node)
    # As most distributions have it: a packet must come from where one to its sender would go.
    node.place.sysctl("net/ipv4/conf/default/rp_filter", "1")
    return node


def _end(node: Node) -> None:
    # Whoever has it in hand may end it by SIGKILL; it never does so itself.
    has_died = node.agent is not None and node.agent.poll() not in (None, -signal.SIGKILL)
    if node.agent is not None:
        if "COVERAGE_FILE" in os.environ:  # `make coverage`: one that is killed writes down nothing
            node.agent.terminate()
            with suppress(subprocess.TimeoutExpired):
                node.agent.wait(PATIENCE)
        node.agent.kill()
        node.agent.wait()
    for pod in node.pods:
        pod.place.remove()
    if has_died:
        raise Failed(f"the agent of {node.name} ended by itself:\n{node.tail()}")


def toml(settings: Mapping[str, Any]) -> str:
    """*settings*, a table with tables in it, as a file."""
    plain = [f"{key} = {_value(value)}" for key, value in settings.items() if not isinstance(value, Mapping)]
    tables = []
    for name, table in settings.items():
        if isinstance(table, Mapping):
            tables += [f"[{name}]", *(f"{key} = {_value(value)}" for key, value in table.items())]
    return "\n".join([*plain, *tables, ""])


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_value(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value)
