"""How changes are gathered for the kernel."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Any, cast

from dataplane import rtnl
from dataplane.batch import Batch
from dataplane.diff import Change
from dataplane.items import HOST, Nexthop, Route
from dataplane.netlink import Socket


class Sink:
    """Takes everything, and counts the messages of each send."""

    def __init__(self) -> None:
        self.sent: list[int] = []

    def index(self, name: str) -> int:
        return 2

    def transact(self, messages: Sequence[rtnl.Message]) -> list[Any]:
        self.sent.append(len(messages))
        return []


def program(sink: Sink, count: int) -> None:
    """As many nexthop objects, and a route by each."""
    batch = Batch(cast(Socket, sink), threading.Lock())
    for number in range(count):
        batch.add(Change(None, Nexthop((1 << 30) + number, "192.0.2.2", "eth0")))
    for number in range(count):
        batch.send_first(Nexthop)
        batch.add(Change(None, Route(HOST, f"10.0.{number}.0/24", nhid=(1 << 30) + number)))
    batch.send()


def steps(count: int) -> int:
    """How many calls that takes."""
    found = 0

    def called(frame: FrameType, event: str, _: object) -> None:
        nonlocal found
        found += event == "call"

    sys.setprofile(called)
    try:
        program(Sink(), count)
    finally:
        sys.setprofile(None)
    return found


def test_what_others_stand_on_is_sent_first_and_once() -> None:
    """All nexthop objects in one send, all routes in another."""
    sink = Sink()
    program(sink, 50)
    assert sink.sent == [50, 50]


def test_gathering_takes_as_long_as_there_is_much_to_gather() -> None:
    """Twice the peers are twice the work, not four times: a start beside 5,000 of them took ten seconds."""
    assert steps(200) < 2.5 * steps(100)
