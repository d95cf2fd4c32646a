"""``python -m deploy.lock``: writes deploy/requirements anew, from what setup.cfg asks for and pip finds today.

Each file names every package that an image has of Python's registry, with the hash of each wheel that it may be, for
every processor. `unit/test_locked.py` says when setup.cfg asks for something else.
"""

from __future__ import annotations

import configparser
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parent.parent
REQUIREMENTS: Final = ROOT / "deploy" / "requirements"
PROCESSORS: Final = ("x86_64", "aarch64")
PYTHON: Final = "3.11"
"""Debian 12's, the image's."""
TOOLS: Final = ("pip", "setuptools", "wheel")
"""What the wheel of the product itself is built with."""


class Pin(NamedTuple):
    """One package, of one version, and the hashes of its wheels."""

    name: str
    version: str
    hashes: frozenset[str]

    def __str__(self) -> str:
        return " \\\n".join([f"{self.name}=={self.version}", *(f"    --hash={one}" for one in sorted(self.hashes))])


def asked(text: str) -> dict[str, list[str]]:
    """What each file is for: its name, and the requirements that setup.cfg's *text* has for it."""
    parser = configparser.ConfigParser()
    parser.read_string(text)
    extras = {name: value.split("\n") for name, value in parser["options.extras_require"].items() if name != "test"}
    always = [*parser["options"]["install_requires"].split("\n"), *extras.pop("kubernetes")]
    wanted = {"base": always, **{name: [*always, *of] for name, of in extras.items()}}
    return {name: sorted(filter(None, of)) for name, of in wanted.items()} | {"build": list(TOOLS)}


def found(requirements: Sequence[str], processor: str) -> Mapping[str, tuple[str, str]]:
    """What pip would install for *requirements*: name to version and hash."""
    words = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report=-"]
    words += ["--only-binary=:all:", "--implementation=cp", f"--python-version={PYTHON}"]
    words += [f"--abi={one}" for one in ("cp311", "abi3", "none")]
    words += [f"--platform={one}_{processor}" for one in ("manylinux_2_28", "manylinux_2_17", "manylinux2014")]
    with tempfile.TemporaryDirectory() as nowhere:
        said = subprocess.run([*words, "--target", nowhere, *requirements], check=True, capture_output=True, text=True)
    installed = json.loads(said.stdout)["install"]
    return {
        one["metadata"]["name"].lower().replace("_", "-"): (
            one["metadata"]["version"],
            f"sha256:{one['download_info']['archive_info']['hashes']['sha256']}",
        )
        for one in installed
    }


def pins(requirements: Sequence[str]) -> list[Pin]:
    """The same for all processors together."""
    first, *others = (found(requirements, one) for one in PROCESSORS)
    if any({name: one[name][0] for name in one} != {name: first[name][0] for name in first} for one in others):
        raise SystemExit(f"the versions differ between processors: {requirements}")
    return [Pin(name, first[name][0], frozenset(one[name][1] for one in (first, *others))) for name in sorted(first)]


def main() -> None:
    """Write them all."""
    for name, requirements in asked((ROOT / "setup.cfg").read_text()).items():
        head = "# Written by python -m deploy.lock: do not edit.\n"
        text = "\n".join(map(str, pins(requirements)))
        (REQUIREMENTS / f"{name}.txt").write_text(f"{head}{text}\n")


if __name__ == "__main__":
    main()
