"""The routes of a routing daemon that works for us, in the real kernel."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from dataplane.learned import forget, learned
from demo.lab import place
from demo.place import Place

OTHERS = (
    "-4 route add 10.1.0.0/16 via 192.0.2.9 proto 12 metric 32",
    "-4 route add 10.2.0.0/16 via 192.0.2.9 proto 82 metric 8282",
    "-4 route add 10.3.0.0/16 via 192.0.2.9 proto 12 metric 8282 table 99",
    "-6 route add 2001:db8:1::/64 via 2001:db8::9 proto 12 metric 1024",
)
OURS = (
    "-4 route add 10.9.0.0/16 via 192.0.2.9 proto 12 metric 8282",
    "-4 route add default via 192.0.2.9 proto 12 metric 8282",
    "-4 route add 10.8.0.0/16 proto 12 metric 8282 nexthop via 192.0.2.8 nexthop via 192.0.2.9",
    "-4 route add 10.7.0.0/16 via inet6 2001:db8::9 dev eth0 proto 12 metric 8282",
    "-6 route add 2001:db8:9::/64 via 2001:db8::9 proto 12 metric 8282",
    "-6 route add 2001:db8:8::/64 proto 12 metric 8282 nexthop via 2001:db8::8 nexthop via 2001:db8::9",
    "-6 route add default via 2001:db8::9 proto 12 metric 8282",
)


@pytest.fixture
def host() -> Iterator[Place]:
    """A host with a link."""
    with ExitStack() as cleanup:
        made = place(cleanup, f"learned{os.getpid()}")
        made.ip("link add eth0 type veth peer name peer0")
        for end in ("eth0", "peer0"):
            made.ip(f"link set {end} up")
        made.ip("address add 192.0.2.1/24 dev eth0")
        made.ip("address add 2001:db8::1/64 dev eth0 nodad")
        yield made


def shown(host: Place) -> list[str]:
    """All routes of all tables, without those of the kernel."""
    lines = [line for family in (4, 6) for line in host.ip(f"-{family} route show table all").splitlines()]
    return sorted(line for line in lines if "proto kernel" not in line)


def test_they_are_told_from_all_others_and_go(host: Place) -> None:
    """By the number and the metric, in the main table; of both families, by one way or several."""
    for words in OTHERS:
        host.ip(words)
    before = shown(host)
    for words in OURS:
        host.ip(words)
    found = host.within(learned)
    assert sorted({one.network for one in found}) == [
        "0.0.0.0/0", "10.7.0.0/16", "10.8.0.0/16", "10.9.0.0/16", "2001:db8:8::/64", "2001:db8:9::/64", "::/0",
    ]  # fmt: skip
    host.within(lambda: forget(found))
    assert host.within(learned) == []
    assert shown(host) == before
    assert host.within(lambda: forget(found)) == 0
