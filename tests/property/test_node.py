"""The node at random: requests, vanishing namespaces, drift, restarts and a lost store, in any order.

After every pass: want equals have, leases and links belong together, no address is anybody's twice.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.node.node import Removed
from cni.errors import Exhausted, InterfaceExists, TryAgain, UnknownContainer
from cni.spec import Attachment
from dataplane.items import HOST
from tests.fakes.world import COOLDOWN, World

NETNS = [f"/run/netns/{letter}" for letter in "abcd"]
NETWORKS = ["pods", "others"]


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

    def teardown(self) -> None:
        self.world.close()
        self._directory.cleanup()

    def netns(self, path: str) -> None:
        if path not in self.alive:
            self.world.kernel.add_netns(path)
            self.alive.add(path)

    @initialize()
    def start(self) -> None:
        self.netns(NETNS[0])

    @rule(path=st.sampled_from(NETNS), network=st.sampled_from(NETWORKS))
    def add(self, path: str, network: str) -> None:
        """ADD gives what was free, or says why not; a second attachment in one pod meets the first's interface."""
        self.netns(path)
        who = Attachment(network, path[-1], "eth0")
        is_occupied = any(netns == path for netns in self.attached.values())
        try:
            record = self.world.add(who, path)
        except InterfaceExists:
            assert is_occupied
            assert who not in self.restored
            return
        except (Exhausted, TryAgain):
            assert len(self.attached) + len(self.released) >= 1
            return
        # An ADD that an earlier process may not have answered is completed instead of refused.
        assert not is_occupied or (who in self.restored and self.attached[who] == path)
        self.restored.discard(who)
        if who in self.attached:
            return
        for address in record.lease.addresses:
            since = self.released.pop(str(address), -COOLDOWN)
            assert self.world.now - since >= COOLDOWN, "an address in cool-down was given"
        self.attached[who] = path

    @rule(path=st.sampled_from(NETNS), network=st.sampled_from(NETWORKS))
    def delete(self, path: str, network: str) -> None:
        """DEL always succeeds, known or not."""
        who = Attachment(network, path[-1], "eth0")
        is_attached = who in self.attached
        if is_attached:
            self._release(who)
        assert self.world.node.delete(who) == is_attached

    @rule(paths=st.lists(st.sampled_from(NETNS)), network=st.sampled_from(NETWORKS))
    def delete_together(self, paths: list[str], network: str) -> None:
        """Many DELs at once end as one by one."""
        whos = [Attachment(network, path[-1], "eth0") for path in paths]
        attached = set(whos) & self.attached.keys()
        for who in attached:
            self._release(who)
        assert self.world.node.begin_removal(whos)() == {who: Removed(who in attached) for who in whos}

    @rule(keep=st.sets(st.sampled_from(NETNS)), network=st.sampled_from(NETWORKS))
    def collect(self, keep: set[str], network: str) -> None:
        """GC takes what is not listed, on its network, and nothing that came after it."""
        before = self.world.node.ledger.sequence
        valid = {(path[-1], "eth0") for path in keep}
        stale = {who for who, path in self.attached.items() if who.network == network and path not in keep}
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
        self.released |= {str(address): self.world.now for address in record.lease.addresses}
        self.attached.pop(who)
        self.restored.discard(who)

    @rule(path=st.sampled_from(NETNS), network=st.sampled_from(NETWORKS))
    def check(self, path: str, network: str) -> None:
        """CHECK succeeds exactly for what is attached."""
        who = Attachment(network, path[-1], "eth0")
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

    @precondition(lambda self: self.world.kernel.ours())
    @rule(data=st.data())
    def drift(self, data: st.DataObject) -> None:
        """Somebody removes an object of ours on the host: a pass brings it back."""
        ours = self.world.kernel.ours()
        keys = sorted((key for key in ours if key.place == HOST), key=str)
        self.world.kernel.drift(data.draw(st.sampled_from(keys)), None)
        self.world.now += 61  # or the limit of repairs would be reached
        self.world.reconcile()

    @rule(is_lost=st.booleans())
    def restart(self, is_lost: bool) -> None:
        """A new process; if the store was lost, the kernel tells who has what."""
        if is_lost:
            self.world.lose_store()
        if is_lost or self.is_history_lost:
            self.released.clear()  # nobody remembers
        self.is_history_lost = False
        self.world.restart()
        self.restored = set(self.attached)

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
