"""The fabric of ``gcp-alias`` on the emulated project: more and less, stale fingerprints, faults, death everywhere."""

from __future__ import annotations

import pytest
from netaddr import IPNetwork

from backends.cloud.failures import CloudError, Lost, Refused, Throttled
from backends.gcp.calls import GET, OPERATION, SUBNET, UPDATE
from backends.gcp.holding import STALE
from backends.gcp.options import AliasOptions
from cni.errors import Exhausted, FabricRefused, TryAgain
from ipam.lease import Block
from ipam.warmpool import Targets
from tests.fakes.kernel import Killed
from tests.fakes.living import Clock, together
from tests.gcp.estate import Alias
from tests.gcp.node import AliasNode, ranges
from tests.gcp.operations import Failed
from tests.gcp.project import Project
from tests.gcp.strangers import Hands

REST = 1200.0
"""Seconds after which everything that is under way has ended, and what is spare was given back."""
NO_ADDRESS = Exhausted("no address")


class Place:
    """A project with one subnet; changes take three seconds, and the metadata shows them two later."""

    def __init__(self, pods: str = "10.4.0.0/20") -> None:
        self.clock = Clock()
        self.project = Project(self.clock)
        self.project.add_subnetwork("nodes", "10.0.0.0/20", pods=pods, services="10.9.0.0/20")
        self.project.operations.running, self.project.lag = 3.0, 2.0
        self.hands = Hands(self.project)

    def node(
        self, options: AliasOptions | None = None, seed: int = 0, started: tuple[tuple[str, str], ...] = ()
    ) -> AliasNode:
        """A new machine with an agent; *started* with ranges of these lengths, of these names."""
        name = f"node-{len(self.project.instances) + 1}"
        self.project.run_instance(name, "nodes", started)
        return AliasNode(self.project, self.clock, name, options, seed)

    def calls(self, action: str = "") -> int:
        """How many there were."""
        return sum(count for (one, _), count in self.project.calls.items() if action in ("", one))

    def add(self, node: AliasNode, cidr: str, name: str) -> None:
        """Somebody gives that very range to it."""
        instance = self.project.instances[node.instance]
        (new,) = self.project.taken(instance.nic.subnetwork, [(IPNetwork(cidr), name)])
        assert isinstance(new, Alias)
        self.project.change(instance, [*instance.nic.aliases, new], self.clock())

    def rows(self, node: AliasNode) -> set[tuple[str, str]]:
        """Its ranges, and what they are of."""
        return {(str(one.network), one.name) for one in self.project.instances[node.instance].nic.aliases}


@pytest.fixture
def place() -> Place:
    """A secondary range of 4,096 addresses."""
    return Place()


def options(**targets: object) -> AliasOptions:
    return AliasOptions(range="pods", warm=Targets(**targets))  # type: ignore[arg-type]


def well(node: AliasNode) -> None:
    """All is as it must be when nothing is under way."""
    assert node.differences() == []
    assert node.unserved() == set()
    assert node.fabric.holding.intents == ()
    assert not node.parked


def under_way(node: AliasNode) -> str:
    """The operation of a change that was taken on a moment ago."""
    while not node.fabric.holding.intents or not node.fabric.holding.intents[0].operation:
        node.run(0.1)
    return node.fabric.holding.intents[0].operation


# --- more, and less -----------------------------------------------------------------------------------------------


def test_a_node_starts_with_one_change(place: Place) -> None:
    """A range, asked for by its length alone; the interface is read before and after."""
    node = place.node()
    node.run(20)
    assert place.calls(UPDATE) == 1
    assert place.calls(GET) == 2
    assert place.rows(node) == {("10.4.0.0/28", "pods")}
    node.add(16)
    assert not node.parked
    well(node)


def test_a_burst_is_met_with_one_change(place: Place) -> None:
    """100 pods that come together wait for one PATCH, which adds as many ranges as they need."""
    node = place.node()
    node.run(20)
    node.add(100)
    node.run(15)
    assert place.calls(UPDATE) == 2
    assert len(node.pods) == 100
    assert max(node.waits) < 10
    well(node)


