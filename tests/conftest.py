"""For all tests: none may run in the machine's own network namespace, and those that draw their examples draw the same
in every run, so that what fails was broken by a change. With FUZZ in the environment they draw others each time.

Several processes take the files one after another, each in a network namespace of its own: some tests make links where
they run. The long files come first, so that no process ends long after the others.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import PurePath
from typing import Final

import pytest
from hypothesis import settings

from demo import isolate

settings.register_profile("repeatable", derandomize=True)
if not os.environ.get("FUZZ"):
    settings.load_profile("repeatable")

LONGEST: Final = (
    "test_invariant",
    "test_switching",
    "test_switch",
    "test_bgp_fabric",
    "test_vpc",
    "test_hosts",
    "test_agent",
    "test_bgp_switch",
    "test_containerd",
    "test_fabric",
    "test_soak",
)
"""Files of tests that take half a minute or more."""
SHORT: Final = ("cluster", "contract", "property", "unit")
"""Directories with next to none that take seconds."""
_CLONE_NEWNET: Final = 0x40000000


def pytest_sessionstart(session: pytest.Session) -> None:
    """End at once where a test could touch the machine."""
    if not isolate.is_isolated():
        pytest.exit("run the tests in namespaces of their own: make test, or python -m demo.isolate pytest …", 2)
    if "PYTEST_XDIST_WORKER" in os.environ:
        if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "no network namespace can be had")
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the longest files first, and the short ones last; all else stays in order."""
    items.sort(key=lambda item: _turn(item.path))


def _turn(path: PurePath) -> int:
    if path.stem in LONGEST:
        return LONGEST.index(path.stem)
    return len(LONGEST) + (path.parent.name in SHORT)
