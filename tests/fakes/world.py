"""An agent without threads, sockets and clocks of its own: the real node, store and repair on the fake kernel.

``restart`` is what a process does that starts on the same store and kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from netaddr import IPAddress, IPNetwork
from prometheus_client import CollectorRegistry

from agent.config import chosen
from agent.config.schema import Config
from agent.keep.repair import Repair
from agent.keep.survey import Surroundings, Survey
from agent.node.ledger import Asked, Ledger
from agent.node.node import Node
from agent.start import restore
from agent.switch.switch import Silence, Switch
from agent.switch.way import Way
from agent.tell.metrics import Metrics
from backends.podcidrs import PodCidrs
from backends.site import Options
from cluster.peers import Peer
from cni.errors import ConfigInvalid, TryAgain
from cni.spec import Attachment
from dataplane.host import Facts
from dataplane.items import HOST, Item, Key, Route
from dataplane.links import Veth
from dataplane.uplink import Uplink
from ipam.allocator import Allocator
from ipam.moment import Moment
from ipam.store import Record, Store
from tests.fakes.kernel import FakeKernel

HERE = Peer(
    "node-a",
    (IPAddress("192.0.2.1"), IPAddress("2001:db8::1")),
    (IPNetwork("10.1.1.0/28"), IPNetwork("2001:db8:1::/64")),
)
OTHER = Peer(
    "node-b",
    (IPAddress("192.0.2.2"), IPAddress("2001:db8::2")),
    (IPNetwork("10.1.2.0/28"), IPNetwork("2001:db8:2::/64")),
)
THIRD = Peer(
    "node-c",
    (IPAddress("192.0.2.3"), IPAddress("2001:db8::3")),
    (IPNetwork("10.1.3.0/28"), IPNetwork("2001:db8:3::/64")),
)
UPLINK = Uplink("eth0", 1500, (IPNetwork("192.0.2.1/24"), IPNetwork("2001:db8::1/64")))
COOLDOWN = 30.0
WIRINGS = chosen.wirings(Config(backend="static"))
"""Of every backend, by the defaults of its table."""


class Nodes:
    """A list of nodes that a test writes."""

    def __init__(self, *nodes: Peer) -> None:
        self._nodes = frozenset(nodes)
        self._is_new = True

    def set(self, *nodes: Peer) -> None:
        """The whole list from now on."""
        self._nodes, self._is_new = frozenset(nodes), True

    @property
    def origin(self) -> str:
        """See `cluster.peers.Source`."""
        return "the test"

    @property
    def nodes(self) -> frozenset[Peer]:
        """See `cluster.peers.Source`."""
        return self._nodes

    @property
    def error(self) -> ConfigInvalid | None:
        """See `cluster.peers.Source`."""
        return None

    def refresh(self) -> bool:
        """See `cluster.peers.Source`."""
        is_new, self._is_new = self._is_new, False
        return is_new


class World:
    """The first of *nodes*: *directory* holds its store."""

    def __init__(
        self,
        directory: Path,
        wrap: Callable[[Store], Store] = lambda store: store,
        *,
        nodes: Sequence[Peer] = (HERE, OTHER),
        is_silent: Silence = lambda source, target, answerers, patience, device: "",
    ) -> None:
        self._directory = directory
        self._wrap = wrap
        self.now = 1_000_000.0
        self.wrong = 0.0
        self.boot = "boot-1"
        self.configured = "static"
        self.here = nodes[0]
        self.is_silent = is_silent
        self.drain = 0.0
        self.used: list[Collection[str]] = []
        """The backends whose parts live, each time that the switch says it."""
        self.settles = 0
        self.unsettled = 0
        """The number of the pass that the switch waits for and that fails."""
        self.facts = Facts()
        """What others made of this host."""
        self.kernel = FakeKernel()
        self.kernel.add_foreign(Route(HOST, "203.0.113.0/24", "eth0"))
        self.nodes = Nodes(*nodes)
        self.store: Store | None = None
        self.restart()

    def moment(self) -> Moment:
        """Now; the wall clock is *wrong* by that many seconds."""
        return Moment(self.now, self.now + self.wrong)

    @property
    def path(self) -> Path:
        """The store's file."""
        return self._directory / "state.db"

    def restart(self) -> None:
        """A new process: everything but the store's file and the kernel is forgotten."""
        self.close()
        self.store = self._wrap(restore.journal(self.path, self.boot, self.moment))
        state = restore.state(self.store, self.kernel, self.nodes, self.configured, self.boot)
        self.way = Way(state, WIRINGS)
        self.survey = Survey(
            node=self.here.name,
            uplink="",
            options=Options(),
            source=self.nodes,
            fabric=PodCidrs(),
            find_uplink=lambda name, addresses, others: UPLINK,
            wire=self.way.wiring,
            look=lambda uplink, addresses: self.facts,
        )
        self.survey.refresh()
        around = self.survey.now
        assert around is not None
        records = restore.records(self.store, self.kernel, around.blocks, self.moment)
        metrics = Metrics(CollectorRegistry())
        ledger = Ledger(
            allocator=Allocator(COOLDOWN),
            store=self.store,
            metrics=metrics,
            clock=self.moment,
            reopen=self._reopened,
        )
        ledger.restore(records)
        self.node = Node(ledger, self.kernel, metrics)
        self.node.rewire(around.wiring)
        ledger.offer(around.blocks)
        self.repair = Repair(
            node=self.node, survey=self.survey, dataplane=self.kernel, clock=lambda: self.now, wall=lambda: self.now
        )
        self.switch = Switch(
            way=self.way,
            boot=self.boot,
            journal=ledger,
            let_pass=self.node.let_pass,
            load=WIRINGS,
            settle=self.settled,
            use=self.used.append,
            missing=lambda plan: [],
            silence=self.is_silent,
            on_death=lambda thread, error: None,
            drain=self.drain,
        )
        self.reconcile()

    def _reopened(self) -> Store:
        self.store = self._wrap(restore.renewed(self.path, self.boot, self.moment))
        return self.store

    def settled(self) -> Surroundings | None:
        """What the switch waits for."""
        self.settles += 1
        if self.settles == self.unsettled:
            raise TryAgain("a pass failed")
        self.reconcile()
        return self.survey.now

    def close(self) -> None:
        """Let go of the store."""
        if self.store is not None:
            self.store.close()
            self.store = None

    def lose_store(self) -> None:
        """The file is gone when the next process starts."""
        self.close()
        for file in self._directory.glob("state.db*"):
            file.unlink()

    def reconcile(self) -> None:
        """What the reconciler's thread does."""
        self.node.ledger.tend()
        self.survey.refresh()
        around = self.survey.now
        assert around is not None
        if around.wiring is not self.node.wiring:
            self.node.rewire(around.wiring)
        self.repair.whole()
        self.node.ledger.offer(around.blocks)
        self.repair.quick()

    def add(self, who: Attachment, netns: str, asked: Asked | None = None) -> Record:
        """ADD, answered."""
        record = self.node.add(who, replace(asked or Asked(""), netns=netns))
        self.node.ledger.answered(who)
        return record

    def problems(self, *, on_host: bool = False) -> list[str]:
        """What is wrong between leases and kernel, in words; nothing, if all is as it must be after a pass. With
        *on_host* what is in the pods is left out: of an ADD that died nobody has had an answer."""
        records = self.node.ledger.records()
        found = []
        addresses = [address for record in records.values() for address in record.lease.addresses]
        found += [f"{one} is leased twice" for one in set(addresses) if addresses.count(one) > 1]
        want: dict[Key, Item] = dict(self.survey.now.wired.plan) if self.survey.now else {}
        wiring = self.node.wiring
        assert wiring is not None
        for record in records.values():
            want |= wiring.pod(record)
        have = self.kernel.ours()
        if on_host:
            have = {key: item for key, item in have.items() if key.place == HOST}
            want = {key: item for key, item in want.items() if key.place == HOST}
        for key in want.keys() - have.keys():
            if key.kind != "sysctl":
                found.append(f"missing: {want[key]}")
        found += [f"left over: {have[key]}" for key in have.keys() - want.keys()]
        found += [f"{have[key]} instead of {want[key]}" for key in have.keys() & want.keys() if have[key] != want[key]]
        stored = {record.lease.who: record for record in self.store.load()} if self.store else {}
        if stored != records:
            found.append(f"the store has {stored}, the memory {records}")
        return found

    def pods_links(self) -> int:
        """How many links of pods there are."""
        return sum(isinstance(item, Veth) for item in self.kernel.ours().values())


@contextmanager
def lived_in(directory: Path, who: Attachment, netns: str) -> Iterator[World]:
    """A node with a pod."""
    with closing(World(directory)) as made:
        made.kernel.add_netns(netns)
        made.add(who, netns)
        yield made