def test_pods_are_told_what_they_wait_for(place: Place) -> None:
    """How many addresses there are, and that more are asked for."""
    node = place.node()
    node.run(20)
    node.add(17)
    told = node.fabric.shortage(NO_ADDRESS)
    assert told.may_end
    assert isinstance(told.failure, TryAgain)
    assert "16 of 16 addresses in use, 1 of 150 ranges taken, waiting for more of GCP" in str(told.failure)


def test_what_is_idle_is_given_back_after_a_while(place: Place) -> None:
    """But for what is kept warm, and only after the delay."""
    node = place.node(options(delay=300.0))
    node.run(20)
    node.add(100)
    node.run(20)
    node.delete(100)
    before = ranges(node)
    node.run(200)
    assert ranges(node) == before
    node.run(REST)
    assert len(ranges(node)) == 1
    well(node)


def test_what_is_used_stays(place: Place) -> None:
    """A range of which one address is used is not given back, and its pod keeps the address."""
    node = place.node()
    node.run(20)
    node.add(60)
    node.run(20)
    node.delete(59)
    before = node.addresses()
    node.run(REST)
    assert node.addresses() == before
    well(node)


def test_the_last_range_stays(place: Place) -> None:
    """The client cannot say that a list is empty, so it is never asked to; nor does that lead to calls again and
    again."""
    node = place.node(options(warm_prefixes=0))
    node.add(1)
    node.run(20)
    node.delete(1)
    node.run(REST)
    calls = place.calls()
    assert len(ranges(node)) == 1
    node.run(REST)
    assert place.calls() == calls
    well(node)


def test_larger_ranges_where_the_interface_takes_few(place: Place) -> None:
    """Ten ranges are not enough for 110 and more pods by sixteens: the later ones are larger, none above the limit."""
    place.project.most_ranges = 10
    chosen = AliasOptions(range="pods", warm=Targets(largest_size=128), most=10)
    node = place.node(chosen)
    for _ in range(40):
        node.add(10)
        node.run(15)
    assert len(node.pods) == 400
    assert len(ranges(node)) <= 10
    assert max(block.size for block in ranges(node)) == 128
    well(node)


def test_what_others_have_on_the_interface_is_left_alone(place: Place) -> None:
    """A range of another name, one that is smaller than ours ever are, and one that the operator named: no pod gets an
    address of them, they are not given back, and every change keeps them."""
    chosen = AliasOptions(range="pods", foreign=(IPNetwork("10.4.8.0/28"),))
    node = place.node(chosen)
    others = (("10.9.0.0/24", "services"), ("10.4.15.255/32", "pods"), ("10.4.8.0/28", "pods"))
    for cidr, name in others:
        place.add(node, cidr, name)
    node.run(30)
    node.add(100)
    node.run(30)
    node.delete(100)
    node.run(REST)
    assert set(others) < place.rows(node)
    assert len(ranges(node)) == 4
    section = node.fabric.told().sections["gcp"]
    assert section["not_for_pods"] == ["10.4.8.0/28", "10.4.15.255/32", "10.9.0.0/24"]
    well(node)


def test_ranges_that_a_machine_was_started_with_are_used(place: Place) -> None:
    """After the API has said of which range they are."""
    node = place.node(options(minimum_addresses=64), started=(("/26", "pods"),))
    node.run(5)
    node.add(64)
    node.run(1)
    assert not node.parked
    assert (place.calls(), place.calls(GET)) == (1, 1)
    well(node)


# --- nothing is changed where others do ---------------------------------------------------------------------------


