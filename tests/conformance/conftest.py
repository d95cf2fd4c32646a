"""One node with its agent, for runtimes and plugins that are not ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from demo import lab

REFERENCE = Path("/usr/lib/cni")
"""Where Debian's containernetworking-plugins are."""


@dataclass(frozen=True, slots=True)
class RuntimeNode:
    """A node of a lab as a runtime sees it."""

    inner: lab.Node

    @property
    def netns(self) -> Path:
        """The node's network namespace."""
        return self.inner.place.path

    @property
    def plugins(self) -> tuple[Path, ...]:
        """Directories with ``routable`` and with the reference plugins."""
        return self.inner.runtime.executable.parent, REFERENCE

    @property
    def environment(self) -> Mapping[str, str]:
        """What leads the executable to the agent."""
        return {
            "ROUTABLE_SOCKET": str(self.inner.runtime.socket),
            "ROUTABLE_SPOOL": str(self.inner.runtime.spool),
        }

    def leased(self) -> set[str]:
        """The addresses that live leases hold."""
        return {address for one in self.inner.status()["leases"] for address in one["addresses"]}


@pytest.fixture
def node() -> Iterator[RuntimeNode]:
    """A node of its own for each test."""
    with lab.built(nodes=1) as built:
        yield RuntimeNode(built.nodes[0])
