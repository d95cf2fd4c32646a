"""What this node's Node shall say: after what lasted, and in words that do not change."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from netaddr import IPNetwork

from agent.announce.wishes import LASTS, OVER, PRESSURE, Wishes
from agent.config.schema import KubernetesTable
from agent.tell.trouble import Kind, Trouble
from cluster.ownnode import DOWN, NETWORK, UP, Wish, quantity
from cni.errors import Exhausted, NotReady
from ipam.family import Counts
from ipam.lease import Block

FATAL = Trouble(Kind.WIRING, NotReady("no node is named node-a"), is_fatal=True, bars_adds=True)
FULL = Trouble(Kind.POOL, Exhausted("no free IPv4 address", "run fewer pods"), bars_adds=True)


class World:
    """What is wrong, on a clock that the test sets."""

    def __init__(self, *blocks: str, **table: object) -> None:
        self.now = 1000.0
        self.troubles: Sequence[Trouble] = ()
        networks = [IPNetwork(one) for one in blocks]
        self.counts = [Counts(Block(one, "n"), one.size - 2, 0, 0, one.size - 2) for one in networks]
        made = KubernetesTable(announce=True, **table)  # type: ignore[arg-type]
        self.wishes = Wishes(made, lambda: self.troubles, lambda: self.counts, lambda: self.now)

    def after(self, seconds: float, *troubles: Trouble) -> Wish | None:
        """What is wished when these were wrong for so long, looked at each second."""
        self.troubles = troubles
        wish = self.wishes.now()
        for _ in range(int(seconds)):
            self.now += 1.0
            wish = self.wishes.now()
        return wish


def said(wish: Wish | None) -> dict[str, tuple[str, str]]:
    """Its conditions."""
    assert wish is not None
    return {one.type: (one.status, one.reason) for one in wish.conditions}


WELL = {NETWORK: ("False", UP), PRESSURE: ("False", "HasFreeAddresses")}


def test_a_node_that_begins_well() -> None:
    """It says so at once, and has its taint taken away; what becomes wrong for less than half a minute is not said."""
    world = World()
    wish = world.after(0)
    assert wish is not None
    assert said(wish) == WELL
    assert (wish.taint, wish.capacity) == ("routable.io/agent-not-ready", ())
    assert world.after(LASTS - 1, FATAL) == wish
    assert world.after(0) == wish
    assert world.after(LASTS - 1, FATAL, FULL) == wish


def test_a_node_that_cannot_serve() -> None:
    """It says so when that lasted, why, and nothing of a taint; and at once when it is over. One that begins so says
    nothing before that."""
    world = World()
    assert world.after(LASTS - 1, FATAL) is None
    wish = world.after(1, FATAL)
    assert wish is not None
    assert said(wish) == {NETWORK: ("True", DOWN)}
    assert "no node is named node-a" in wish.conditions[0].message
    assert wish.taint == ""
    assert said(world.after(0)) == WELL


def test_a_pool_that_is_full() -> None:
    """It is said when it lasted, and until there were addresses for a minute: pods that come and go cost no word."""
    world = World()
    world.after(0)
    assert said(world.after(LASTS - 1, FULL)) == WELL
    full = world.after(1, FULL)
    assert said(full) == {**WELL, PRESSURE: ("True", "NoFreeAddress")}
    assert said(world.after(OVER - 1)) == said(full)
    assert said(world.after(10, FULL)) == said(full)
    assert said(world.after(OVER - 1)) == said(full)
    assert said(world.after(1)) == WELL


@pytest.mark.parametrize(
    ("blocks", "number"),
    [
        (("10.1.1.0/24",), "254"),
        (("10.1.1.0/24", "10.1.2.0/25"), "380"),
        (("10.1.1.0/24", "2001:db8::/64"), "254"),
        (("2001:db8::/64",), "1M"),
        ((), "0"),
    ],
)
def test_addresses_are_said_as_a_resource(blocks: tuple[str, ...], number: str) -> None:
    """As many as pods can have, of the family with fewer; where that is wished, under the name that is."""
    wish = World(*blocks, advertise_capacity=True, capacity="example.com/ips", taint="").after(0)
    assert wish is not None
    assert (wish.taint, wish.capacity) == ("", (("example.com/ips", number),))


def test_numbers_are_written_as_the_api_writes_them() -> None:
    """In their largest unit: else each look would find a difference."""
    assert [quantity(one) for one in (0, 1, 999, 1000, 1022, 2500, 16_000, 3_000_000)] == [
        *("0", "1", "999", "1k", "1022", "2500", "16k", "3M"),
    ]
    assert quantity(10**15) == "1000T"
