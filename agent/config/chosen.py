"""What the operator chose, as the backends want to know it."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable

import backends
from agent.config.schema import Config
from backends.site import Options, Site
from backends.wiring import Wiring


def wanted(config: Config) -> Options:
    """What the operator chose, as the backends want to know it."""
    return Options(
        mtu=config.mtu,
        masquerade=config.masquerade.routable if config.masquerade.enabled else None,
        kernel=kernel_version(platform.release()),
    )


def wirings(config: Config) -> Callable[[str], Callable[[Site], Wiring]]:
    """What makes a wiring by the name of its backend. That need not be the one in use: a node may be on its way."""

    def of(name: str) -> Callable[[Site], Wiring]:
        backend = backends.load(name)
        return lambda site: backend.wiring(site, config.of(backend))

    return of


def kernel_version(release: str) -> tuple[int, int]:
    """The first two numbers of *release*, as in "6.1.0-18-amd64"."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return (int(found[1]), int(found[2])) if found else (0, 0)
