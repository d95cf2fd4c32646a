"""What the operator chose, as the backends want to know it."""

from __future__ import annotations

import platform
import re

from netaddr import IPNetwork

import backends
from agent.schema import Config
from backends.site import Options


def wanted(config: Config) -> Options:
    """What the operator chose, as the backends want to know it."""
    return Options(
        mtu=config.mtu,
        masquerade=kept_addresses(config),
        vni=config.vxlan.vni,
        port=config.vxlan.port,
        direct=config.vxlan.direct,
        underlay=config.vxlan.underlay,
        kernel=kernel_version(platform.release()),
    )


def kept_addresses(config: Config) -> tuple[IPNetwork, ...] | None:
    """Where pods keep their own address; None where they do everywhere."""
    if config.backend in backends.CLOUDS:
        return config.aws.snat_exclude if config.aws.snat == "external" else None
    return config.masquerade.routable if config.masquerade.enabled else None


def kernel_version(release: str) -> tuple[int, int]:
    """The first two numbers of *release*, as in "6.1.0-18-amd64"."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return (int(found[1]), int(found[2])) if found else (0, 0)