def test_fixed_ranges_need_nothing_but_the_metadata(place: Place) -> None:
    """Whatever the interface has is the pods'; when it has more, so have they; nothing is ever asked of the API."""
    node = place.node(AliasOptions(is_fixed=True), started=(("/28", "pods"),))
    node.run(5)
    node.add(20)
    assert len(node.parked) == 4
    told = node.fabric.shortage(NO_ADDRESS)
    assert not told.may_end
    assert "assigned by others (gcp.fixed)" in str(told.failure)
    place.add(node, "10.9.2.0/30", "services")
    node.run(70)
    assert not node.parked
    assert place.calls() == 0
    well(node)


def test_the_metadatas_word_makes_the_next_look_come_at_once(place: Place) -> None:
    """Not up to a minute later."""
    node = place.node(AliasOptions(is_fixed=True))
    node.run(5)
    place.add(node, "10.4.2.0/28", "pods")
    node.run(3)
    node.add(1)
    assert node.parked
    node.fabric.news()
    node.run(2)
    assert not node.parked


# --- others change it, too ----------------------------------------------------------------------------------------


def test_a_stale_fingerprint_is_read_again(place: Place) -> None:
    """Somebody changed the interface between the look and the change: nothing was done; both have what they want."""
    node = place.node()
    node.run(20)
    place.add(node, "10.9.0.7/32", "services")
    node.add(20)
    node.run(20)
    assert len(node.pods) == 20
    assert ("10.9.0.7/32", "services") in place.rows(node)
    well(node)


def test_a_fingerprint_that_is_stale_in_the_operation_is_read_again(place: Place) -> None:
    """It was good when the change was taken on."""
    node = place.node()
    node.run(20)
    node.add(20)
    under_way(node)
    place.add(node, "10.9.0.7/32", "services")
    node.run(30)
    assert len(node.pods) == 20
    assert ("10.9.0.7/32", "services") in place.rows(node)
    well(node)


def test_a_range_taken_by_hand_is_told_with_its_pods(place: Place) -> None:
    """Nothing can be done about it but to say so; no other pod is given an address of it."""
    node = place.node()
    node.run(20)
    node.add(3)
    (block,) = ranges(node)
    node.run(120)
    place.hands.take(node.instance, block)
    node.run(120)
    assert set(node.fabric.report().undelivered) == set(map(str, node.addresses()))
    complaint = node.fabric.told().complaints["undelivered"][0]
    assert complaint.count == 3
    assert "10.4.0.0, 10.4.0.1, 10.4.0.2" in str(complaint.failure)
    node.add(1)
    assert len(node.unserved()) == 3


def test_a_range_that_somebody_gives_is_used(place: Place) -> None:
    """The metadata shows it; the API is asked once."""
    node = place.node(options(delay=300.0))
    node.run(200)
    asked = place.calls(GET)
    place.add(node, "10.4.3.0/28", "pods")
    node.run(70)
    node.add(32)
    assert not node.parked
    assert place.calls(GET) == asked + 1


# --- what is refused ------------------------------------------------------------------------------------------------


def test_a_full_range_is_told_with_its_name_and_what_is_left() -> None:
    """Which range, how many of its addresses are left; fewer ranges are tried before that, and it is not asked all the
    time."""
    place = Place("10.4.0.0/26")
    node = place.node()
    node.run(20)
    node.add(80)
    node.run(60)
    assert len(node.pods) == 64
    told = node.fabric.shortage(NO_ADDRESS)
    assert isinstance(told.failure, Exhausted)
    assert not told.may_end
    text = str(told.failure)
    assert "no /28 is left in secondary range pods (10.4.0.0/26, 64 addresses, of which 0 are free)" in text
    calls = place.calls()
    node.run(30)
    assert place.calls() <= calls + 4


def test_a_full_range_is_told_without_numbers_where_nobody_may_see_them() -> None:
    """The permission to look at the subnet is not needed for anything else."""
    place = Place("10.4.0.0/28")
    node = place.node()
    node.run(20)
    node.refusals[SUBNET] = [Refused(SUBNET, "forbidden", "no")] * 9
    node.add(17)
    node.run(30)
    assert "no /28 is left in secondary range pods; " not in str(node.fabric.shortage(NO_ADDRESS).failure)
    assert "no /28 is left in secondary range pods" in str(node.fabric.shortage(NO_ADDRESS).failure)


