"""What CNI STATUS tells, and what is only told to people: each kind of trouble on a node that is otherwise well."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from netaddr import IPAddress, IPNetwork
from prometheus_client import CollectorRegistry

from agent.keep.diary import Entry
from agent.keep.spool import Spool
from agent.serve.lane import Incoming
from agent.serve.verbs import Verbs
from agent.tell.metrics import Metrics
from agent.tell.status import Status
from agent.tell.trouble import Kind
from backends.cloud.report import Report
from backends.fabric import Shortage, Supplied
from backends.podcidrs import PodCidrs
from backends.told import Complaint, Measure, Told
from cluster.peers import Peer
from cni import frame
from cni.errors import ConfigInvalid, Exhausted, FabricRefused, Failure, NotReady, TryAgain
from cni.spec import Attachment
from dataplane.items import POD_LINK_PREFIX
from tests.fakes.world import HERE, OTHER, World

TINY = replace(HERE, pod_cidrs=(IPNetwork("10.1.1.0/30"),))
POD = Attachment("pods", "c1", "eth0")
SECOND = Attachment("pods", "c2", "eth0")


class Cloud:
    """A fabric that has what a test says."""

    def __init__(self, shortage: Shortage, undelivered: tuple[str, ...] = ()) -> None:
        self._shortage = shortage
        self._undelivered = undelivered

    def supplied(self, here: Peer) -> Supplied:
        """Nothing."""
        return Supplied((), (), frozenset())

    def shortage(self, failure: Failure) -> Shortage:
        """What the test says."""
        return self._shortage

    def told(self) -> Told:
        """With an obstacle, and pods' addresses that are gone."""
        return Report("EC2", 1, 3, ("denied",), ("create",), {}, self._undelivered).told()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A node with a peer and no pods."""
    made = World(tmp_path)
    yield made
    made.close()


def told(world: World, **changes: Any) -> Status:
    """Who tells, with *changes*."""
    spool = Spool(Path("/nonexistent"), "boot-1", lambda: world.now)
    status = Status("node-a", "0", world.node, world.survey, PodCidrs(), world.repair, spool, world.switch, lambda: 3)
    return replace(status, **changes)


def kinds(status: Status) -> list[tuple[str, bool]]:
    """What is wrong, and whether STATUS tells it."""
    return [(one.kind, one.is_fatal) for one in status.troubles()]


def test_a_well_node_has_nothing_to_tell(world: World) -> None:
    """ADDs that wait are no trouble, nor is a switch at rest."""
    status = told(world)
    assert status.troubles() == []
    assert status.unable() is None
    assert status.ready() == (True, "ready")


def test_what_is_mended_while_the_status_is_told_is_in_nobodys_way(world: World) -> None:
    """The reconciler's thread writes into the diary at any moment."""
    diary = world.repair.diary

    class Met(Entry):
        @property
        def text(self) -> str:
            diary.note("mended meanwhile")
            return "mended before"

    diary.entries.append(Met(1.0, ""))
    diary.note("mended then")
    assert [one["text"] for one in told(world).document()["events"]] == ["mended before", "mended then"]


def test_a_full_pool_is_not_statuss_business(tmp_path: Path) -> None:
    """In use, then cooling down: the node is ready, /readyz is not, and the problem has the code that an ADD gets."""
    world = World(tmp_path, nodes=(TINY, OTHER))
    for number, who in enumerate((POD, SECOND)):
        world.kernel.add_netns(f"/run/netns/{number}")
        world.add(who, f"/run/netns/{number}")
    status = told(world)
    assert kinds(status) == [(Kind.POOL, False)]
    assert status.unable() is None
    assert status.document()["problems"][0]["code"] == 100
    assert status.ready()[0] is False
    world.node.delete(POD)
    world.node.delete(SECOND)
    assert status.unable() is None
    assert status.document()["problems"][0]["code"] == 11
    assert "0 of 2 in use, 2 cooling down" in status.ready()[1]
    world.close()


def test_a_node_without_any_address_and_pods_is_no_node_for_pods(world: World) -> None:
    """It would attract pods that never start; with a pod on it, nobody shall be evicted; and what is on its way is
    waited for."""
    refused = Shortage(FabricRefused("not permitted", "see the policy"), may_end=False)
    world.node.ledger.offer(())
    status = told(world, fabric=Cloud(refused))
    assert kinds(status) == [(Kind.POOL, True)]
    unable = status.unable()
    assert unable is not None
    assert (unable.failure.code, unable.failure.message, unable.may_end) == (50, "not permitted", False)
    assert told(world, fabric=Cloud(Shortage(TryAgain("soon"), may_end=True))).troubles() == []
    assert kinds(told(world)) == [(Kind.POOL, True)]


