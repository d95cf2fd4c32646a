"""``python -m demo.isolate COMMAND…``: runs a command in network and mount namespaces of its own, with an own /run.

As root, these two; otherwise a user namespace as well, in which the caller is root. Whatever the command makes
vanishes with its last process.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

MARK: Final = "ROUTABLE_ISOLATED"
"""Set in the environment of what runs isolated."""

# A /run/netns of the machine's own would be hidden, but first among the mounts, where containerd looks.
# The tmpfs is where `ip netns` keeps its names, podman what it knows, and temporary files are: all vanishes with it.
_PREPARE: Final = (
    "while umount --lazy /run/netns 2>/dev/null; do :; done; "
    "mount -t tmpfs -o mode=0755 tmpfs /run && mkdir -p /run/netns /run/lock /run/tmp && export TMPDIR=/run/tmp && "
    'ip link set lo up && exec "$@"'
)


def is_isolated() -> bool:
    """Whether this process already runs so."""
    return os.environ.get(MARK) == "1"


def command(arguments: Sequence[str]) -> list[str]:
    """The command line that runs *arguments* isolated."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *user, "--net", "--mount", "--propagation", "private", "sh", "-c", _PREPARE, "sh", *arguments]


def execute(arguments: Sequence[str]) -> NoReturn:
    """Become *arguments*, isolated. SystemExit: this machine does not allow it, and what to do."""
    for program in ("unshare", "ip"):
        if shutil.which(program) is None:
            sys.exit(f"{program} is missing: install the packages util-linux and iproute2")
    line = command(arguments)
    trial = subprocess.run(command(["true"]), capture_output=True, text=True, check=False)
    if trial.returncode:
        sys.exit(f"no namespaces of our own can be made: {trial.stderr.strip()}\n{_remedy()}")
    os.execvpe(line[0], line, {**os.environ, MARK: "1"})


def _remedy() -> str:
    if os.geteuid() == 0:
        return "a container needs CAP_SYS_ADMIN (docker run --privileged) for this"
    for name in ("kernel/unprivileged_userns_clone", "user/max_user_namespaces"):
        path = Path("/proc/sys") / name
        if path.exists() and path.read_text().strip() == "0":
            return f"user namespaces are off: sysctl -w {name.replace('/', '.')}=1 (as root), or run this as root"
    return "run this as root, or allow user namespaces (AppArmor: kernel.apparmor_restrict_unprivileged_userns=0)"


if __name__ == "__main__":
    execute(sys.argv[1:])
