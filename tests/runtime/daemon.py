"""A real containerd with its CRI plugin for one node of a lab, apart from any containerd of the machine's own.

It is Debian's, unpacked and not installed. Its network namespace is the node's; its processes live in a pid namespace
and its mounts in a mount namespace, see `tests.conformance.podman.namespaces`, and end with one process. To them the
machine's usual paths (/etc/cni/net.d, /opt/cni/bin, /run/routable, …) are the node's own: below its directory.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from demo import lab
from demo.lab import eventually
from demo.place import run
from tests.conformance.podman import image, is_root, namespaces
from tests.runtime.agents import Agent, Process
from tests.runtime.cri import CallFailed, Cri, Pod, Sandbox
from tests.runtime.images import archive

ROOT: Final = Path(__file__).parents[2]
TOOLS: Final = "localhost/tools:1"
"""The image of all containers and sandboxes: see `tests.conformance.podman.image`."""
CONFLIST: Final = "10-routable.conflist"
BOOTS: Final = ("11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222")
BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"
# /etc is the machine's, with room for more; /opt is empty.
_ROOM: Final = """
mkdir -p {upper} {upper}.work
mount -t overlay -o lowerdir=/etc,upperdir={upper},workdir={upper}.work overlay /etc
mount -t tmpfs tmpfs /opt
"""

# containerd gives every container a cgroup, and its release 2 cannot do without. The machine's cgroups are not the
# tests' to use: runc leaves them alone where it is asked for none, may have none and is told that it may not.
_RUNC: Final = """#!/bin/sh
previous=
for word in "$@"; do
    [ "$previous" != --bundle ] ||
        sed -Ei 's/"cgroupsPath":"[^"]*",?//; s/,?"(cpu|memory)":\\{[^}]*\\}//g' "$word/config.json"
    previous=$word