def test_a_node_whose_addresses_were_taken_keeps_its_pods(world: World) -> None:
    """Nothing is offered any more while a pod has an address: told, not by STATUS."""
    world.kernel.add_netns("/run/netns/a")
    world.add(POD, "/run/netns/a")
    world.node.ledger.offer(())
    lost = Cloud(Shortage(Exhausted("none"), may_end=False), ("10.1.1.1",))
    status = told(world, fabric=lost)
    assert not any(is_fatal for _, is_fatal in kinds(status))
    assert {Kind.UNDELIVERED} <= {kind for kind, _ in kinds(status)}


def test_the_agent_that_does_not_do_its_work_is_statuss_business(world: World) -> None:
    """A reconciler that completes no pass is told first, and is not waited for."""
    status = told(world, stuck=lambda: TryAgain("no pass for 60 s"))
    assert kinds(status) == [(Kind.AGENT, True)]
    unable = status.unable()
    assert unable is not None
    assert (unable.failure.code, unable.may_end) == (50, False)


def test_a_journal_that_takes_nothing_is_statuss_business(world: World) -> None:
    """No ADD can be saved: the first of all that is told."""
    world.node.ledger.problem = TryAgain("the journal's file system is full")
    world.repair.diary.failing = {"route x": Failure("no")}
    status = told(world)
    assert kinds(status) == [(Kind.JOURNAL, True), (Kind.OBJECTS, False)]
    assert [one["by_status"] for one in status.document()["problems"]] == [True, False]


def test_what_is_known_last_is_enough(world: World) -> None:
    """The uplink lost its address, or the list its entry of this node: ADDs are served with what was known."""
    world.nodes.set(OTHER)
    world.survey.refresh()
    status = told(world)
    assert kinds(status) == [(Kind.WIRING, False)]
    assert status.unable() is None
    assert status.ready()[0] is True


@pytest.mark.parametrize(
    ("problem", "may_end"),
    [(TryAgain("the agent is starting"), True), (ConfigInvalid("uplink is eth7, but there is no such link"), False)],
)
def test_without_any_wiring_the_node_cannot_work(world: World, problem: Failure, may_end: bool) -> None:
    """What may pass by itself is waited for; what somebody has to mend is told at once."""

    class Ignorant:
        now = None
        stale = None

    unknown: Any = Ignorant()
    unknown.problem = problem
    unable = told(world, survey=unknown).unable()
    assert unable is not None
    assert (unable.failure.code, unable.failure.message, unable.may_end) == (50, problem.message, may_end)


def test_status_waits_for_what_may_end_by_itself(world: World) -> None:
    """While it may wait; then, and where nothing will come by itself, it is told."""
    found: list[Shortage | None] = [Shortage(NotReady("the agent is starting"), may_end=True)]
    shortage = PodCidrs().shortage
    verbs = Verbs(world.node, Metrics(CollectorRegistry()), lambda: found[0], shortage)
    request = frame.Request({"CNI_COMMAND": b"STATUS"}, b'{"cniVersion": "1.1.0", "name": "pods"}')
    patient = Incoming(request, 0, lambda: False, has_patience=True)

    def code(incoming: Incoming) -> int | None:
        answer = verbs.serve(incoming)
        return json.loads(answer.response.stdout or b'{"code": 0}')["code"] if answer is not None else None

    assert code(patient) is None
    assert code(patient._replace(has_patience=False)) == 50
    found[0] = Shortage(NotReady("the journal takes nothing"), may_end=False)
    assert code(patient) == 50
    found[0] = None
    assert code(patient) == 0


def test_pods_peers_and_objects_are_counted_and_not_statuss_business(world: World) -> None:
    """One unreachable peer, three pods that break their own interface, an object that is fought over."""
    far = Peer("node-z", (IPAddress("198.51.100.9"),), (IPNetwork("10.9.0.0/24"),))
    world.nodes.set(HERE, OTHER, far)
    world.survey.refresh()
    world.repair.diary.failing = {f"pod pods/c{number}/eth0": Failure("gone") for number in range(3)}
    world.repair.diary.failing = {**world.repair.diary.failing, "sysctl x": Failure("sysctl x is fought over")}
    status = told(world)
    assert kinds(status) == [(Kind.PEERS, False), (Kind.OBJECTS, False), (Kind.PODS, False)]
    shown = status.snapshot()
    assert shown.is_ready
    assert {kind: number for kind, number in shown.problems.items() if number} == {"peers": 1, "objects": 1, "pods": 3}
    assert set(shown.problems) == set(Kind)


