"""The allocator, case by case: what is given, what is refused and in which words."""

from __future__ import annotations

import re
import time

import pytest
from netaddr import IPAddress, IPNetwork

from cni.errors import ConfigInvalid, Exhausted, StateCorrupt, TryAgain
from cni.spec import Attachment
from ipam.allocator import Allocator
from ipam.family import Counts, Family
from ipam.lease import Block, Lease, Leased

COOLDOWN = 30.0


def block(cidr: str, owner: str = "node-a", reserve: bool = True) -> Block:
    return Block(IPNetwork(cidr), owner, reserve)


def pod(number: int, network: str = "pods") -> Attachment:
    return Attachment(network, f"container{number}", "eth0")


def allocator(*cidrs: str) -> Allocator:
    fresh = Allocator(COOLDOWN)
    fresh.offer({block(cidr) for cidr in cidrs})
    return fresh


def given(lease: Lease) -> list[str]:
    return [str(address) for address in lease.addresses]


def drain(pool: Allocator, now: float = 0.0) -> list[str]:
    """Every address that can still be given, in the order in which it is given."""
    addresses: list[str] = []
    while True:
        try:
            addresses += given(pool.allocate(pod(1000 + len(pool.leases)), now))
        except (Exhausted, TryAgain):
            return addresses


def test_dual_stack_lease_has_one_address_per_family_ipv4_first() -> None:
    """A node with blocks of both families gives each attachment one address of each, IPv4 first."""
    lease = allocator("fd00:1::/64", "10.1.0.0/24").allocate(pod(1), 0.0)
    assert given(lease) == ["10.1.0.1", "fd00:1::1"]
    assert [one.block for one in lease.leased] == [block("10.1.0.0/24"), block("fd00:1::/64")]


def test_same_attachment_gets_its_lease_again() -> None:
    """Allocating twice for one attachment gives the same lease and takes nothing more."""
    pool = allocator("10.1.0.0/24")
    assert pool.allocate(pod(1), 0.0) is pool.allocate(pod(1), 5.0)
    assert pool.counts(5.0)[0].used == 1


def test_one_container_on_two_networks_holds_two_addresses() -> None:
    """Two attachments of one container are two leases: releasing one leaves the other."""
    pool = allocator("10.1.0.0/24")
    one, other = pool.allocate(pod(1, "pods"), 0.0), pool.allocate(pod(1, "storage"), 0.0)
    assert given(one) == ["10.1.0.1"] and given(other) == ["10.1.0.2"]
    assert pool.release(pod(1, "pods"), 1.0) == one
    assert dict(pool.leases) == {pod(1, "storage"): other}


@pytest.mark.parametrize(
    ("cidr", "addresses"),
    [
        ("10.1.0.0/29", [f"10.1.0.{host}" for host in range(1, 7)]),
        ("10.1.0.0/30", ["10.1.0.1", "10.1.0.2"]),
        ("10.1.0.0/31", ["10.1.0.0", "10.1.0.1"]),
        ("10.1.0.7/32", ["10.1.0.7"]),
        ("fd00::/126", ["fd00::1", "fd00::2"]),
        ("fd00::/127", ["fd00::", "fd00::1"]),
        ("fd00::/128", ["fd00::"]),
        ("0.0.0.0/31", ["0.0.0.0", "0.0.0.1"]),
    ],
)
def test_reserved_addresses_are_never_given(cidr: str, addresses: list[str]) -> None:
    """A subnet gives all its addresses but the first and the last; the smallest ones are whole."""
    assert drain(allocator(cidr)) == addresses


def test_block_of_plain_addresses_is_given_whole() -> None:
    """A source that handed out 16 addresses, and no subnet, has 16 to give."""
    pool = Allocator(COOLDOWN)
    pool.offer({block("10.1.0.16/28", "eni-1", reserve=False)})
    assert drain(pool) == [f"10.1.0.{host}" for host in range(16, 32)]


