"""A real container runtime as client: podman 4 with its CNI back end, apart from the machine's own podman.

Podman calls the plugins for the containers of one node. Its network namespace is the node's; its processes live
in a pid namespace and its mounts in a mount namespace of their own, held open by one process: when that process
ends, the kernel ends every container. Of the mounts only ``/run/netns`` is shared with the caller, so that an
agent outside sees the containers' namespaces under the paths that podman names, as the agent of a real node does.

Debian 12 packages: podman, crun, containernetworking-plugins, busybox-static, iproute2.
"""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

IMAGE = "localhost/busybox"
"""The containers' image: busybox with all its applets, and ``/www`` whose ``cgi-bin/peer`` names the client."""

# What podman writes, or crun cannot read as it is:
# - /var/lib/cni: libcni's cache of results; /var/lib/containers: images, containers, podman's state (podman refuses
#   a runroot of more than 50 characters, but only when it cleans up: a short path that is the same on every machine);
# - /dev/shm: podman's locks;
# - /sys/fs/cgroup: crun refuses a hybrid of versions 1 and 2 even when told to leave cgroups alone.
# The first process of a pid namespace inherits the orphans; ignoring SIGCHLD lets the kernel reap them. Podman
# waits twenty seconds for the process that watched a container (conmon) to be gone.
# Every shared mount but /run/netns is made private first: none of these may reach the caller's namespace.
HOLD = """
awk '/ shared:/ && $5 !~ "^/run/netns" { print $5 }' /proc/self/mountinfo |
    while read -r place; do mount --make-private "$place"; done
mount -t proc proc /proc
mount -t tmpfs tmpfs /var/lib
mkdir /var/lib/containers
mount -t tmpfs tmpfs /dev/shm
mount -t cgroup2 -o ro cgroup2 /sys/fs/cgroup
echo ready
exec env --ignore-signal=CHLD sleep infinity
"""


def is_root() -> bool:
    """Root of the machine, not of a user namespace, to whom all other users are strangers."""
    return os.geteuid() == 0 and Path("/proc/self/uid_map").read_text().split()[1] == "0"



@dataclass(frozen=True, slots=True)
class Podman:
    """Podman for one node. Made by `prepare`; every method raises `subprocess.CalledProcessError`, podman's own
    words as its note, when podman fails.

    *command* starts every podman command in its namespaces; *environment* is all that podman inherits.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]

    def run(self, name: str, *words: str, network: str, options: Sequence[str] = ()) -> str:
        """Start the container *name* on *network* in the background; its id. It ends by itself in ten minutes."""
        command = words or ("sleep", "600")
        return self(
            "run", "--detach", "--pull=never", f"--name={name}", f"--network={network}", *options, IMAGE, *command
        )

    def once(self, *words: str, network: str) -> str:
        """Run *words* in a new container, remove it, and return what it printed."""
        return self("run", "--rm", "--pull=never", f"--network={network}", IMAGE, *words)

    def exec(self, name: str, *words: str) -> str:
        """What *words* print, run inside the running container *name*."""
        return self("exec", name, *words)

    def restart(self, name: str) -> None:
        """Stop and start *name*: the same container id in a new network namespace (DEL, then ADD)."""
        self("restart", "--time=0", name)

    def rm(self, *names: str) -> None:
        """Stop and remove containers: DEL for each."""
        self("rm", "--force", "--time=0", *names)

    def inspect(self, name: str, template: str) -> str:
        """One value of ``podman inspect``, by Go template, for example ``{{.NetworkSettings.SandboxKey}}``."""
        return self("inspect", f"--format={template}", name)

    def address(self, name: str) -> str:
        """The IPv4 address that podman read from the ADD's result."""
        return self.inspect(name, "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")

    def __call__(self, *words: str, stdin: bytes | None = None) -> str:
        """Any other podman command; its standard output without the last newline."""
        try:
            done = subprocess.run(
                [*self.command, *words],
                input=stdin,
                stdin=subprocess.DEVNULL if stdin is None else None,
                capture_output=True,
                check=True,
                timeout=60,
                env=dict(self.environment),
            )
        except subprocess.CalledProcessError as error:
            error.add_note(error.stderr.decode(errors="replace"))
            raise
        return done.stdout.decode().removesuffix("\n")


