"""The agent's image, built once of each state of the sources, by podman in a network namespace that leads nowhere."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from demo.place import Place
from tests.conformance.podman import configuration, namespaces

NAME: Final = "localhost/routable:test"
ROOT: Final = Path(__file__).parents[2]
PARTS: Final = ROOT / ".venv" / "image"
"""What ``make setup-test`` fetched for it."""
_SOURCES: Final = ("setup.cfg", "pyproject.toml", "cni", "ipam", "dataplane", "cluster", "backends", "agent", "deploy")


def archive() -> Path:
    """The image as a file that podman, docker and containerd load, called `NAME` there; made where it is not yet."""
    made = PARTS / f"routable-{_state()}.tar"
    with (PARTS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            for old in PARTS.glob("routable-*.tar"):
                old.unlink()
            _build(made)
    return made


def _state() -> str:
    """What tells one state of the sources, and of the commit that the image is to name, from another."""
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, check=False).stdout
    digest = hashlib.sha256(head)
    for name in _SOURCES:
        files = [ROOT / name, *sorted((ROOT / name).rglob("*"))]
        for file in files:
            if file.is_file() and file.suffix != ".pyc":
                digest.update(f"{file.relative_to(ROOT)}\0{file.stat().st_mode}\0".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _build(into: Path) -> None:
    place = Place.make(f"image-{os.getpid()}")
    try:
        with tempfile.TemporaryDirectory() as directory:
            environment = {"PATH": os.environ["PATH"], "HOME": "/var/lib/containers", "TMPDIR": "/var/lib/containers"}
            environment |= configuration(Path(directory), [], [Path(directory)], environment)
            # Steps in a chroot instead of containers: the builder needs no more than the tests have.
            environment["BUILD_OPTIONS"] = "--isolation=chroot"
            with namespaces(place.path) as enter:
                _run(*enter, str(ROOT / "deploy" / "image.sh"), "build", str(PARTS), NAME, environment=environment)
                fresh = into.with_suffix(".new")
                _run(*enter, "podman", "save", "--quiet", f"--output={fresh}", NAME, environment=environment)
                fresh.rename(into)
    finally:
        place.remove()


def _run(*command: str, environment: dict[str, str]) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