def test_released_address_is_not_given_before_its_cooldown_ends() -> None:
    """With only cooling addresses left ADD says so, with counts and the wait; the moment it is over they are given."""
    pool = allocator("10.1.0.0/30")
    for number in (1, 2):
        pool.allocate(pod(number), 0.0)
    pool.release(pod(2), 100.0)
    with pytest.raises(TryAgain) as caught:
        pool.allocate(pod(3), 117.5)
    assert str(caught.value) == (
        "no free IPv4 address for pods/container3/eth0: 1 of 2 addresses in use, 1 cooling down: "
        "next free in 13 s (block 10.1.0.0/30)"
    )
    assert given(pool.allocate(pod(3), 130.0)) == ["10.1.0.2"]


def test_full_pool_says_what_to_do() -> None:
    """With every address in use, waiting is no help: Exhausted names the blocks, three at most, and the remedy."""
    pool = allocator("10.1.0.0/32", "10.1.0.2/32", "10.1.0.4/32", "10.1.0.6/32", "10.1.0.8/32")
    assert len(drain(pool)) == 5
    with pytest.raises(Exhausted) as caught:
        pool.allocate(pod(3), 0.0)
    assert caught.value.message == (
        "no free IPv4 address for pods/container3/eth0: 5 of 5 addresses in use "
        "in 10.1.0.0/32, 10.1.0.2/32, 10.1.0.4/32 and 2 more"
    )
    assert "larger or a further block" in caught.value.details


def test_no_block_at_all_is_worth_a_retry() -> None:
    """Before any block is offered ADD is told to try again, and why."""
    with pytest.raises(TryAgain, match="no block of pod addresses"):
        Allocator(COOLDOWN).allocate(pod(1), 0.0)


def test_never_used_addresses_come_before_least_recently_released() -> None:
    """Long after every cool-down, unused addresses still come first, then the releases in their order."""
    pool = allocator("10.1.0.0/29")
    for number in (1, 2, 3):
        pool.allocate(pod(number), 0.0)
    for number, when in ((2, 10.0), (3, 20.0), (1, 30.0)):
        pool.release(pod(number), when)
    assert drain(pool, 1000.0) == [f"10.1.0.{host}" for host in (4, 5, 6, 2, 3, 1)]


def test_one_family_failing_takes_nothing_of_the_other() -> None:
    """All or nothing: with IPv6 used up, an ADD leaves the IPv4 addresses as they were."""
    pool = allocator("10.1.0.0/24", "fd00::/128")
    pool.allocate(pod(1), 0.0)
    before = pool.counts(0.0)
    with pytest.raises(Exhausted, match="no free IPv6 address"):
        pool.allocate(pod(2), 0.0)
    assert pool.counts(0.0) == before and pod(2) not in pool.leases


def test_wanted_address_is_given_when_ours_and_free() -> None:
    """A requested address is given; the family that was not asked for is filled as usual."""
    pool = allocator("10.1.0.0/24", "fd00::/64")
    lease = pool.allocate(pod(1), 0.0, [IPAddress("fd00::ffff:ffff:ffff:fffe")])
    assert given(lease) == ["10.1.0.1", "fd00::ffff:ffff:ffff:fffe"]
    pool.release(pod(1), 1.0)
    assert given(pool.allocate(pod(2), 31.0, [IPAddress("10.1.0.1")]))[0] == "10.1.0.1"


@pytest.mark.parametrize(
    ("wanted", "failure", "words"),
    [
        (["10.2.0.1"], ConfigInvalid, "10.2.0.1 is not an address of this node: it has 10.1.0.0/24"),
        (["fd00::1"], ConfigInvalid, "fd00::1 is not an address of this node: it has no IPv6 block"),
        (["10.1.0.0"], ConfigInvalid, "10.1.0.0 is reserved in block 10.1.0.0/24: a subnet's first and last address"),
        (["10.1.0.255"], ConfigInvalid, "10.1.0.255 is reserved in block 10.1.0.0/24"),
        (["10.1.0.8", "10.1.0.9"], ConfigInvalid, "asks for two IPv4 addresses"),
        (["10.1.0.1"], Exhausted, "10.1.0.1 is in use by pods/container1/eth0"),
        (["10.1.0.2"], TryAgain, "its cool-down ends in 20 s"),
    ],
)
def test_wanted_address_is_refused_by_name(wanted: list[str], failure: type[Exception], words: str) -> None:
    """A requested address that cannot be had is an error that says why, and takes nothing."""
    pool = allocator("10.1.0.0/24")
    for number in (1, 2):
        pool.allocate(pod(number), 0.0)
    pool.release(pod(2), 0.0)
    with pytest.raises(failure, match=re.escape(words)):
        pool.allocate(pod(3), 10.0, [IPAddress(address) for address in wanted])
    assert list(pool.leases) == [pod(1)]


