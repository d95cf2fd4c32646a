"""Objects of others', at random, beside ours and in our way: whatever is done, they stay exactly as they are."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from backends.nodeplan import nexthop_id
from backends.podlink import link_name
from cluster.peers import Peer
from cni.errors import Failure
from cni.spec import Attachment
from dataplane.diff import diff
from dataplane.items import HOST, POD_GROUP, Item, Nexthop, Route, Rule
from dataplane.links import VXLAN_LINK, Port, Veth, Vxlan
from dataplane.observe import OnHost
from dataplane.ours import DYING
from tests.fakes.world import HERE, OTHER, THIRD, World

PODS = [Attachment("pods", letter, "eth0") for letter in "abc"]
NAMES = ["rt", "rtlab0", "rt0123456789", "rt0123456789ab", "rt0123456789aB", "xrt0123456789a", "routable0"]
LINKS = st.one_of(
    # As one of ours is called, without a mark; or with one, and called otherwise.
    st.builds(
        Veth,
        st.sampled_from(["rt0123456789a", *map(link_name, PODS)]),
        st.sampled_from(["", "routable", "mine"]),
        st.just(1500),
        st.just("0a:00:00:00:00:01"),
        group=st.sampled_from([0, 7, POD_GROUP + 1, DYING - 1]),
    ),
    st.builds(
        Veth,
        st.sampled_from(NAMES),
        st.sampled_from(["", "routable pods a eth0 /run/netns/a"]),
        st.just(1500),
        st.just("0a:00:00:00:00:01"),
        group=st.sampled_from([0, POD_GROUP, DYING, DYING + 0x544244]),
    ),
    st.just(Vxlan(VXLAN_LINK, 7, 4790, "192.0.2.1", "0a:00:00:00:00:02", 1450, alias="")),
    st.just(Port(HOST, VXLAN_LINK, 1500, "0a:00:00:00:00:03")),
)
OTHERS = st.one_of(
    st.builds(
        Nexthop,
        st.sampled_from([nexthop_id(OTHER.name, 4), nexthop_id(THIRD.name, 6), 5]),
        st.just("192.0.2.9"),
        st.just("eth0"),
    ),
    st.builds(Route, st.just(HOST), st.sampled_from([str(OTHER.pod_cidrs[0]), "203.0.113.9/32"]), st.just("eth0")),
    st.builds(Rule, st.just(4), st.just(8230), st.just(8201)),
)


class Walk(RuleBasedStateMachine):
    """Requests, passes, restarts, another list of nodes and another backend, among strangers that come at any time."""

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory()
        self.world = World(Path(self._directory.name), nodes=(HERE, OTHER, THIRD))
        for who in PODS:
            self.world.kernel.add_netns(netns(who))
        self.strangers = dict(self.world.kernel.foreign())

    def teardown(self) -> None:
        self.world.close()
        self._directory.cleanup()

    @rule(item=st.one_of(LINKS, OTHERS))
    def appears(self, item: Item) -> None:
        """Somebody makes something where nothing is."""
        there = {**self.world.kernel.ours(), **self.world.kernel.foreign()}
        if item.key not in there:
            self.world.kernel.add_foreign(item)
            self.strangers[item.key] = item

    @rule(who=st.sampled_from(PODS))
    def add(self, who: Attachment) -> None:
        """ADD, refused where something is in its way."""
        with suppress(Failure):
            self.world.add(who, netns(who))

    @rule(who=st.sampled_from(PODS))
    def delete(self, who: Attachment) -> None:
        """DEL, known or not."""
        self.world.node.delete(who)

    @rule()
    def delete_together(self) -> None:
        """All DELs at once."""
        self.world.node.begin_removal(PODS)()

    @rule(peers=st.sets(st.sampled_from([OTHER, THIRD])))
    def nodes_change(self, peers: set[Peer]) -> None:
        """Peers come and go."""
        self.world.nodes.set(HERE, *(peer for peer in (OTHER, THIRD) if peer in peers))
        self.world.reconcile()

    @rule(seconds=st.sampled_from([1.0, 61.0]))
    def passes(self, seconds: float) -> None:
        """Two passes, some time later."""
        self.world.now += seconds
        self.world.reconcile()
        self.world.reconcile()

    @rule()
    def restart(self) -> None:
        """A new process."""
        self.world.restart()

    @rule(backend=st.sampled_from(["static", "vxlan"]))
    def switch(self, backend: str) -> None:
        """A change of backend, as far as it gets."""
        with suppress(Failure):
            self.world.switch.ask(backend, self.world.survey.now, is_dry=False, is_forced=True)
            self.world.switch.advance()

    @rule()
    def uninstall(self) -> None:
        """Want nothing; a new process makes all anew."""
        self.world.kernel.apply(diff(self.world.kernel.observe([OnHost()]), {}))
        assert self.world.kernel.observe([OnHost()]) == {}
        self.strangers_are_as_they_were()
        self.world.reconcile()

    @invariant()
    def strangers_are_as_they_were(self) -> None:
        """Every one, with all that it was, and nothing of ours on any."""
        assert self.world.kernel.foreign() == self.strangers
        links = {item.key for item in self.strangers.values() if isinstance(item, Veth | Vxlan | Port)}
        for item in self.world.kernel.ours().values():
            assert (HOST, "link", item.link) not in links
            if isinstance(item, Route) and item.nhid:
                assert (HOST, "nexthop", str(item.nhid)) not in self.strangers


def netns(who: Attachment) -> str:
    """Where a pod lives."""
    return f"/run/netns/{who.container}"


Walk.TestCase.settings = settings(
    max_examples=40, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestWalk = Walk.TestCase
