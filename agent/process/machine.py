"""What the agent and ``routablectl`` share about the machine they run on."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import metadata
from pathlib import Path
from typing import Final

from cni.errors import ConfigInvalid
from ipam.moment import Moment

DEFAULT_CONFIG: Final = "/etc/routable/agent.toml"
_CLAIM: Final = "the file beside this one is the journal of routable-agent\n"
DESCRIPTORS: Final = 65536
"""Descriptors that can be of use, as in deploy/routable-agent.service."""
FEW: Final = 1024
"""Fewer than these are worth a warning."""
RESERVED: Final = 256
"""Descriptors that are not for clients: some 25 at rest, 2 for each of the requests that are served at a time, 16 of
the HTTP port, 64 for peers that are probed, 3 for nft, some 20 for a cloud's API; and half as many again."""
_NAME: Final = "\0routable-agent"
_UCRED: Final = struct.Struct("3i")


def version() -> str:
    """The version that is installed."""
    return metadata.version("routable")


def hostname(environment: Mapping[str, str]) -> str:
    """What this node is called where its configuration, the same for all, does not say: in a pod, by the name of its
    Node, which need not be the machine's."""
    return environment.get("ROUTABLE_NODE") or socket.gethostname()


def boot_id() -> str:
    """What tells this boot of the machine from every other (random(4))."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def identity() -> str:
    """Words that tell this machine from others, "-" for one that it has not: machine-id(5), which a disk's copy has,
    too, and the mainboard's or hypervisor's, which a container sees, too. Neither alone is enough."""
    return " ".join(_word(Path(one)) for one in ("/etc/machine-id", "/sys/class/dmi/id/product_uuid"))


def _word(path: Path) -> str:
    try:
        words = path.read_text(errors="replace").split()
    except OSError:
        return "-"
    return words[0] if words and words[0] != "uninitialized" else "-"


def uptime() -> float:
    """Seconds since the boot, which nobody sets, sleep counted: the clock of all that is ordered or lasts."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def moment() -> Moment:
    """Now."""
    return Moment(uptime(), time.time())


@contextmanager
def exclusive(state: Path) -> Iterator[None]:
    """Keep other agents, and ``routablectl uninstall``, off this journal and this network namespace in the body.

    ConfigInvalid: another process has one of them.
    """
    with ExitStack() as held:
        held.callback(os.close, _locked(_beside(state)))
        held.enter_context(_alone())
        yield


def _locked(file: Path) -> int:
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigInvalid(f"{file} cannot be made: {error.strerror}", "check paths.state") from error
    try:
        _lock(file, descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _lock(file: Path, descriptor: int) -> None:
    try:
        if os.pread(descriptor, len(_CLAIM) + 1, 0) not in (b"", _CLAIM.encode()):
            raise ConfigInvalid(
                f"{file} is somebody else's", "it was left alone; set paths.state to where no such file is beside it"
            )
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ConfigInvalid(f"{file} is locked", "an agent runs on this node with this state: stop it first") from error
    except OSError as error:  # no file, or of a file system without locks
        raise ConfigInvalid(f"{file} cannot be locked: {error.strerror}", "set paths.state to another place") from error


def _alone() -> socket.socket:
    """What is ours in the kernel is marked, but not whose of two agents: each would remove what the other makes.
    Abstract names are per network namespace (network_namespaces(7)), which is just what must not be shared."""
    try:
        name = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            name.bind(_NAME)
            name.listen(128)  # for those who want to know who has it
        except BaseException:
            name.close()
            raise
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise ConfigInvalid("the network namespace cannot be locked", str(error)) from error
        raise ConfigInvalid(
            f"an agent runs in this network namespace already: {holder() or 'another process'}",
            "its configuration has other paths; two would undo each other's work: stop it first",
        ) from error
    return name


def holder() -> str | None:
    """Who runs as the agent in this network namespace; None: nobody."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as asking:
        try:
            asking.connect(_NAME)
        except OSError:
            return None
        pid, uid, _ = _UCRED.unpack(asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return f"process {pid} of user {uid}"


def descriptors() -> int:
    """How many descriptors this process may have, which is made as many as is allowed and of use."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def room(limit: int) -> int:
    """How many of *limit* descriptors may be clients' connections: the others are for the work, whoever connects."""
    return max(limit - RESERVED, limit // 4)


def claim(state: Path) -> None:
    """Note that there is a journal of ours at *state*: later that tells a damaged one from a file of somebody else's,
    which is never touched. Raises OSError."""
    if not is_claimed(state):
        _beside(state).write_text(_CLAIM)


def is_claimed(state: Path) -> bool:
    """Whether there was a journal of ours at *state* before."""
    try:
        return _beside(state).read_text() == _CLAIM
    except (OSError, UnicodeDecodeError):
        return False


def _beside(state: Path) -> Path:
    return state.with_name(state.name + ".lock")