def test_large_ranges_give_way_to_small_ones_where_there_are_none_left() -> None:
    """A fragmented range has no /26, and /28s still."""
    place = Place("10.4.0.0/26")
    others = place.node(seed=1)
    others.run(20)
    chosen = AliasOptions(range="pods", warm=Targets(warm_addresses=33, prefix_size=16, largest_size=64), most=2)
    node = place.node(chosen)
    node.run(60)
    assert {block.prefixlen for block in ranges(node)} == {27, 28}


def test_an_interface_that_takes_no_more_is_believed(place: Place) -> None:
    """Some projects allow fewer ranges: pods are told, and what to set."""
    place.project.most_ranges = 2
    node = place.node()
    node.run(20)
    node.add(40)
    node.run(60)
    assert "the interface takes no more than" in str(node.fabric.shortage(NO_ADDRESS).failure)
    assert "gcp.max_ranges" in str(node.fabric.shortage(NO_ADDRESS).failure)


def test_a_network_that_may_have_no_more_ranges_is_told(place: Place) -> None:
    """All nodes' together: as many as are left are had, and what to ask Google for is said; nothing of the interface's
    own limit, which is far."""
    place.project.most_aliases = 5
    other = place.node(options(warm_addresses=16))
    other.run(20)
    node = place.node()
    node.run(20)
    node.add(80)
    node.run(40)
    assert len(ranges(other) | ranges(node)) == 5
    told = node.fabric.shortage(NO_ADDRESS)
    assert isinstance(told.failure, Exhausted)
    assert "the VPC network may have no more alias ranges" in str(told.failure)
    assert "higher quota" in str(told.failure)
    assert "gcp.max_ranges" not in str(told.failure)
    place.project.most_aliases = None
    node.run(200)
    assert len(node.pods) == 80
    well(node)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Refused(UPDATE, "forbidden", "Required 'compute.instances.updateNetworkInterface'"), "gcp-alias-role.yaml"),
        (Refused(UPDATE, "RefreshError", "no token"), "GCP does not accept this node's credentials"),
        (Refused(UPDATE, "invalid", "Invalid value"), "GCP refused instances.updateNetworkInterface"),
    ],
)
def test_what_is_refused_is_told_and_tried_again(place: Place, error: CloudError, words: str) -> None:
    """In words for whoever has to act; it ends when the API does it."""
    node = place.node()
    node.run(20)
    node.refusals[UPDATE] = [error, error, error]
    node.add(20)
    while words not in "; ".join(node.fabric.report().obstacles):
        assert node.refusals[UPDATE]
        node.run(0.1)
    node.run(1200)
    assert len(node.pods) == 20
    well(node)


def test_too_many_calls_are_answered_by_waiting(place: Place) -> None:
    """With jitter, each time twice as long; the agent goes on serving from what it has."""
    node = place.node()
    node.run(20)
    throttled = Throttled(UPDATE, "rateLimitExceeded", "slow down")
    node.refusals[UPDATE] = [throttled] * 4
    node.add(20)
    assert len(node.pods) == 16
    node.run(90)
    assert len(node.pods) == 20
    assert node.fabric.cloud.calls[UPDATE, "rateLimitExceeded"] == 4
    well(node)


@pytest.mark.parametrize(
    "code", ["RESOURCE_OPERATION_RATE_EXCEEDED", "IP_IN_USE_BY_ANOTHER_RESOURCE", "INTERNAL_ERROR"]
)
def test_an_error_in_the_operation_is_told_and_tried_again(place: Place, code: str) -> None:
    """The call itself had succeeded."""
    node = place.node()
    node.run(20)
    node.add(20)
    operation = place.project.operations.by_name[under_way(node)]
    operation.wanted, operation.error = None, Failed(code, "not now")
    while node.fabric.holding.intents:
        node.run(0.1)
    assert code in "; ".join(node.fabric.report().obstacles)
    node.run(120)
    assert len(node.pods) == 20
    well(node)


