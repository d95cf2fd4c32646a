"""What a wiring remembers of the peers changes nothing of its answer: any walk over lists ends as from the start."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from netaddr import IPAddress, IPNetwork

from backends import nodeplan
from backends.site import Options, Site
from backends.static.wiring import StaticWiring
from backends.vxlan.wiring import VxlanWiring
from backends.wiring import Wiring
from cluster.peers import Peer
from dataplane.items import Nexthop
from dataplane.uplink import Uplink

HERE = Peer("here", (IPAddress("192.0.2.1"),), (IPNetwork("10.1.0.0/24"), IPNetwork("2001:db8:1::/64")))
SITE = Site(HERE, Uplink("eth0", 1500, (IPNetwork("192.0.2.1/24"),)), Options())


def peer(name: str, address: int, cidr: int) -> Peer:
    """One whose address or pods may be another's too, or off the segment."""
    network = "192.0.2" if address else "198.51.100"
    cidrs = IPNetwork(f"10.2.{cidr}.0/24"), IPNetwork(f"2001:db8:2:{cidr}::/64")
    return Peer(name, (IPAddress(f"{network}.{address + 1}"),), cidrs)


LISTED = [(1, "abc"), (2, "abcdef"), (3, "a"), (4, "bcd")]
PEERS = st.builds(peer, st.sampled_from("abcdef"), st.integers(0, 4), st.integers(0, 9))
LISTS = st.lists(PEERS, unique_by=lambda one: one.name).map(lambda peers: frozenset((HERE, *peers)))


@pytest.mark.parametrize("ids", [1 << 30, 3], ids=["ids apart", "ids collide"])
@pytest.mark.parametrize("factory", [StaticWiring, VxlanWiring])
@settings(max_examples=150)
@given(walk=st.lists(LISTS, min_size=2, max_size=5))
def test_any_walk_ends_as_from_the_start(
    factory: Callable[[Site], Wiring], ids: int, walk: list[frozenset[Peer]]
) -> None:
    """Peers come, go, change, get into each other's way and out of it."""
    with pytest.MonkeyPatch.context() as patch:
        natural = nodeplan.nexthop_id
        patch.setattr(nodeplan, "nexthop_id", lambda name, family: natural(name, family) % ids + 1)
        wiring = factory(SITE)
        for peers in walk:
            answer = wiring.node(peers)
        assert answer == factory(SITE).node(peers)
        for key, item in answer.plan.items():
            assert item.key == key


def test_any_thread_may_ask() -> None:
    """The pass and a change of backend do, for different lists at once: each gets its own answer."""
    lists = [
        frozenset([HERE, *(peer(f"{name}{number}", number, at) for at, name in enumerate(names))])
        for number, names in LISTED
    ]
    wanted = {peers: StaticWiring(SITE).node(peers) for peers in lists}
    wiring = StaticWiring(SITE)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(len(lists)) as pool:
            asked = [pool.submit(wiring.node, peers) for _ in range(100) for peers in lists]
            found = [one.result(30.0) for one in asked]
    finally:
        sys.setswitchinterval(before)
    assert found == [wanted[peers] for _ in range(100) for peers in lists]


def test_one_who_comes_alone_may_be_in_anothers_way() -> None:
    """The range or the nexthop of one who is there, or an id that another program has: then all is worked out anew."""
    first, second = peer("a", 1, 1), peer("b", 2, 2)
    for taken, third, is_there in (
        (frozenset[int](), peer("c", 3, 3), True),
        (frozenset[int](), peer("c", 3, 1), False),
        (frozenset(nodeplan.natural_ids(peer("c", 3, 3)).values()), peer("c", 3, 3), True),
    ):
        site = replace(SITE, taken=taken)
        wiring = StaticWiring(site)
        wiring.node({HERE, first, second})
        answer = wiring.node({HERE, first, second, third})
        assert answer == StaticWiring(site).node({HERE, first, second, third})
        assert any("10.2.3.0/24" in str(one) for one in answer.plan.values()) is is_there
        assert taken.isdisjoint(item.id for item in answer.plan.values() if isinstance(item, Nexthop))
