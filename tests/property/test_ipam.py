"""The laws of address management on random walks: allocator and store together, against a model of lists and sets."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from netaddr import IPAddress, IPNetwork

from cni.errors import ConfigInvalid, Exhausted, TryAgain
from cni.spec import Attachment
from ipam.allocator import Allocator
from ipam.lease import Block
from ipam.moment import Moment
from ipam.store import Record, Store

COOLDOWN = 30.0
BLOCKS = (
    Block(IPNetwork("10.0.0.0/30"), "node"),
    Block(IPNetwork("10.0.0.4/31"), "eni-1", reserve=False),
    Block(IPNetwork("10.0.1.0/30"), "eni-2", reserve=False),
    Block(IPNetwork("fd00::/126"), "node"),
    Block(IPNetwork("fd00:1::/128"), "node"),
)
NOBODY = Attachment("none", "none", "none")
OFFERS = st.sets(st.sampled_from(BLOCKS))
WHO = st.builds(Attachment, st.sampled_from(["pods", "storage"]), st.sampled_from("abcde"), st.just("eth0"))
# Several at a time, so that walks get to full blocks and to long queues of released addresses.
CROWD = st.lists(WHO, min_size=1, max_size=8, unique=True)
WANTED = st.sampled_from([address for block in BLOCKS for address in block.network])


def usable(block: Block) -> set[IPAddress]:
    """Every address that a small block has to give, spelled out."""
    addresses = list(block.network)
    if not block.reserve or len(addresses) <= 2:
        return set(addresses)
    return set(addresses[1:-1])


class Walk(RuleBasedStateMachine):
    """ADDs, DELs, changes of the blocks and of the clock, restarts and reboots, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.boot = 1
        self.now = 1000.0
        self.wrong = 0.0
        """Seconds by which the wall clock is wrong."""
        self.blocks: set[Block] = set()
        self.records: dict[Attachment, Record] = {}
        self.released: dict[IPAddress, float] = {}
        self.told: dict[IPAddress, float] = {}
        """The releases of addresses that nobody was given since: what the store knows."""
        self.store = self.opened()
        self.pool = Allocator(COOLDOWN)

    def opened(self) -> Store:
        return Store(Path(self.folder.name) / "routable.db", f"boot-{self.boot}", self.moment())

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()

    # The model: which addresses are held, which are cooling, and which may be given next.

    def held(self) -> set[IPAddress]:
        return {address for record in self.records.values() for address in record.lease.addresses}

    def cooling(self) -> set[IPAddress]:
        return {address for address, when in self.released.items() if self.now - when < COOLDOWN}

    def candidates(self, family: int) -> set[IPAddress]:
        """Never used ones if there are any, else those that were released first and have cooled down; of blocks that
        nobody has an address of only if there is none in another."""
        blocks = [set(usable(block)) for block in self.blocks if block.family == family]
        offered = set().union(*blocks)
        begun = set().union(*(block for block in blocks if block & self.held()))
        if unused := offered - self.held() - self.released.keys():
            return unused & begun or self.released_first(begun) or unused
        return self.released_first(offered)

    def released_first(self, offered: set[IPAddress]) -> set[IPAddress]:
        """Of *offered* those that were released first, of those that have cooled down."""
        waiting = (offered & self.released.keys()) - self.cooling()
        first = min((self.released[address] for address in waiting), default=0.0)
        return {address for address in waiting if self.released[address] == first}

    def end(self, record: Record) -> None:
        for address in record.lease.addresses:
            self.released[address] = self.told[address] = self.now

    # The walk.

    @initialize(blocks=OFFERS)
    def start(self, blocks: set[Block]) -> None:
        self.offer(blocks)

    @rule(blocks=OFFERS)
    def offer(self, blocks: set[Block]) -> None:
        self.blocks = blocks
        self.pool.offer(blocks)

    @rule(crowd=CROWD)
    def add(self, crowd: list[Attachment]) -> None:
        for who in crowd:
            self.add_one(who, [])

    @rule(who=WHO, wanted=WANTED)
    def add_wanted(self, who: Attachment, wanted: IPAddress) -> None:
        self.add_one(who, [wanted])

    def add_one(self, who: Attachment, wanted: list[IPAddress]) -> None:
        if who in self.records:
            assert self.pool.allocate(who, self.now, wanted) == self.records[who].lease
            return
        families = sorted({block.family for block in self.blocks})
        allowed = {family: self.candidates(family) for family in families}
        for address in wanted:
            free = {address} & {one for block in self.blocks for one in usable(block)}
            allowed[address.version] = free - self.held() - self.cooling()
        if not allowed or not families or not all(allowed.values()):
            with pytest.raises((ConfigInvalid, Exhausted, TryAgain)):
                self.pool.allocate(who, self.now, wanted)
            return
        lease = self.pool.allocate(who, self.now, wanted)
        assert [address.version for address in lease.addresses] == families
        assert all(address in allowed[address.version] for address in lease.addresses)
        assert all(one.block in self.blocks and one.address in usable(one.block) for one in lease.leased)
        self.records[who] = Record(lease, f"/run/netns/{who.container}", "02:00:00:00:00:01", 1450, "", self.moment())
        self.store.save(self.records[who])
        for address in lease.addresses:
            self.released.pop(address, None)
            self.told.pop(address, None)

    @rule(crowd=CROWD, pause=st.sampled_from([0.0, 3.0]))
    def delete(self, crowd: list[Attachment], pause: float) -> None:
        for who in crowd:
            self.now += pause
            self.delete_one(who)

    def delete_one(self, who: Attachment) -> None:
        record = self.records.pop(who, None)
        assert self.store.drop([who], self.moment()) == len(record.lease.addresses if record else ())
        assert self.pool.release(who, self.now) == (record.lease if record else None)
        if record:
            self.end(record)

    @rule(seconds=st.sampled_from([0.5, 7.0, 29.5, 30.0, 100.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(seconds=st.sampled_from([-500.0, -20.0, 0.5, 86_400.0]))
    def set_clock(self, seconds: float) -> None:
        self.wrong += seconds

    def moment(self) -> Moment:
        return Moment(self.now, self.now + self.wrong)

    @rule(does_reboot=st.booleans(), offers_first=st.booleans(), prunes=st.booleans())
    def restart(self, does_reboot: bool, offers_first: bool, prunes: bool) -> None:
        self.store.close()
        ended = list(self.records.values()) if does_reboot else []
        for record in ended:
            del self.records[record.lease.who]
        if does_reboot:
            self.boot += 1
            self.released = dict.fromkeys(self.released, 0.0)
            self.told = dict.fromkeys(self.told, 0.0)
            self.now = 1.0
        for record in ended:
            self.end(record)
        self.store = self.opened()
        assert self.store.dropped == len(ended)
        if prunes:
            self.store.prune(self.moment().wall)
        assert self.store.load() == list(self.records.values())
        assert self.store.released() == self.told
        self.pool = Allocator(COOLDOWN)
        if offers_first:
            self.pool.offer(self.blocks)
        self.pool.restore((record.lease for record in self.store.load()), self.store.released())
        if not offers_first:
            self.pool.offer(self.blocks)
        self.released = dict(self.told)

    # What always holds.

    @invariant()
    def no_address_is_leased_twice(self) -> None:
        addresses = [address for lease in self.pool.leases.values() for address in lease.addresses]
        assert len(addresses) == len(set(addresses))
        assert not self.cooling() & set(addresses)

    @invariant()
    def leases_are_the_saved_ones_in_order(self) -> None:
        assert list(self.pool.leases.values()) == [record.lease for record in self.records.values()]

    @invariant()
    def counts_add_up(self) -> None:
        counts = self.pool.counts(self.now)
        assert {one.block for one in counts} == self.blocks and len(counts) == len(self.blocks)
        for one in counts:
            addresses = usable(one.block)
            assert one.used + one.cooling + one.free == one.total == len(addresses)
            assert one.used == len(addresses & self.held())
            assert one.cooling == len(addresses & self.cooling())


TestWalk = Walk.TestCase
TestWalk.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


@given(order=st.permutations(range(6)), pause=st.floats(0.0, 20.0))
def test_addresses_are_reused_in_the_order_of_their_release(order: list[int], pause: float) -> None:
    """When a full block is emptied in any order, however fast, it is filled again in exactly that order."""
    pool = Allocator(COOLDOWN)
    pool.offer({Block(IPNetwork("10.0.0.0/29"), "node")})
    leases = [pool.allocate(Attachment("pods", f"pod{number}", "eth0"), 0.0) for number in range(6)]
    for turn, number in enumerate(order):
        pool.release(leases[number].who, turn * pause)
    again = [pool.allocate(Attachment("pods", f"again{number}", "eth0"), 1000.0) for number in range(6)]
    assert [lease.addresses for lease in again] == [leases[number].addresses for number in order]
