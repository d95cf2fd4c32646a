"""The node at random: requests, vanishing namespaces, drift, restarts and a lost store, in any order.

After every pass: want equals have, leases and links belong together, no address is anybody's twice.
"""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from netaddr import IPAddress

from agent.node.ledger import Asked
from agent.node.node import Removed
from cni.errors import Exhausted, InterfaceExists, TryAgain, UnknownContainer
from cni.spec import Attachment
from dataplane.items import HOST
from ipam.store import Record
from tests.fakes.world import COOLDOWN, World

NETNS = [f"/run/netns/{letter}" for letter in "abcd"]
NETWORKS = ["pods", "others"]
IFNAMES = ["eth0", "eth0", "net1"]
WHERE = st.tuples(st.sampled_from(NETNS), st.sampled_from(NETWORKS), st.sampled_from(IFNAMES))
"""A pod, and what it is attached to by which interface."""
WAYS = set[str]()
"""Which of them walks went."""


class Walk(RuleBasedStateMachine):
    """Few namespaces and names, so that requests meet."""

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory()
        self.world = World(Path(self._directory.name))
        self.alive: set[str] = set()
        self.attached: dict[Attachment, str] = {}
        self.released: dict[str, float] = {}
        self.restored: set[Attachment] = set()
        self.is_history_lost = False
        self.went: set[str] = set()
        """Which ways."""

    def teardown(self) -> None:
        self.world.close()
        self._directory.cleanup()
        WAYS.update(self.went)

    def netns(self, path: str) -> None:
        if path not in self.alive:
            self.world.kernel.add_netns(path)
            self.alive.add(path)

    @initialize()
    def start(self) -> None:
        self.netns(NETNS[0])

    @rule(where=WHERE, has_default=st.booleans(), asks=st.sampled_from(["", "", "", "held", "released", "unused"]))
    def add(self, where: tuple[str, str, str], has_default: bool, asks: str) -> None:
        """ADD gives what is asked for or else what was free, or says why not; one in the way of another's interface
        changes nothing."""
        path, network, ifname = where
        self.netns(path)
        who = Attachment(network, path[-1], ifname)
        is_occupied = any(at == path and other.ifname == ifname for other, at in self.attached.items())
        wanted = self.addresses(asks)
        beside = frozenset[int]() if has_default else frozenset((4, 6))
        is_completed = is_occupied and who in self.restored
        before = self.world.node.ledger.record(who)
        try:
            record = self.world.add(who, path, Asked("", wanted, beside=beside))
        except InterfaceExists:
            self.went.add("met an interface")
            assert is_occupied
            assert not is_completed
            return
        except (Exhausted, TryAgain) as failure:
            self.went.add(f"{type(failure).__name__} {asks}".strip())
            assert len(self.attached) + len(self.released) >= 1
            if before is not None:  # all or nothing: it had another address than it asks for now
                self._ended(before)
            return
        # An ADD that an earlier process may not have answered is completed instead of refused.
        assert not is_occupied or is_completed
        self.restored.discard(who)
        self.went.add("completed" if is_completed else f"added {ifname} {asks}".strip())
        assert {*wanted} <= {*record.lease.addresses}
        if before is not None and before.lease != record.lease:
            self._ended(before)
        if who not in self.attached:
            self._begun(record, path)

    def addresses(self, asks: str) -> list[IPAddress]:
        """One that is *held*, or was *released*, or perhaps never used."""
        held = [str(record.lease.addresses[0]) for record in self.world.node.ledger.records().values()]
        found = {"held": held, "released": [one for one in self.released if "." in one], "unused": ["10.1.1.9"]}
        return [IPAddress(one) for one in found.get(asks, [])[-1:]]

    def _begun(self, record: Record, path: str) -> None:
        for address in record.lease.addresses:
            since = self.released.pop(str(address), -COOLDOWN)
            assert self.world.now - since >= COOLDOWN, "an address in cool-down was given"
        self.attached[record.lease.who] = path

    @rule(where=WHERE, is_added_again=st.booleans())
    def delete(self, where: tuple[str, str, str], is_added_again: bool) -> None:
        """DEL always succeeds, known or not; what was released cools down."""
        path, network, ifname = where
        who = Attachment(network, path[-1], ifname)
        is_attached = who in self.attached
        if is_attached:
            self._release(who)
        assert self.world.node.delete(who) == is_attached
        if is_added_again:
            self.add(where, True, "released")

    @rule(wheres=st.lists(WHERE))
    def delete_together(self, wheres: list[tuple[str, str, str]]) -> None:
        """Many DELs at once end as one by one."""
        whos = [Attachment(network, path[-1], ifname) for path, network, ifname in wheres]
        attached = set(whos) & self.attached.keys()
        for who in attached:
            self._release(who)
        assert self.world.node.begin_removal(whos)() == {who: Removed(who in attached) for who in whos}

    @rule(keep=st.sets(st.tuples(st.sampled_from(NETNS), st.sampled_from(IFNAMES))), network=st.sampled_from(NETWORKS))
    def collect(self, keep: set[tuple[str, str]], network: str) -> None:
        """GC takes what is not listed, on its network, and nothing that came after it."""
        before = self.world.node.ledger.sequence
        valid = {(path[-1], ifname) for path, ifname in keep}
        mine = [(who, path) for who, path in self.attached.items() if who.network == network]
        stale = {who for who, path in mine if (path, who.ifname) not in keep}
        for who in stale:
            self._release(who)
        assert set(self.world.node.collect(network, valid, before)) == stale

    @rule(network=st.sampled_from(NETWORKS))
    def collect_late(self, network: str) -> None:
        """A GC that arrived before every ADD of this process takes at most what an earlier process left."""
        stale = {who for who in self.attached if who.network == network and who in self.restored}
        for who in stale:
            self._release(who)
        assert set(self.world.node.collect(network, set(), 0)) == stale

    def _release(self, who: Attachment) -> None:
        record = self.world.node.ledger.record(who)
        assert record is not None
        self._ended(record)

    def _ended(self, record: Record) -> None:
        self.released |= {str(address): self.world.now for address in record.lease.addresses}
        self.attached.pop(record.lease.who)
        self.restored.discard(record.lease.who)

    @rule(where=WHERE)
    def check(self, where: tuple[str, str, str]) -> None:
        """CHECK succeeds exactly for what is attached."""
        path, network, ifname = where
        who = Attachment(network, path[-1], ifname)
        try:
            self.world.node.check(who, path, "", 0)
        except UnknownContainer:
            assert who not in self.attached
        else:
            assert who in self.attached

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def vanish(self, data: st.DataObject) -> None:
        """A namespace goes without a DEL: the lease of a dead pod ends with the next pass."""
        path = data.draw(st.sampled_from(sorted(self.alive)))
        self.world.kernel.remove_netns(path)
        self.alive.discard(path)
        for who in [who for who, netns in self.attached.items() if netns == path]:
            self._release(who)
        self.world.reconcile()

    @rule(where=WHERE, is_added=st.booleans())
    def name_is_given_again(self, where: tuple[str, str, str], is_added: bool) -> None:
        """To another namespace: what was in the dead one ends, also where an ADD comes before anybody saw that."""
        path, network, ifname = where
        if path in self.alive:
            self.world.kernel.remove_netns(path)
        self.world.kernel.add_netns(path)
        self.alive.add(path)
        for who in [who for who, netns in self.attached.items() if netns == path]:
            self._release(who)
        if is_added:
            with suppress(Exhausted, TryAgain):
                self._begun(self.world.add(Attachment(network, path[-1], ifname), path), path)
                self.went.add("added in another namespace of that name")
        self.world.reconcile()

    @precondition(lambda self: self.world.kernel.ours())
    @rule(data=st.data())
    def drift(self, data: st.DataObject) -> None:
        """Somebody removes an object of ours on the host: a pass brings it back."""
        ours = self.world.kernel.ours()
        keys = sorted((key for key in ours if key.place == HOST), key=str)
        self.world.kernel.drift(data.draw(st.sampled_from(keys)), None)
        self.world.now += 61  # or the limit of repairs would be reached
        self.world.reconcile()

    @rule(is_lost=st.booleans(), asks=st.sampled_from(["", "held", "released"]))
    def restart(self, is_lost: bool, asks: str) -> None:
        """A new process; if the store was lost, the kernel tells who has what. A runtime asks again for what it may
        not have had an answer to."""
        if is_lost:
            self.world.lose_store()
        if is_lost or self.is_history_lost:
            self.released.clear()  # nobody remembers
        self.is_history_lost = False
        self.world.restart()
        self.restored = set(self.attached)
        for who, path in sorted(self.attached.items())[:1]:
            self.add((path, who.network, who.ifname), True, asks)

    @rule(kind=st.sampled_from(["removed", "replaced", "zeroed", "without its log"]))
    def lose_journal(self, kind: str) -> None:
        """Somebody takes the journal away under the running agent: it is built anew, and nobody's lease is lost."""
        path = self.world.path
        content = path.read_bytes()
        (path if kind != "without its log" else path.with_name(f"{path.name}-wal")).unlink()
        if kind in ("replaced", "zeroed"):
            path.write_bytes(content if kind == "replaced" else bytes(len(content)))
        self.world.reconcile()
        self.is_history_lost = True

    @rule(seconds=st.sampled_from([1.0, COOLDOWN, 1000.0]))
    def wait(self, seconds: float) -> None:
        """Time goes by."""
        self.world.now += seconds

    @invariant()
    def all_is_as_it_must_be(self) -> None:
        """Want equals have, and exactly the attached have links and leases."""
        assert self.world.problems() == []
        assert set(self.world.node.ledger.records()) == set(self.attached)
        assert self.world.pods_links() == len(self.attached)
        foreign = self.world.kernel.foreign()
        assert [item.key.name for item in foreign.values()] == ["203.0.113.0/24"]


Walk.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestWalk = Walk.TestCase


def test_walks_went_all_the_ways() -> None:
    """Those that meet nothing try nothing."""
    assert {
        "met an interface", "completed", "added eth0", "added net1", "added eth0 released",
        "Exhausted held", "TryAgain released", "added in another namespace of that name",
    } <= WAYS, sorted(WAYS)  # fmt: skip
