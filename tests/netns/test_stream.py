"""The meter of lost packets finds what is lost, and only that."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from demo.lab import eventually, place
from demo.place import Place
from demo.runtime import Pod
from demo.stream import Datagrams

SENDER, RECEIVER = "192.0.2.1", "192.0.2.2"


@pytest.fixture
def ends() -> Iterator[tuple[Pod, Pod]]:
    """Two machines and a wire between them."""
    with ExitStack() as cleanup:
        one, other = (place(cleanup, f"meter{os.getpid()}-{name}") for name in ("sender", "receiver"))
        one.ip(f"link add eth0 type veth peer name eth0 netns {other.name}")
        for end, address in ((one, SENDER), (other, RECEIVER)):
            end.ip(f"address add {address}/24 dev eth0")
            end.ip("link set eth0 up")
        yield tuple(_pod(end, address) for end, address in ((one, SENDER), (other, RECEIVER)))  # type: ignore[misc]


def _pod(where: Place, address: str) -> Pod:
    return Pod("", where, {"ips": [{"address": f"{address}/24"}]})


def drop(where: Place, words: str) -> None:
    """Have *where* drop what comes in and fits *words*."""
    rules = "table inet lossy { chain in { type filter hook input priority 0; " + words + " drop; }; }"
    where.run("nft", "-f", "-", stdin=rules)


def run(stream: Datagrams, count: int) -> None:
    """Let *count* datagrams be sent."""
    with stream:
        eventually("they are sent", lambda: stream.sent >= count, 30.0)


def test_nothing_is_lost_where_nothing_is_dropped(ends: tuple[Pod, Pod]) -> None:
    """All come back, and there is nothing to tell."""
    stream = Datagrams(*ends)
    run(stream, 300)
    assert (stream.lost, stream.losses()) == (0, "")
    assert stream.back == stream.sent >= 300


@pytest.mark.parametrize(("at", "way"), [(1, "there"), (0, "back")])
def test_what_the_network_drops_is_counted_and_named(ends: tuple[Pod, Pod], at: int, way: str) -> None:
    """Forty are dropped: it says forty, which, on which way and when."""
    drop(ends[at].place, "meta l4proto udp @th,64,64 >= 100 @th,64,64 < 140")
    stream = Datagrams(*ends)
    run(stream, 300)
    assert stream.lost == 40
    said = stream.losses()
    assert said.startswith(f"{SENDER} -> {RECEIVER}: 40 of {stream.sent} lost (0 overrun, 0 unread); {way}: 100-139 at")
    assert said.count(":") == 2


def test_a_sender_that_has_to_wait_goes_on(ends: tuple[Pod, Pod]) -> None:
    """Where packets leave more slowly than they are sent, for longer than a reader waits before it looks around."""
    ends[0].place.run("sh", "-c", "tc qdisc add dev eth0 root tbf rate 2mbit burst 4kb latency 10s")
    stream = Datagrams(*ends, size=60_000)
    run(stream, 8)
    assert (stream.lost, stream.losses()) == (0, "")


class Held(Datagrams):
    """Its echo begins late, as on a machine that has no time for it, and so does its receiver."""

    def _echo(self) -> None:
        time.sleep(1.2)
        super()._echo()

    def _receive(self) -> None:
        time.sleep(2.4)
        super()._receive()


def test_a_reader_that_has_no_time_loses_nothing(ends: tuple[Pod, Pod]) -> None:
    """Datagrams that wait, longer than any silence, also when the sender has ended, were not lost."""
    stream = Held(*ends)
    run(stream, 300)
    assert (stream.lost, stream.losses()) == (0, "")


class Stuck(Datagrams):
    """Its echo ends at once."""

    def _echo(self) -> None:
        self._is_echoed.set()


def test_what_nobody_read_is_told_apart_from_what_the_network_lost(ends: tuple[Pod, Pod]) -> None:
    """They count as lost, and it says that they lay unread."""
    stream = Stuck(*ends)
    run(stream, 50)
    assert f"{stream.sent} of {stream.sent} lost (0 overrun, {stream.sent} unread)" in stream.losses()
