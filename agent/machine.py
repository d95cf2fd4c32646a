"""What the agent and ``routablectl`` share about the machine they run on."""

from __future__ import annotations

import fcntl
import os
from importlib import metadata
from pathlib import Path
from typing import Final

from cni.errors import ConfigInvalid

DEFAULT_CONFIG: Final = "/etc/routable/agent.toml"


def version() -> str:
    """The version that is installed."""
    return metadata.version("routable")


def boot_id() -> str:
    """What tells this boot of the machine from every other (random(4))."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def exclusive(state: Path) -> int:
    """A descriptor that keeps other agents, and ``routablectl uninstall``, off this node until it is closed.

    ConfigInvalid: another process has it.
    """
    file = state.with_name(state.name + ".lock")
    try:
        state.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigInvalid(f"{file} cannot be made: {error.strerror}", "check paths.state") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ConfigInvalid(f"{file} is locked", "an agent runs on this node with this state: stop it first") from error
    return descriptor
