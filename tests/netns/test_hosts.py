"""Hosts as people have them: hardened, with other programs' rules, with small links."""

from __future__ import annotations

import pytest

from demo import show
from demo.lab import Lab, built


def unreached(lab: Lab, family: int = 4) -> list[str]:
    """Who does not reach whom by TCP and UDP, among pods, nodes and the outside machine, and why."""
    found = show.reachability(lab, family)
    return [f"{one.sender.label} -> {one.receiver.label}: {one.fault}" for one in found if one.fault]


def with_pods(lab: Lab) -> Lab:
    """The lab, started, with a pod on each node."""
    for node in lab.nodes:
        node.start()
        node.add()
    return lab


@pytest.mark.parametrize("backend", ["static", "vxlan"])
def test_ipv4_pods_need_no_ipv6(backend: str) -> None:
    """Hosts on which IPv6 is switched off for all links, as hardening guides say."""
    with built(backend=backend, nodes=2, is_started=False) as lab:
        for node in lab.nodes:
            for which in ("all", "default"):
                node.place.sysctl(f"net/ipv6/conf/{which}/disable_ipv6", "1")
        assert unreached(with_pods(lab)) == []


def test_ipv4_pods_on_links_too_small_for_ipv6() -> None:
    """An MTU below 1,280 bytes: the kernel has no IPv6 on such a device."""
    with built(backend="vxlan", nodes=2, mtu=1300, is_started=False) as lab:
        assert unreached(with_pods(lab)) == []