@contextmanager
def prepare(
    directory: Path,
    netns: Path,
    conflists: Sequence[Mapping[str, object]],
    plugins: Sequence[Path],
    environment: Mapping[str, str],
) -> Iterator[Podman]:
    """Podman in the network namespace *netns*; all containers are removed at the end, and killed if that fails.

    Its configuration is written to *directory*, its state to memory. *conflists* are the CNI networks (cniVersion
    1.0.0 at most), *plugins* the directories of the executables, *environment* what the executables find in theirs
    beside CNI_*, PATH and HOME.
    """
    environment = {"PATH": os.environ["PATH"], "HOME": "/var/lib/containers", **environment}
    environment |= configuration(directory, conflists, plugins, environment)
    with namespaces(netns) as enter:
        podman = Podman((*enter, "podman"), environment)
        podman("import", "-", IMAGE, stdin=image())
        try:
            yield podman
        finally:
            podman("rm", "--all", "--force", "--time=0")


def configuration(
    directory: Path,
    conflists: Sequence[Mapping[str, object]],
    plugins: Sequence[Path],
    environment: Mapping[str, str],
) -> Mapping[str, str]:
    """Write podman's configuration and networks under *directory*; the variables that point podman to them."""
    networks = directory / "net.d"
    networks.mkdir()
    for conflist in conflists:
        (networks / f"{conflist['name']}.conflist").write_text(json.dumps(conflist))
    # Podman asks for more open files and processes than a root without CAP_SYS_RESOURCE may have.
    files, processes = (resource.getrlimit(limit)[1] for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC))
    # When a container ends, the process that watches it (conmon) starts the clean-up and so the DEL. It
    # inherits nothing from podman but conmon_env_vars: without them the plugin would look for the wrong agent.
    containers = f"""
[containers]
cgroups = "disabled"
default_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]
[network]
network_backend = "cni"
network_config_dir = {json.dumps(str(networks))}
cni_plugin_dirs = {json.dumps([str(plugin) for plugin in plugins])}
[engine]
cgroup_manager = "cgroupfs"
conmon_env_vars = {json.dumps([f"{key}={value}" for key, value in environment.items()])}
events_logger = "none"
image_copy_tmp_dir = "/var/lib/containers"
runtime = "crun"
tmp_dir = "/var/lib/containers/libpod"
"""
    storage = """
[storage]
driver = "vfs"
graphroot = "/var/lib/containers/graph"
runroot = "/var/lib/containers/run"
"""
    variables = {"CONTAINERS_CONF": containers, "CONTAINERS_STORAGE_CONF": storage}
    for name, text in variables.items():
        (directory / name).write_text(text)
    return {name: str(directory / name) for name in variables}


@contextmanager
def namespaces(netns: Path) -> Iterator[tuple[str, ...]]:
    """The words that run a command in *netns*, in a pid namespace of its own and with private mounts."""
    # Adding a namespace makes /run/netns a shared mount; it stays so when the namespace is gone.
    for verb in ("add", "delete"):
        subprocess.run(["ip", "netns", verb, f"podman-{os.getpid()}"], check=True)
    # The kernel ends the holder with this process, and every container with the holder.
    hold = ["setpriv", "--pdeathsig=KILL", "nsenter", f"--net={netns}"]
    hold += ["unshare", "--mount", "--propagation=unchanged", "--pid", "--kill-child"]
    with subprocess.Popen([*hold, "sh", "-ec", HOLD], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            if holder.stdout.readline() != "ready\n":
                raise RuntimeError(f"podman's namespaces could not be made in {netns}: see standard error")
            place = f"/proc/{holder.pid}/ns"
            yield (
                "nsenter", f"--net={place}/net", f"--mount={place}/mnt", f"--pid={place}/pid_for_children", "--"
            )  # fmt: skip
        finally:
            holder.kill()


def image() -> bytes:
    """A tar archive of busybox, its applets, and a web page that answers with the client's address."""
    busybox = shutil.which("busybox")
    if busybox is None or b"/ld-linux" in Path(busybox).read_bytes():
        raise FileNotFoundError("no statically linked busybox in PATH; install busybox-static")
    applets = subprocess.run([busybox, "--list"], capture_output=True, check=True, text=True).stdout.split()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in applets:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = (tarfile.SYMTYPE, "/bin/.busybox")
            tar.addfile(link)
        programs = {
            "bin/.busybox": Path(busybox).read_bytes(),
            "www/cgi-bin/peer": b'#!/bin/sh\necho\necho -n "$REMOTE_ADDR" | tr -d [] | sed s/^::ffff://\n',
        }
        for name, content in programs.items():
            file = tarfile.TarInfo(name)
            file.mode, file.size = 0o755, len(content)
            tar.addfile(file, io.BytesIO(content))
    return archive.getvalue()
