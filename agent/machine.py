"""What the agent and ``routablectl`` share about the machine they run on."""

from __future__ import annotations

import fcntl
import os
import time
from importlib import metadata
from pathlib import Path
from typing import Final

from cni.errors import ConfigInvalid
from ipam.moment import Moment

DEFAULT_CONFIG: Final = "/etc/routable/agent.toml"


def version() -> str:
    """The version that is installed."""
    return metadata.version("routable")


def boot_id() -> str:
    """What tells this boot of the machine from every other (random(4))."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def identity() -> str:
    """Words that tell this machine from others, "-" for one that it has not: machine-id(5), which a disk's copy has,
    too, and the mainboard's or hypervisor's, which a container sees, too. Neither alone is enough."""
    return " ".join(_word(Path(one)) for one in ("/etc/machine-id", "/sys/class/dmi/id/product_uuid"))


def _word(path: Path) -> str:
    try:
        words = path.read_text().split()
    except OSError:
        return "-"
    return words[0] if words and words[0] != "uninitialized" else "-"


def uptime() -> float:
    """Seconds since the boot, which nobody sets, sleep counted: the clock of all that is ordered or lasts."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def moment() -> Moment:
    """Now."""
    return Moment(uptime(), time.time())


def exclusive(state: Path) -> int:
    """A descriptor that keeps other agents, and ``routablectl uninstall``, off this node until it is closed.

    ConfigInvalid: another process has it.
    """
    file = _beside(state)
    try:
        state.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigInvalid(f"{file} cannot be made: {error.strerror}", "check paths.state") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ConfigInvalid(f"{file} is locked", "an agent runs on this node with this state: stop it first") from error
    return descriptor


_CLAIM: Final = "the file beside this one is the journal of routable-agent\n"


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