def test_leases_outlive_their_block() -> None:
    """When a block goes, its leases stay; released meanwhile, their addresses cool down in whatever block returns."""
    pool = allocator("10.1.0.0/29")
    lease = pool.allocate(pod(1), 0.0)
    pool.allocate(pod(2), 0.0)
    pool.offer({block("10.2.0.0/31")})
    assert pool.leases[pod(1)] == lease
    assert given(pool.allocate(pod(3), 0.0)) == ["10.2.0.0"]
    pool.release(pod(1), 50.0)
    pool.offer({block("10.1.0.0/30", "node-b")})
    assert pool.counts(60.0) == [Counts(block("10.1.0.0/30", "node-b"), 2, used=1, cooling=1, free=0)]
    assert drain(pool, 60.0) == []
    assert drain(pool, 80.0) == ["10.1.0.1"]


def test_overlapping_blocks_are_refused_as_a_whole() -> None:
    """Blocks that overlap are an error that names both, and what was offered before stays."""
    pool = allocator("10.1.0.0/31")
    with pytest.raises(ValueError, match=r"10\.2\.0\.0/24 of node-a and 10\.2\.0\.128/25 of node-b"):
        pool.offer({block("10.2.0.0/24"), block("10.2.0.128/25", "node-b"), block("fd00::/64")})
    assert drain(pool) == ["10.1.0.0", "10.1.0.1"]


def test_release_of_nothing_is_no_error() -> None:
    """DEL may come twice: releasing what is not there answers None."""
    assert allocator("10.1.0.0/24").release(pod(1), 0.0) is None


def test_clock_set_back_starts_the_cooldown_anew_at_most() -> None:
    """After the clock was set back by a day an address waits one cool-down from then, not a day."""
    day = 86_400.0
    pool = allocator("10.1.0.0/31")
    for number in (1, 2):
        pool.allocate(pod(number), day)
    pool.release(pod(2), day)
    pool.release(pod(1), day + 1)
    with pytest.raises(TryAgain, match="next free in 30 s"):
        pool.allocate(pod(3), 0.0)
    assert drain(pool, 30.0) == ["10.1.0.1", "10.1.0.0"]


def test_restored_allocator_continues_where_the_other_stopped() -> None:
    """After a restart leases are held, cool-downs run on, and the order of reuse is the order of release."""
    pool = allocator("10.1.0.0/29")
    leases = [Lease(pod(1), (Leased(IPAddress("10.1.0.2"), block("10.1.0.0/29")),))]
    times = {"10.1.0.6": 5.0, "10.1.0.1": 90.0, "10.1.0.5": 3.0, "10.1.0.3": 4.0}
    pool.restore(leases, {IPAddress(address): when for address, when in times.items()})
    assert dict(pool.leases) == {pod(1): leases[0]}
    assert drain(pool, 100.0) == ["10.1.0.4", "10.1.0.5", "10.1.0.3", "10.1.0.6"]
    assert drain(pool, 120.0) == ["10.1.0.1"]


def test_restore_refuses_an_address_leased_twice() -> None:
    """Saved leases that contradict each other are not guessed about."""
    leased = (Leased(IPAddress("10.1.0.2"), block("10.1.0.0/29")),)
    with pytest.raises(StateCorrupt, match=r"10\.1\.0\.2 is leased to both pods/container1/eth0 and pods/con"):
        allocator("10.1.0.0/29").restore([Lease(pod(1), leased), Lease(pod(2), leased)], {})