def test_a_silent_api_is_told(place: Place) -> None:
    """Pods do not wait for it; what there is is served."""
    node = place.node()
    node.run(20)
    for action in (GET, UPDATE, OPERATION):
        node.refusals[action] = [Lost(action, "ConnectionError", "no route")] * 100
    node.add(17)
    node.run(60)
    told = node.fabric.shortage(NO_ADDRESS)
    assert not told.may_end
    assert "GCP gives no answers" in str(told.failure)
    assert "no route" in str(told.failure)
    (obstacle,) = node.fabric.report().obstacles
    assert obstacle.startswith("GCP gives no answers: ")
    assert "no route" in obstacle
    node.refusals.clear()
    node.run(200)
    assert not node.parked
    assert node.fabric.report().obstacles == ()
    well(node)


def test_an_unknown_refusal_of_the_look_is_told(place: Place) -> None:
    """The instance may not even be looked at."""
    node = place.node()
    node.refusals[GET] = [Refused(GET, "forbidden", "no")] * 3
    node.add(1)
    node.run(10)
    told = node.fabric.shortage(NO_ADDRESS)
    assert isinstance(told.failure, FabricRefused | TryAgain)
    assert "GCP refused instances.get" in str(told.failure)


# --- lost answers, and death ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", [GET, UPDATE, OPERATION])
def test_a_lost_answer_neither_leaks_nor_doubles(place: Place, action: str) -> None:
    """The same change is asked for by the same id, and is one."""
    node = place.node()
    place.project.fail(action, 1, "lost_after")
    node.run(60)
    assert len(ranges(node)) == 1
    place.project.fail(action, 1, "lost_after")
    node.add(20)
    node.run(60)
    assert len(ranges(node)) == 3
    place.project.fail(action, 1, "lost_after")
    node.delete(20)
    node.run(REST)
    assert len(ranges(node)) == 1
    well(node)


def test_an_operation_that_may_not_be_asked_for_is_asked_for_again(place: Place) -> None:
    """The change is done all the same, and is one."""
    node = place.node()
    place.project.fail(OPERATION, 1, "denied")
    node.run(REST)
    assert len(ranges(node)) == 1
    well(node)


def shrinking(place: Place) -> AliasNode:
    """A node that is about to give back four ranges, and has lots of pods a moment later."""
    node = place.node(options(delay=60.0))
    node.run(20)
    node.add(60)
    node.run(20)
    node.delete(60)
    node.run(60)
    return node


def test_a_pod_that_comes_while_a_range_is_about_to_go_keeps_it(place: Place) -> None:
    """The policy has decided, the range is still offered; then it is withdrawn, and found to be used."""
    node = shrinking(place)
    before = ranges(node)

    def arrive() -> None:
        node.add(80)
        node.on_settle = lambda: None

    node.on_settle = arrive
    node.run(40)
    assert len(node.pods) == 80
    assert ranges(node) >= before
    well(node)


@pytest.mark.parametrize("code", ["forbidden", "resourceNotReady", "RefreshError"])
def test_what_may_still_go_is_not_offered(place: Place, code: str) -> None:
    """The answer to a change was lost, and it is refused when it is asked for again: the first may be under way."""
    node = shrinking(place)
    place.project.operations.running = 30.0
    place.project.fail(UPDATE, 1, "lost_after")
    while not node.fabric.holding.intents:
        node.run(0.1)
    node.refusals[UPDATE] = [Refused(UPDATE, code, "not now")] * 3
    node.run(5)
    assert len(node.refusals[UPDATE]) < 3
    node.add(60)
    node.run(REST)
    assert len(node.pods) == 60
    well(node)


def lost_shrinking(place: Place) -> AliasNode:
    """A node whose change that gives ranges back never arrived, nor was answered."""
    node = shrinking(place)
    place.project.fail(UPDATE, 1, "lost_before")
    while not node.fabric.holding.intents:
        node.run(0.1)
    return node


