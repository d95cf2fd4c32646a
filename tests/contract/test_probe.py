"""What counts as an answer of another node, on real sockets between real namespaces."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import NamedTuple

import pytest

from dataplane.netns import Netns
from dataplane.probe import silence
from demo.place import Place

_NUMBERS = itertools.count(1)
PATIENCE = 30.0
"""Seconds for an answer, on a machine however busy."""
BRIEF = 0.3
"""The same where none comes."""


class Pair(NamedTuple):
    """Two machines with two links between them."""

    here: Place
    there: Place

    def silence(
        self, source: str, target: str, answerers: list[str], device: str = "", patience: float = PATIENCE
    ) -> str:
        """Asked from here."""
        with closing(Netns()) as netns:
            descriptor = os.open(self.here.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                with netns.inside(descriptor):
                    return silence(source, target, answerers, patience, device)
            finally:
                os.close(descriptor)


@pytest.fixture
def pair() -> Iterator[Pair]:
    """``here`` sends from 10.9.1.1 and 2001:db8:9:1::1; ``there`` has 10.9.2.0/24 and 2001:db8:9:2::/64."""
    number = next(_NUMBERS)
    with ExitStack() as cleanup:
        places = []
        for name in ("here", "there"):
            place = Place.make(f"probe{os.getpid()}-{number}-{name}")
            cleanup.callback(place.remove)
            place.sysctl("net/ipv6/conf/default/accept_dad", "0")  # its second of silence is not what is tested
            places.append(place)
        here, there = places
        for link in ("one", "two"):
            here.ip(f"link add {link} type veth peer name {link} netns {there.name}")
        for end, place in enumerate(places, 1):
            for path in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
                place.sysctl(path, "1")
            place.ip(f"address add 10.9.{end}.1/32 dev lo")
            place.ip(f"address add 2001:db8:9:{end}::1/128 dev lo")
            for subnet, link in ((1, "one"), (2, "two")):
                place.ip(f"link set {link} up")
                place.ip(f"address add 192.0.{subnet}.{end}/24 dev {link}")
                place.ip(f"address add 2001:db8:f{subnet}::{end}/64 dev {link} nodad")
        for place, (end, other) in ((here, (1, 2)), (there, (2, 1))):
            place.ip(f"route add 10.9.{other}.0/24 via 192.0.1.{other}")
            place.ip(f"-6 route add 2001:db8:9:{other}::/64 via 2001:db8:f1::{other}")
            place.ip(f"route add unreachable 10.9.{end}.0/24")
            place.ip(f"-6 route add unreachable 2001:db8:9:{end}::/64")
        yield Pair(here, there)


FAMILIES = pytest.mark.parametrize(
    ("source", "target", "absent", "answerer"),
    [
        ("10.9.1.1", "10.9.2.1", "10.9.2.0", "192.0.1.2"),
        ("2001:db8:9:1::1", "2001:db8:9:2::1", "2001:db8:9:2::9", "2001:db8:f1::2"),
    ],
    ids=["IPv4", "IPv6"],
)


@FAMILIES
def test_a_refusal_is_an_answer(pair: Pair, source: str, target: str, absent: str, answerer: str) -> None:
    """Nobody needs to listen."""
    assert pair.silence(source, target, []) == ""


@FAMILIES
def test_so_is_the_nodes_own_word_that_there_is_no_such_host(
    pair: Pair, source: str, target: str, absent: str, answerer: str
) -> None:
    """By ICMP, from one of its addresses; from another's it is none, and is named."""
    assert pair.silence(source, absent, [answerer]) == ""
    assert f"(says {answerer})" in pair.silence(source, absent, ["192.0.2.99"])


@FAMILIES
def test_what_this_machine_itself_gives_up_is_no_answer(
    pair: Pair, source: str, target: str, absent: str, answerer: str
) -> None:
    """No route, and no such neighbour."""
    family = "-6 " if ":" in target else ""
    prefix = "2001:db8:9:2::/64" if family else "10.9.2.0/24"
    pair.here.ip(f"{family}route del {prefix}")
    assert "nreachable" in pair.silence(source, target, [answerer, source])
    gone = "2001:db8:f1::77" if family else "192.0.1.77"
    pair.here.ip(f"{family}route add {prefix} via {gone}")
    assert pair.silence(source, target, [answerer, source], patience=BRIEF) != ""


@FAMILIES
def test_a_packet_that_is_dropped_gets_no_answer(
    pair: Pair, source: str, target: str, absent: str, answerer: str
) -> None:
    """Said after the time that was allowed."""
    pair.there.run("nft", "add table inet t; add chain inet t c { type filter hook input priority 0; policy drop; }")
    assert pair.silence(source, target, [answerer], patience=BRIEF) == f"no answer from {target} within {BRIEF:g} s"


@FAMILIES
def test_with_a_device_the_answer_must_come_by_it(
    pair: Pair, source: str, target: str, absent: str, answerer: str
) -> None:
    """The other node answers, but by its old way: that tells whether it has moved."""
    assert pair.silence(source, target, [], "one") == ""
    assert pair.silence(source, absent, [answerer], "one") == ""
    family = "-6 " if ":" in target else ""
    prefix, by = ("2001:db8:9:1::/64", "2001:db8:f2::1") if family else ("10.9.1.0/24", "192.0.2.1")
    pair.there.ip(f"{family}route replace {prefix} via {by}")
    assert pair.silence(source, target, []) == ""
    assert "no answer" in pair.silence(source, target, [answerer], "one", BRIEF)


def test_a_source_that_is_not_ours_is_told(pair: Pair) -> None:
    """Not a silence of the other node."""
    assert "cannot send from 10.9.7.7" in pair.silence("10.9.7.7", "10.9.2.1", [])