done
exec %s --rootless=true "$@"
"""

_CONFIG: Final = """
version = 2
root = "{directory}/root"
state = "{directory}/state"
disabled_plugins = ["io.containerd.snapshotter.v1.devmapper", "io.containerd.nri.v1.nri"]
[grpc]
  address = "{directory}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{directory}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"  # Debian's looks into /usr/lib/cni first
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = "{directory}/runc"
"""


@dataclass(frozen=True, slots=True)
class Release:
    """What there is of one release of containerd: its programs, and the reference plugins beside it."""

    programs: Path
    plugins: Path

    def lacks(self) -> str:
        """What keeps it from being tried here; "" where nothing does."""
        if not is_root():
            return "containerd needs real root"
        program = self.programs / "containerd"
        if not program.exists():
            return f"{program} was not unpacked: see deploy/packages.sh"
        if subprocess.run([program, "--version"], capture_output=True, check=False).returncode:
            return f"{program} does not run here: it needs a newer libc"
        overlay = ["mount", "-t", "overlay", "-o", "lowerdir=/etc:/bin", "overlay", "/mnt"]
        if subprocess.run(["unshare", "--mount", *overlay], capture_output=True, check=False).returncode:
            return "the kernel has no overlay file system"
        return ""

    @property
    def path(self) -> str:
        """PATH for its programs."""
        return f"{self.programs}:{os.environ['PATH']}"


RUNC: Final = ROOT / ".venv/debian/usr/sbin/runc"
OTHER: Final = {
    name: Release(Path(programs), Path("/usr/lib/cni"))
    for name, programs in os.environ.items()
    if name == "CONTAINERD"
}
RELEASES: Final[Mapping[str, Release]] = {
    "1.6": Release(ROOT / ".venv/debian/usr/bin", Path("/usr/lib/cni")),
    "2": Release(ROOT / ".venv/debian-testing/usr/bin", ROOT / ".venv/debian-testing/usr/lib/cni"),
    **OTHER,
}
"""Debian 12's, which speaks cniVersion 1.0.0 at most, and Debian testing's, which speaks 1.1.0 and asks STATUS; by hand
another of before release 2, whose programs are in the directory that CONTAINERD names."""


@dataclass(slots=True)
class Machine:
    """A node of a lab with its containerd. Made by `machine`."""

    node: lab.Node
    release: Release
    directory: Path
    boots: Iterator[str]
    """What the kernel's boot id is, from boot to boot."""
    agent: Agent
    cri: Cri = field(init=False)
    enter: tuple[str, ...] = ()
    _daemon: subprocess.Popen[bytes] | None = None
    _power: ExitStack = field(default_factory=ExitStack)

    @property
    def boot_id(self) -> Path:
        """What the node's processes read as the kernel's boot id."""
        return self.directory / "boot_id"

    def power_on(self) -> None:
        """Start containerd; it answers when this returns."""
        self.boot_id.write_text(f"{next(self.boots)}\n")
        self._power.callback(self._reap)  # after its namespaces are gone
        self.enter = self._power.enter_context(namespaces(self.node.place.path))
        run(*self.enter, "mount", "--bind", str(self.boot_id), BOOT_ID)
        run(*self.enter, "sh", "-ec", _ROOM.format(upper=self.directory / "etc"))
        for path, own in self.paths.items():
            own.mkdir(parents=True, exist_ok=True)
            run(*self.enter, "sh", "-ec", f"mkdir -p {path}; mount --bind {own} {path}")
        self._start()

    def _start(self) -> None:
        command = [*self.enter, "containerd", "--config", str(self.directory / "config.toml")]
        environment = {"PATH": self.release.path, **self.node.runtime.environment}
        with (self.directory / "containerd.log").open("ab") as log:
            self._daemon = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        self.cri = Cri(self.directory / "containerd.sock")
        eventually("containerd answers", self._answers)

    def kill(self) -> None:
        """End containerd alone, by SIGKILL, and start it anew: its containers and what they run go on."""
        assert self._daemon is not None
        inner = Path(f"/proc/{self._daemon.pid}/task/{self._daemon.pid}/children").read_text().split()
        os.kill(int(inner[0]), signal.SIGKILL)  # nsenter waits for it
        self._daemon.wait()
        self.cri.close()
        self._start()

    def power_off(self) -> None:
        """End containerd and all containers at once, as the end of the machine does."""
        self.cri.close()
        self._power.close()
        shutil.rmtree(self.directory / "state", ignore_errors=True)

    def _reap(self) -> None:
        if self._daemon is not None:
            self._daemon.wait()

    def _answers(self) -> bool:
        try:
            return bool(self.cri.version())
        except CallFailed:
            return False

    def tail(self, lines: int = 40) -> str:
        """The end of containerd's log."""
        return "\n".join((self.directory / "containerd.log").read_text().splitlines()[-lines:])

    def load(self, image: Path) -> None:
        """Give containerd the images of an archive."""
        ctr = ["ctr", "--address", str(self.directory / "containerd.sock"), "--namespace", "k8s.io"]
        run(*self.enter, *ctr, "images", "import", str(image), environment={"PATH": self.release.path})

    @property
    def paths(self) -> dict[str, Path]:
        """Directories of the machine, and where they are for this node. libcni's cache lasts from boot to boot."""
        return {
            "/etc/cni/net.d": self.networks,
            "/opt/cni/bin": self.plugins,
            "/var/lib/cni": self.directory / "results",
            "/run/routable": self.node.runtime.socket.parent,
            "/var/lib/routable": self.node.runtime.spool.parent,
        }

    @property
    def plugins(self) -> Path:
        """Where its CNI executables are."""
        return self.directory / "plugins"

    @property
    def networks(self) -> Path:
        """Where its network configurations are."""
        return self.directory / "net.d"

    @property
    def environment(self) -> dict[str, str]:
        """What leads the executable to the node's agent, where it is not called by containerd."""
        return {
            "ROUTABLE_SOCKET": str(self.node.runtime.socket),
            "ROUTABLE_SPOOL": str(self.node.runtime.spool),
            **self.node.runtime.environment,
        }

    def serve(self, pod: Pod) -> tuple[Sandbox, str]:
        """A sandbox for *pod*, and a container in it with a web server, see `tests.conformance.podman.image`."""
        sandbox = self.cri.run(pod)
        container = self.cri.start(sandbox, TOOLS, ["sleep", "infinity"])
        self.cri.execute(container, "httpd", "-p", "80", "-h", "/www")  # it goes to the background once it listens
        return sandbox, container

    def delete(self, sandbox: Sandbox) -> None:
        """Stop and remove, as kubelet does."""
        self.cri.stop(sandbox.id)
        self.cri.remove(sandbox.id)

    def pods(self) -> list[str]:
        """The sandboxes of all pods but the agent's own."""
        return [one for one in self.cri.sandboxes() if one != self.agent.sandbox]

    def left(self) -> dict[str, Any]:
        """What of pods is on the node: leases, links, DELs that wait."""
        links = [line.split(":")[1].split("@")[0].strip() for line in self.node.place.ip("-o link").splitlines()]
        return {
            "leases": sorted(one["container"] for one in self.node.status()["leases"]),
            "links": [name for name in links if name.startswith("rt")],
            "spool": [one.name for one in self.node.runtime.spool.glob("del-*")],
        }


NOTHING: Final[Mapping[str, Any]] = {"leases": [], "links": [], "spool": []}
"""What is left where no pod is."""


@contextmanager
def machine(node: lab.Node, release: Release, *images: Path) -> Iterator[Machine]:
    """*node* with a containerd that has the images of these archives. Its agent, a process that is not started yet, is
    to keep the executable and the network configuration in containerd's directories."""
    directory = node.directory / "containerd"
    for name in ("plugins", "net.d"):
        (directory / name).mkdir(parents=True)
    for plugin in ("loopback", "portmap"):
        (directory / "plugins" / plugin).symlink_to(release.plugins / plugin)
    node.settings["cni"] = {"conflist": str(directory / "net.d" / CONFLIST), "executables": str(directory / "plugins")}
    (directory / "runc").write_text(_RUNC % RUNC)
    (directory / "runc").chmod(0o755)
    (directory / "config.toml").write_text(_CONFIG.format(directory=directory, image=TOOLS))
    made = Machine(node, release, directory, iter(BOOTS), Process(node))
    node.launcher = ["unshare", "--mount", "--propagation", "unchanged", "--", "sh", "-c"]
    node.launcher += [f'mount --bind "$0" {BOOT_ID} && exec "$@"', str(made.boot_id)]
    made.power_on()
    try:
        for image in images:
            made.load(image)
        yield made
    finally:
        made.power_off()


def tools(to: Path) -> Path:
    """Write the archive of the image TOOLS to *to*."""
    archive(to, TOOLS, image(), ["sleep", "infinity"])
    return to