def test_what_somebody_changed_meanwhile_is_not_asked_for_again(place: Place) -> None:
    """The fingerprint says that it never will be made: the ranges are offered again, and go another time."""
    node = lost_shrinking(place)
    place.hands.touch(node.instance)
    node.run(STALE + 5)
    assert place.project.calls[UPDATE, "conditionNotMet"] == 1
    node.run(REST)
    assert len(ranges(node)) == 1
    well(node)


def test_what_is_found_to_be_used_is_not_asked_for_again(place: Place) -> None:
    """A lease that nobody knew of, as one that is adopted from the kernel after the journal was lost."""
    node = lost_shrinking(place)
    before = ranges(node)
    node.allocator.offer({Block(block, "nic0", reserve=False) for block in before})
    node.add(len(before) * 16)
    assert not node.parked
    node.run(STALE + 60)
    assert ranges(node) >= before
    well(node)


def test_a_range_that_had_to_stay_is_not_thought_of_for_a_while(place: Place) -> None:
    """The policy would have it tried every second."""
    node = shrinking(place)
    place.project.fail(UPDATE, 1, "lost_before")
    node.on_settle = lambda: node.add(1)
    for _ in range(30):
        node.run(4)
        node.delete(60)
    node.on_settle = lambda: None
    node.run(REST)
    well(node)


def test_a_lost_change_that_is_refused_when_it_is_asked_for_again(place: Place) -> None:
    """More was asked for: whether that comes still or not, nothing is doubled."""
    node = place.node()
    node.run(20)
    place.project.fail(UPDATE, 1, "lost_before")
    node.refusals[UPDATE] = []
    node.add(20)
    while not node.fabric.holding.intents:
        node.run(0.1)
    node.refusals[UPDATE] = [Refused(UPDATE, "forbidden", "no")]
    node.run(REST)
    assert len(node.pods) == 20
    assert len(ranges(node)) == 3
    well(node)


def test_an_operation_that_was_forgotten_is_found_by_its_request(place: Place) -> None:
    """Or is not known to every server yet."""
    place.project.become(operation_unseen=(4.0, 4.0))
    node = place.node()
    node.run(40)
    assert len(ranges(node)) == 1
    well(node)


def test_a_silent_api_after_a_restart_has_the_metadata_believed(place: Place) -> None:
    """Half a minute later: the ranges that it shows are given to pods."""
    node = place.node(started=(("/27", "pods"),))
    node.refusals[GET] = [Lost(GET, "ConnectionError", "no route")] * 100
    node.add(1)
    node.run(20)
    assert node.parked
    assert "not certain yet" in str(node.fabric.shortage(NO_ADDRESS).failure)
    node.run(20)
    assert not node.parked


def test_a_machine_without_its_interface_is_told(place: Place) -> None:
    """No link here has its hardware address, as in another network namespace; or the API shows none."""
    node = place.node()
    node.has_device = False
    node.run(20)
    assert "no link here has the hardware address 42:01:" in "; ".join(node.fabric.report().obstacles)
    node.has_device = True
    place.project.instances[node.instance].nic.name = "nic7"
    node.fabric.holding.unclear()
    node.add(20)
    node.run(3)
    assert "has no interface nic0" in "; ".join(node.fabric.report().obstacles)


def test_whom_the_host_answers_for_is_told(place: Place) -> None:
    """Of the ranges of the node alone; what cannot be looked at is not known."""
    node = place.node()
    node.answered = lambda: frozenset({IPNetwork("10.4.0.0/28"), IPNetwork("10.77.0.0/28")})
    node.run(100)
    assert node.fabric.told().sections["gcp"]["answered_by_host"] == ["10.4.0.0/28"]

    def unseen() -> frozenset[IPNetwork]:
        raise TryAgain("cannot be looked at")

    node.answered = unseen
    node.run(100)
    assert node.fabric.told().sections["gcp"]["answered_by_host"] == ["10.4.0.0/28"]