def test_huge_block_forgets_what_has_cooled_down_and_still_finds_it() -> None:
    """A block too large to remember holds only cooling releases, and goes round to forgotten ones in the end."""
    family = Family(4, COOLDOWN, exact=4)
    family.offer([block("10.1.0.0/29", reserve=False)])
    first = int(IPAddress("10.1.0.0"))
    seen: list[int] = []
    for turn in range(20):
        value = family.next(turn * 10.0)
        assert value is not None
        family.take(value, pod(turn))
        family.give_back(value, turn * 10.0)
        seen.append(value - first)
        assert len(family.released) <= 3
    assert seen == [turn % 8 for turn in range(20)]


def test_huge_block_goes_on_after_what_it_forgot() -> None:
    """A /64 gives new addresses rather than forgotten ones, also when other blocks come and go."""
    pool = allocator("fd00::/64")
    pool.allocate(pod(1), 0.0)
    pool.release(pod(1), 0.0)
    assert given(pool.allocate(pod(2), 100.0)) == ["fd00::2"]
    pool.release(pod(2), 100.0)
    pool.offer({block("fd00::/64"), block("fd00:1::/64")})
    assert given(pool.allocate(pod(3), 200.0)) == ["fd00::3"]


def test_huge_block_goes_on_after_a_restart() -> None:
    """A restored /64 continues after the highest address that it knows."""
    pool = allocator("fd00::/64")
    pool.restore([], {IPAddress("fd00::7"): 0.0, IPAddress("fd00::5"): 1.0})
    assert given(pool.allocate(pod(1), 100.0)) == ["fd00::8"]


def test_large_pools_are_not_walked_through() -> None:
    """With 60,000 leases in a /16, beside a /64, 6,000 ADDs and DELs take far less CPU than walks would."""
    pool = allocator("10.0.0.0/16", "fd00::/64")
    leases = [
        Lease(pod(n), (Leased(IPAddress(int(IPAddress("10.0.0.1")) + n), block("10.0.0.0/16")),))
        for n in range(60_000)
    ]
    pool.restore(leases, {})
    begun = time.process_time()
    for turn in range(6_000):
        pool.release(pod(turn), float(turn))
        pool.allocate(pod(100_000 + turn), float(turn))
    assert time.process_time() - begun < 5.0
    assert pool.counts(6_000.0)[0].used == 60_000


def test_a_cancelled_lease_leaves_its_address_free_at_once() -> None:
    """An address that never reached a pod does not cool down, even as the last one of its block."""
    allocator = Allocator(cooldown=30.0)
    allocator.offer({Block(IPNetwork("10.0.0.0/30"), "node")})
    first = allocator.allocate(Attachment("net", "a", "eth0"), 0.0)
    allocator.allocate(Attachment("net", "b", "eth0"), 0.0)
    allocator.cancel(Attachment("net", "a", "eth0"))
    allocator.cancel(Attachment("net", "a", "eth0"))
    (counts,) = allocator.counts(0.0)
    assert (counts.used, counts.cooling, counts.free) == (1, 0, 1)
    assert allocator.allocate(Attachment("net", "c", "eth0"), 0.0).addresses == first.addresses


def test_what_is_held_or_not_ours_cannot_be_taken() -> None:
    """Whoever counts wrong ends with an error, before two pods have one address."""
    family = Family(4, COOLDOWN)
    family.offer([block("10.1.0.0/29")])
    taken = int(IPAddress("10.1.0.2"))
    family.take(taken, pod(1))
    for value in (taken, int(IPAddress("10.2.0.2"))):
        with pytest.raises(ValueError, match="is held already or not in an offered block"):
            family.take(value, pod(2))
    assert family.holders == {taken: pod(1)}


def test_of_blocks_that_went_only_cooling_releases_are_remembered_for_ever() -> None:
    """A block comes and goes, as a cloud's: what has cooled down is forgotten beyond a bound, what has not is not."""
    family = Family(4, COOLDOWN, exact=2)
    values = [int(IPAddress(f"10.1.0.{number}")) for number in range(6)]
    family.offer([block("10.1.0.0/29", reserve=False)])
    for value in values:
        family.take(value, pod(value))
    family.offer([])
    for number, value in enumerate(values):
        family.give_back(value, number * 10.0)
    family.offer([block("10.1.0.0/29", reserve=False)])
    assert list(family.released) == values[3:]