def test_a_pods_address_that_is_another_nodes_now_is_told_until_it_is_back(world: World) -> None:
    """With the pod and the node that has it now; the pod keeps its link and route, STATUS is silent, the log tells it
    once."""
    world.kernel.add_netns("/run/netns/a")
    address = world.add(POD, "/run/netns/a").lease.addresses[0]
    before = world.kernel.ours()
    moved = replace(HERE, pod_cidrs=(IPNetwork("10.1.9.0/28"), HERE.pod_cidrs[1]))
    world.nodes.set(moved, replace(OTHER, pod_cidrs=(*OTHER.pod_cidrs, HERE.pod_cidrs[0])))
    for _ in range(3):
        world.reconcile()
    status = told(world)
    assert kinds(status) == [(Kind.UNDELIVERED, False)]
    assert f"{address} (pods/c1/eth0) is of node-b" in str(status.troubles()[0].failure)
    assert status.unable() is None
    assert status.snapshot().problems[Kind.UNDELIVERED] == 1
    assert sum("not of this node any more" in event.text for event in world.repair.diary.entries) == 1
    assert all(item in world.kernel.ours().values() for item in before.values() if POD_LINK_PREFIX in str(item))
    world.nodes.set(moved)
    world.reconcile()
    assert "is of no node" in str(told(world).troubles()[0].failure)
    world.nodes.set(HERE, OTHER)
    world.reconcile()
    assert told(world).troubles() == []


def test_what_nobody_can_see_is_told_to_people_alone(world: World) -> None:
    """A port that another program has, and a host whose rules cannot be looked at, keep no pod from running."""
    taken = ConfigInvalid("metrics.listen: cannot listen", "choose another")
    assert kinds(told(world, unseen=lambda: taken)) == [(Kind.METRICS, False)]
    world.survey.unseen = TryAgain("cannot look at the host's rules now", "EMFILE")
    assert kinds(told(world)) == [(Kind.HOST, False)]
    assert told(world).ready()[0] is True


class Speaker:
    """A part with sessions, of which so many are *down*."""

    def __init__(self, down: int) -> None:
        self.down = down

    def told(self) -> Told:
        """In words that the agent has never heard."""
        failure = TryAgain("sessions are down", "see that the router speaks to this node")
        return Told(
            complaints={"speaker": (), "sessions": [Complaint(failure, self.down)] * bool(self.down)},
            sections={"sessions": [{"peer": "192.0.2.1", "is_up": not self.down}]},
            measures=[Measure("routable_sessions", "Sessions.", [(("192.0.2.1",), 1 - self.down)], ("peer",))],
        )


def test_what_a_part_of_the_backend_says_is_told_to_people_in_its_own_words(world: World) -> None:
    """Document, /readyz and metrics have it, STATUS and ADDs never; kinds that there may be are counted all the
    time."""
    speaker = Speaker(down=1)
    status = told(world, tellers=[speaker])
    assert kinds(status) == [("sessions", False)]
    assert status.unable() is None
    assert status.ready() == (True, "ready\nsessions are down: see that the router speaks to this node")
    document = status.document()
    assert (document["sessions"], document["cloud"]) == ([{"peer": "192.0.2.1", "is_up": False}], None)
    assert (document["problems"][0]["kind"], document["problems"][0]["by_status"]) == ("sessions", False)
    shown = status.snapshot()
    assert {kind: shown.problems[kind] for kind in ("sessions", "speaker")} == {"sessions": 1, "speaker": 0}
    assert [one.numbers for one in shown.measures] == [[(("192.0.2.1",), 0)]]
    speaker.down = 0
    assert (status.troubles(), status.snapshot().problems["sessions"]) == ([], 0)


def test_two_that_complain_of_the_same_are_both_heard(world: World) -> None:
    """Fabric and parts, each with a section of its own."""
    cloud = Cloud(Shortage(TryAgain("soon"), may_end=True), ("10.1.1.1",))
    status = told(world, fabric=cloud, tellers=[Speaker(1), Speaker(2)])
    assert status.snapshot().problems["sessions"] == 3
    assert status.snapshot().problems[Kind.UNDELIVERED] == 1
    assert {"cloud", "sessions"} <= set(status.document())
    assert status.document()["cloud"]["cloud"] == "EC2"


def test_a_backend_is_asked_once_for_a_page_and_never_for_status(world: World) -> None:
    """What it says costs more with more nodes, a runtime asks every few seconds, and a page is of one moment."""

    class Asked(PodCidrs):
        count = 0

        def told(self) -> Told:
            self.count += 1
            return super().told()

    fabric = Asked()
    status = told(world, fabric=fabric)
    for page, times in ((status.unable, 0), (status.ready, 1), (status.snapshot, 1), (status.document, 1)):
        fabric.count = 0
        page()
        assert (page.__name__, fabric.count) == (page.__name__, times)