@pytest.mark.parametrize("is_after", [False, True])
@pytest.mark.parametrize("nth", range(1, 16))
def test_death_at_every_step_of_growing_and_shrinking(nth: int, is_after: bool) -> None:
    """Before and after every call and every write of the journal: the next process goes on; nothing leaks, nothing is
    doubled, and no address of a living pod leaves."""
    place = Place()
    node = place.node(options(delay=60.0))
    node.run(20)
    node.blows.nth, node.blows.is_after, node.blows.count = nth, is_after, 0
    for seconds, more, less in ((1, 40, 0), (60, 0, 38), (600, 0, 0)):
        try:
            node.add(more)
            node.delete(less)
            node.run(seconds)
        except Killed:
            node.crash()
        assert not node.unserved()
    kept = node.addresses()
    node.run(REST)
    assert node.addresses() >= kept
    assert len(node.pods) + len(node.parked) >= 2
    assert len(ranges(node)) <= 3
    assert node.blows.nth == 0, "the blow did not come"
    well(node)


def test_a_restart_asks_nobody_where_journal_and_metadata_agree(place: Place) -> None:
    """So neither the library nor the API is needed for it."""
    node = place.node()
    node.add(5)
    node.run(100)
    calls = place.calls()
    node.crash()
    node.run(1)
    node.add(5)
    assert not node.parked
    node.run(200)
    assert place.calls() == calls


def test_what_the_metadata_alone_shows_is_doubted_after_a_restart(place: Place) -> None:
    """It lags behind: a range that is gone is not given to a pod."""
    node = place.node()
    node.run(20)
    node.add(20)
    node.run(20)
    node.delete(20)
    place.project.lag = 10_000.0
    node.run(REST)
    (block,) = ranges(node)
    assert len(place.project.told(node.instance).aliases) == 3
    node.crash()
    node.run(60)
    node.add(16)
    assert all(one in block for one in node.addresses())
    well(node)


def test_an_answer_that_is_older_than_the_change_is_not_believed(place: Place) -> None:
    """A range that was given back is not offered again because some server still shows it."""
    place.project.become(get_lag=(0.0, 20.0))
    node = place.node(options(delay=10.0))
    node.run(60)
    for _ in range(4):
        node.add(40)
        node.run(60)
        node.delete(40)
        for _ in range(30):
            node.run(5)
            node.add(1)
            assert not node.unserved()
            node.delete(1)
    node.run(REST)
    well(node)


@pytest.mark.parametrize("nth", range(1, 12))
def test_a_restart_while_answers_are_old(nth: int) -> None:
    """What a process knew of its last change the next one knows, too."""
    place = Place()
    place.project.become(get_lag=(0.0, 20.0), seed=nth)
    node = place.node(options(delay=10.0))
    node.run(60)
    node.add(40)
    node.run(60)
    node.delete(40)
    node.run(30 + 3 * nth)
    for _ in range(10):
        node.crash()
        node.add(20)
        node.run(7)
        assert not node.unserved()
        node.delete(20)
    node.run(REST)
    well(node)


def test_another_machines_journal_is_not_gone_on_with(place: Place) -> None:
    """An image that was made of a node's disk."""
    node = place.node()
    node.run(20)
    node.add(20)
    node.run(1)
    other = place.node(seed=1)
    other.journal.kept = dict(node.journal.kept)
    other.start()
    other.run(60)
    node.run(60)
    assert not ranges(node) & ranges(other)
    well(other)
    well(node)


def test_many_nodes_share_a_range(place: Place) -> None:
    """Each has its own, none has another's."""
    nodes = [place.node(seed=number) for number in range(8)]
    for node in nodes:
        node.add(30)
    together(nodes, 60, place.clock)
    blocks = [block for node in nodes for block in ranges(node)]
    assert len(blocks) == len(set(blocks))
    for node in nodes:
        well(node)
