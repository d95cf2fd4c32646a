"""The fabric of ``aws-eni`` on the emulated EC2: more and less, limits, faults, death at every step, random churn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from netaddr import IPNetwork, IPSet

from backends.aws.inventory import STALE, Intent
from backends.aws.options import EniOptions
from backends.aws.sweep import AGE, INTERVAL
from cni.errors import Exhausted, FabricRefused, TryAgain
from ipam.warmpool import Targets
from tests.cloud.machine import Clock, Killed, Machine, together
from tests.cloud.region import Region

REST = 1500.0
"""Seconds after which everything that is under way has ended, EC2 was asked again, and what is spare was given back."""
NO_ADDRESS = Exhausted("no address")


class Place:
    """A region with one VPC and one subnet."""

    def __init__(self, cidr: str = "10.0.0.0/20", cidr6: str = "") -> None:
        self.clock = Clock()
        self.region = Region(self.clock)
        self.region.attach_delay = self.region.detach_delay = 3.0
        self.vpc = self.region.add_vpc("10.0.0.0/16")
        self.subnet = self.region.add_subnet(self.vpc, cidr, cidr6)

    def machine(self, type_: str = "m5.large", options: EniOptions | None = None, seed: int = 0) -> Machine:
        instance = self.region.run_instance(type_, self.subnet)
        return Machine(self.region, self.clock, instance, options, seed)

    def calls(self, action: str) -> int:
        """How many calls of *action* succeeded."""
        return self.region.calls[action, ""]


@pytest.fixture
def place() -> Place:
    """One subnet of 4,091 addresses."""
    return Place()


def well(machine: Machine) -> None:
    """All is as it must be when nothing is under way."""
    assert machine.differences() == []
    assert machine.unserved() == set()
    assert machine.fabric.inventory.intents == ()
    assert not machine.parked


# --- more, and less -----------------------------------------------------------------------------------------------


def test_a_node_starts_with_one_call_for_addresses(place: Place) -> None:
    """A prefix: what its type can have the table says, the rest the metadata. Pods then get addresses without more."""
    machine = place.machine()
    machine.run(5)
    assert place.calls("AssignPrivateIpAddresses") == 1
    assert sum(place.region.calls.values()) == 1
    machine.add(16)
    assert not machine.parked
    well(machine)


def test_a_burst_is_met_with_one_call(place: Place) -> None:
    """100 pods that come together wait for one call, not for a hundred."""
    machine = place.machine()
    machine.run(5)
    machine.add(100)
    machine.run(10)
    assert place.calls("AssignPrivateIpAddresses") == 2
    assert len(machine.pods) == 100
    assert max(machine.waits) < 3


def test_more_pods_than_an_interface_has_room_for(place: Place) -> None:
    """Another interface is made with its prefixes, tagged, bound to the instance, and used once its device is there."""
    machine = place.machine()
    machine.run(5)
    machine.add(150)
    machine.run(30)
    assert len(machine.pods) == 150
    (nic,) = [one for one in place.region.nics.values() if one.attachment and one.attachment.index == 1]
    assert nic.tags["routable:cluster"] == "routable"
    assert nic.tags["routable:instance"] == machine.instance
    well(machine)


class Flickering(Machine):
    """Once it flickers, the devices besides the primary one are away in every second look."""

    is_flickering = False
    looks = 0

    def devices(self) -> Mapping[str, str]:
        self.looks += 1
        is_away = self.is_flickering and self.looks % 2
        return {mac: name for mac, name in super().devices().items() if name == "eth0" or not is_away}


@pytest.mark.parametrize("before", [0, 1])
def test_what_is_offered_and_what_is_wired_come_of_one_look(place: Place, before: int) -> None:
    """A device that goes or comes meanwhile does not part them; and a look asks the kernel."""
    instance = place.region.run_instance("m5.large", place.subnet)
    machine = Flickering(place.region, place.clock, instance)
    machine.run(5)
    machine.add(150)
    machine.run(60)
    assert len(place.region.nics) == 2
    machine.is_flickering, machine.looks = True, before
    supplied = machine.fabric.supplied(machine.here)
    assert {block.network for block in supplied.blocks} == {one for nic in supplied.interfaces for one in nic.blocks}
    assert machine.looks == before + 1


def test_what_is_idle_is_given_back_after_a_while(place: Place) -> None:
    """And a whole interface when none of its addresses is used; the warm prefix stays, on the interface that stays."""
    machine = place.machine()
    machine.run(5)
    machine.add(300)
    machine.run(60)
    assert len(place.region.nics) == 3
    machine.delete(300)
    machine.run(20)
    assert len(place.region.nics) == 3  # addresses cool down, and idleness must last
    machine.run(REST)
    (nic,) = place.region.nics.values()
    assert len(nic.blocks) == 1
    well(machine)


def test_what_is_used_stays(place: Place) -> None:
    """A prefix of which one address is used is not given back, and its pod keeps the address."""
    machine = place.machine()
    machine.run(5)
    machine.add(60)
    machine.run(10)
    machine.delete(59)
    before = machine.addresses()
    machine.run(REST)
    assert machine.addresses() == before
    well(machine)


class Arrival:
    """400 pods that come to *machine* at the *nth* moment; whoever has an address has one that EC2 delivers, always."""

    def __init__(self, machine: Machine, nth: int) -> None:
        self._machine = machine
        self._left = nth

    def moment(self) -> None:
        if self._left == 0:
            self._machine.add(400)
        self._left -= 1
        assert self._machine.unserved() == set()


@pytest.mark.parametrize(
    ("when", "nth"),
    [(when, nth) for when, moments in {"step": 30, "call": 24, "settle": 6}.items() for nth in range(moments)],
)
def test_pods_may_come_at_any_moment_while_addresses_are_given_back(place: Place, when: str, nth: int) -> None:
    """Between steps, within calls, before passes: they are given addresses that stay, or wait for new ones; nobody has
    one of a block that is on its way out."""
    machine = place.machine(options=EniOptions(warm=Targets(warm_prefixes=0)))
    machine.run(5)
    machine.add(300)
    machine.run(60)
    assert len(place.region.nics) == 3
    machine.delete(300)
    machine.run(88)  # cooled down, and idle for nearly as long as it takes
    arrival = Arrival(machine, nth)
    if when == "call":
        place.region.on_call = lambda is_after: arrival.moment()
    if when == "settle":
        machine.on_settle = arrival.moment
    end = place.clock.now + 40
    while place.clock.now < end:
        place.clock.now += machine.turn()
        if when == "step":
            arrival.moment()
    place.region.on_call, machine.on_settle = lambda is_after: None, lambda: None
    machine.run(60)
    assert len(machine.pods) == 400
    well(machine)


def test_the_primary_interface_stays_whatever_its_tags_say(place: Place) -> None:
    """The IAM policy wants the cluster's tag on it, too: by that it is not one that an agent made."""
    instance = place.region.run_instance("m5.large", place.subnet, tags={"routable:cluster": "routable"})
    machine = Machine(place.region, place.clock, instance, EniOptions(warm=Targets(warm_prefixes=0)))
    machine.add(250)
    machine.run(60)
    machine.delete(200)
    machine.run(REST)
    assert {error for _, error in place.region.calls} == {""}
    assert place.region.instances[instance].nics[0].blocks == []
    assert machine.fabric.inventory.enis.keys() == place.region.nics.keys()
    well(machine)


def test_addresses_instead_of_prefixes(place: Place) -> None:
    """With mode "address", and on types without Nitro, slots hold single addresses."""
    warm = Targets(is_prefix_mode=False, warm_addresses=2, minimum_addresses=8)
    machine = place.machine(options=EniOptions(warm=warm))
    machine.run(5)
    (nic,) = place.region.nics.values()
    assert sorted(block.prefixlen for block in nic.blocks) == [32] * 8
    assert place.calls("AssignPrivateIpAddresses") == 1
    old = place.machine("t2.medium")
    old.run(5)
    old.add(3)
    old.run(5)
    assert {block.prefixlen for nic in place.region.attached(old.instance) for block in nic.blocks} == {32}
    well(old)


def test_reserved_interfaces_are_not_for_pods(place: Place) -> None:
    """The primary one's addresses are left alone."""
    machine = place.machine(options=EniOptions(reserved=1))
    machine.run(20)
    blocks = {nic.attachment.index: nic.blocks for nic in place.region.attached(machine.instance) if nic.attachment}
    assert not blocks[0]
    assert blocks[1]
    machine.add(3)
    well(machine)


def test_ipv6_makes_every_pod_dual_stack() -> None:
    """No pod gets an address before there is one of each family."""
    place = Place(cidr6="2001:db8:0:1::/64")
    machine = place.machine(options=EniOptions(ipv6=True))
    machine.add(1)
    machine.run(5)
    (lease,) = machine.allocator.leases.values()
    assert [address.version for address in lease.addresses] == [4, 6]
    machine.run(REST)
    well(machine)


# --- limits ---------------------------------------------------------------------------------------------------


def test_the_instances_limit_is_named() -> None:
    """432 addresses are all that an m5.large can have; the next pod is told so."""
    place = Place()
    machine = place.machine()
    machine.add(433)
    machine.run(60)
    shortage = machine.fabric.shortage(NO_ADDRESS).failure
    assert isinstance(shortage, Exhausted)
    assert shortage.message == (
        "no address is free: 432 of 432 addresses in use, 27 of 27 slots taken, 3 of 3 interfaces attached"
    )


def test_a_fragmented_subnet_gives_single_addresses_for_now() -> None:
    """And prefixes again when there are some."""
    place = Place("10.0.0.0/26")
    others = [place.machine("m5.large", EniOptions(warm=Targets(False, warm_addresses=0))) for _ in range(2)]
    holes = []
    for block in range(3):  # one address of each /28 is somebody's
        address = next(one for one in IPNetwork("10.0.0.0/26")[16 * block + 8 :])
        assert others[0].region.subnets[place.subnet].addresses.take_this(address)
        holes.append(IPNetwork(address))
    machine = place.machine()
    machine.add(20)
    machine.run(30)
    assert len(machine.pods) == 20
    assert ("AssignPrivateIpAddresses", "InsufficientCidrBlocks") in place.region.calls
    assert any(block.prefixlen == 32 for nic in place.region.attached(machine.instance) for block in nic.blocks)
    well(machine)
    machine.delete(20)
    machine.run(REST)
    for hole in holes:
        place.region.subnets[place.subnet].addresses.give_back(hole)
    machine.run(REST)
    assert {block.prefixlen for nic in place.region.attached(machine.instance) for block in nic.blocks} == {28}
    machine.add(10)
    machine.run(30)
    assert len(machine.pods) == 10
    well(machine)


def test_a_full_subnet_is_named_and_another_is_used() -> None:
    """Interfaces are made where most addresses are free; with none left, the pod is told which subnet is full."""
    place = Place("10.0.0.0/27")
    second = place.region.add_subnet(place.vpc, "10.0.1.0/27", tags={"pods": "yes"})
    machine = place.machine("m5.xlarge", EniOptions(subnet_tags={"pods": "yes"}))
    machine.add(80)
    machine.run(60)
    assert {nic.subnet.id for nic in place.region.attached(machine.instance)} == {place.subnet, second}
    shortage = machine.fabric.shortage(NO_ADDRESS).failure
    assert isinstance(shortage, Exhausted)
    assert "has no free address" in str(shortage)
    assert machine.differences() == []


def test_security_groups_by_tag(place: Place) -> None:
    """Of this VPC alone; those wanted or none at all, since EC2 would take the VPC's default group."""
    group = place.region.add_group(place.vpc, {"pods": "yes"})
    place.region.add_group(place.vpc, {"pods": "no"})
    place.region.add_group(place.region.add_vpc("10.9.0.0/16"), {"pods": "yes"})
    machine = place.machine(options=EniOptions(group_tags={"pods": "yes"}))
    machine.add(150)
    machine.run(30)
    (nic,) = [one for one in place.region.nics.values() if one.attachment and one.attachment.index == 1]
    assert nic.groups == [group]
    other = place.machine(options=EniOptions(group_tags={"pods": "perhaps"}), seed=1)
    other.add(150)
    other.run(30)
    assert len(place.region.instances[other.instance].nics) == 1
    failure = other.fabric.shortage(NO_ADDRESS).failure
    assert "no security group of the VPC has the wanted tags" in failure.message
    place.region.add_group(place.vpc, {"pods": "perhaps"})
    other.run(90)
    assert len(other.pods) == 150
    well(other)


def test_an_interface_that_was_begun_is_the_one_that_was_asked_for(place: Place) -> None:
    """With its security groups, though others are configured by the time of the restart: the token stands for all."""
    machine = place.machine()
    machine.run(5)
    machine.add(150)
    fault = place.region.fail("CreateNetworkInterface", 1, "lost_after")
    while not fault.is_consumed:
        machine.run(0.5)
    machine.options = EniOptions(groups=("sg-2",))
    machine.crash()
    machine.run(60)
    assert {error for action, error in place.region.calls if action == "CreateNetworkInterface"} == {""}
    assert [nic.groups for nic in place.region.nics.values()] == [["sg-1"], ["sg-1"]]
    assert len(machine.pods) == 150
    well(machine)


def test_subnets_by_tag_are_those_of_this_vpc(place: Place) -> None:
    """Another VPC's may have the same tags: nothing there could be attached here."""
    place.region.add_subnet(place.region.add_vpc("10.9.0.0/16"), "10.9.0.0/16", tags={"pods": "yes"})
    mine = place.region.add_subnet(place.vpc, "10.0.64.0/24", tags={"pods": "yes"})
    machine = place.machine(options=EniOptions(subnet_tags={"pods": "yes"}))
    machine.add(150)
    machine.run(30)
    assert {nic.subnet.id for nic in place.region.nics.values()} == {place.subnet, mine}
    well(machine)


def test_the_vpcs_units_are_named(place: Place) -> None:
    """NetworkAddressUsageLimitExceeded; when there are more again, the pod gets its address."""
    place.region.units = 2
    machine = place.machine()
    machine.add(17)
    machine.run(10)
    assert "network address units" in machine.fabric.shortage(NO_ADDRESS).failure.message
    place.region.units = 10
    machine.run(120)
    well(machine)


def test_an_interface_that_cannot_be_attached_is_deleted(place: Place) -> None:
    """Somebody attached others: nothing is left behind, and the limit is named."""
    machine = place.machine("t3.medium")
    machine.run(5)
    for index in (1, 2):
        other = place.region.call("CreateNetworkInterface", {"SubnetId": place.subnet})["NetworkInterface"]
        attach = {"NetworkInterfaceId": other["NetworkInterfaceId"], "InstanceId": machine.instance}
        answer = place.region.call("AttachNetworkInterface", {**attach, "DeviceIndex": index + 3})
        change = {"AttachmentId": answer["AttachmentId"], "DeleteOnTermination": True}
        place.region.call(
            "ModifyNetworkInterfaceAttribute",
            {"NetworkInterfaceId": attach["NetworkInterfaceId"], "Attachment": change},
        )
    machine.add(100)
    machine.run(60)
    assert ("AttachNetworkInterface", "AttachmentLimitExceeded") in place.region.calls
    assert len(place.region.nics) == 3
    assert isinstance(machine.fabric.shortage(NO_ADDRESS).failure, Exhausted)
    machine.parked.clear()
    machine.run(REST)
    assert not [one for one in machine.differences() if "left behind" in one]


def test_what_may_not_be_called_is_named(place: Place) -> None:
    """The pod is told which action is missing in the policy; limits come from the table then."""
    denied = ("DescribeInstanceTypes", "AssignPrivateIpAddresses", "CreateNetworkInterface")
    place.region.authorize = lambda action, _: action not in denied
    machine = place.machine()
    machine.add(1)
    machine.run(10)
    shortage = machine.fabric.shortage(NO_ADDRESS).failure
    assert isinstance(shortage, FabricRefused)
    assert "AssignPrivateIpAddresses" in str(shortage)
    place.region.authorize = lambda action, _: action != "DescribeInstanceTypes"
    machine.run(120)
    well(machine)


# --- what others do -------------------------------------------------------------------------------------------


def test_throttling_is_waited_out(place: Place) -> None:
    """A pod waits, and is told so; each refusal is answered by a longer pause."""
    machine = place.machine()
    faults = [place.region.fail("AssignPrivateIpAddresses", nth, "throttle") for nth in range(1, 5)]
    machine.add(1)
    machine.run(1.5)
    assert isinstance(machine.fabric.shortage(NO_ADDRESS).failure, TryAgain)
    machine.run(30)
    assert all(fault.is_consumed for fault in faults)
    well(machine)
    told = {one.name: dict(one.numbers) for one in machine.fabric.told().measures}["routable_cloud_throttled"]
    assert told["AssignPrivateIpAddresses",] == len(faults)


def test_no_answers_at_all(place: Place) -> None:
    """The agent goes on with what it has, asks less and less, and catches up later."""
    machine = place.machine()
    machine.run(5)
    machine.add(10)
    for nth in range(1, 2000):
        place.region.fail("*", nth, "error500")
    machine.add(20)
    machine.run(300)
    assert len(machine.pods) == 16
    assert sum(place.region.calls.values()) < 30
    assert machine.fabric.cloud.is_silent
    told = machine.fabric.shortage(NO_ADDRESS).failure
    assert "gives no answers" in told.message
    assert "InternalError" in told.details
    (obstacle,) = machine.fabric.report().obstacles
    assert obstacle.startswith("EC2 gives no answers: ")
    assert "InternalError" in obstacle
    place.region.faults.clear()
    machine.run(300)
    well(machine)


def test_a_lost_reply_is_not_a_lost_prefix(place: Place) -> None:
    """The call is not made again: EC2 is asked what it did, even while its answers lag behind."""
    place.region.staleness = 4.0
    machine = place.machine()
    fault = place.region.fail("AssignPrivateIpAddresses", 1, "lost_after")
    machine.add(1)
    machine.run(30)
    assert fault.is_consumed
    assert len(machine.pods) == 1
    machine.run(REST)
    well(machine)


def test_the_metadata_does_not_bring_back_what_was_given_back(place: Place) -> None:
    """A process that starts just after a prefix was given back, while the metadata still shows it and EC2 is silent."""
    place.region.lag = 60.0
    machine = place.machine()
    machine.run(100)
    machine.add(40)
    machine.run(70)
    machine.delete(40)
    while place.calls("UnassignPrivateIpAddresses") == 0:
        machine.run(1)
    machine.run(2)
    for nth in range(1, 100):
        place.region.fail("*", nth, "error500")
    machine.crash()
    machine.run(20)
    machine.add(30)
    assert machine.pods
    assert machine.unserved() == set()


def test_a_block_that_the_metadata_does_not_show_yet_keeps_its_pods_wiring(place: Place) -> None:
    """A process that starts while the metadata lags behind, and EC2 is silent: the pods of what came last are served,
    and nobody else is given an address of it."""
    machine = place.machine(options=EniOptions(warm=Targets(is_prefix_mode=False, warm_addresses=0)))
    machine.run(5)
    machine.add(14)
    machine.run(100)
    place.region.lag = 60.0
    machine.add(3)
    machine.run(10)
    assert len(machine.pods) == 17
    for nth in range(1, 1000):
        place.region.fail("*", nth, "error500")
    machine.crash()
    machine.run(2)
    supplied = machine.fabric.supplied(machine.here)
    wired = IPSet(block for one in supplied.interfaces for block in one.blocks)
    assert not [one for one in machine.addresses() if one not in wired]
    assert not supplied.blocks
    machine.run(20)
    offered = IPSet(block.network for block in machine.fabric.supplied(machine.here).blocks)
    assert len([one for one in machine.addresses() if one in offered]) == 14
    place.region.faults.clear()
    place.region.lag = 0.0
    machine.run(REST)
    well(machine)


def test_what_ec2_took_away_is_offered_no_more(place: Place) -> None:
    """Somebody takes a free prefix by other means: at the next look it is noticed, and none is given of it."""
    machine = place.machine()
    machine.run(5)
    machine.add(1)
    (nic,) = place.region.nics.values()
    place.region.call("AssignPrivateIpAddresses", {"NetworkInterfaceId": nic.id, "Ipv4PrefixCount": 1})
    machine.run(700)
    assert len(machine.fabric.inventory.enis[nic.id].blocks) >= 1
    spare = max(nic.blocks)
    place.region.call("UnassignPrivateIpAddresses", {"NetworkInterfaceId": nic.id, "Ipv4Prefixes": [str(spare)]})
    machine.run(REST)
    machine.add(40)
    machine.run(20)
    well(machine)


def test_an_address_that_ec2_took_from_a_pod_is_told(place: Place) -> None:
    """The pod keeps it, since only its deletion helps, and the operator is told which."""
    machine = place.machine()
    machine.run(5)
    machine.add(1)
    (nic,) = place.region.nics.values()
    texts = [str(block) for block in nic.blocks]
    place.region.call("UnassignPrivateIpAddresses", {"NetworkInterfaceId": nic.id, "Ipv4Prefixes": texts})
    (address,) = machine.addresses()
    assert place.region.subnets[place.subnet].addresses.take_this(address)  # it does not come again
    machine.run(700)
    assert machine.fabric.report().undelivered == (str(address),)
    machine.delete(1)
    assert machine.fabric.report().undelivered == ()


def test_a_lost_journal_loses_no_interface(place: Place) -> None:
    """Pods on an interface that only the metadata still knows keep their wiring, even while EC2 gives no answers; it is
    not given to others before EC2 has said that it is ours."""
    machine = place.machine()
    machine.run(5)
    machine.add(150)
    machine.run(30)
    machine.journal.kept.clear()
    for nth in range(1, 1000):
        place.region.fail("*", nth, "error500")
    machine.crash()
    machine.run(20)
    supplied = machine.fabric.supplied(machine.here)
    assert [one.index for one in supplied.interfaces] == [0, 1]
    primary = next(nic for nic in place.region.nics.values() if nic.attachment and nic.attachment.index == 0)
    assert {block.owner for block in supplied.blocks} == {primary.id}
    place.region.faults.clear()
    machine.run(200)
    assert len({block.owner for block in machine.fabric.supplied(machine.here).blocks}) == 2
    machine.run(REST)
    well(machine)


def test_a_node_from_anothers_image_leaves_the_others_interfaces_alone(place: Place) -> None:
    """Its journal is the other's, who was about to delete an interface and has it still; and so it gets its own."""
    first = place.machine()
    first.run(30)
    first.add(100)
    first.run(30)
    first.add(50)
    first.run(30)
    name = next(one.id for one in first.fabric.inventory.enis.values() if not one.is_primary)
    first.fabric.inventory.begin(Intent("delete", place.clock.now, name))
    before = place.region.nics[name]
    second = place.machine()
    second.journal.kept = dict(first.journal.kept)
    second.crash()
    second.run(120)
    assert place.region.nics[name] is before
    assert before.attachment is not None
    assert before.attachment.instance == first.instance
    assert not second.fabric.inventory.intents
    second.add(20)
    second.run(60)
    assert not second.parked


def test_an_interface_of_somebody_else_is_left_alone(place: Place) -> None:
    """Attached, but without our tag: not wired, not filled, not deleted."""
    machine = place.machine()
    machine.run(5)
    foreign = place.region.call("CreateNetworkInterface", {"SubnetId": place.subnet, "Ipv4PrefixCount": 1})
    name = foreign["NetworkInterface"]["NetworkInterfaceId"]
    attach = {"NetworkInterfaceId": name, "InstanceId": machine.instance, "DeviceIndex": 1}
    place.region.call("AttachNetworkInterface", attach)
    machine.run(1300)
    assert name in machine.fabric.inventory.enis
    supplied = machine.fabric.supplied(machine.here)
    assert [one.index for one in supplied.interfaces] == [0]
    machine.add(250)
    machine.run(60)
    assert place.region.nics[name].attachment is not None
    assert len(place.region.nics[name].blocks) == 1
    assert not machine.addresses() & set(place.region.nics[name].blocks[0])


def test_an_interface_that_is_young_or_not_an_agents_is_not_swept(place: Place) -> None:
    """Somebody may be about to attach it; and who does not say when it was made was not made by an agent."""
    machine = place.machine()
    other = place.region.add_nic(place.subnet, {"routable:cluster": "routable"})
    rounds = int(3 * INTERVAL / 500)
    for _ in range(rounds):
        tags = {"routable:cluster": "routable", "routable:made": f"{place.clock.now:.0f}"}
        young = place.region.add_nic(place.subnet, tags)
        machine.run(500)
        place.region.call("DeleteNetworkInterface", {"NetworkInterfaceId": young})
    assert place.calls("DeleteNetworkInterface") == rounds
    assert other in place.region.nics


def test_a_dead_nodes_interface_is_deleted_by_another(place: Place) -> None:
    """By tag and age: not a young one, nor one of another cluster, nor one that nobody tagged."""
    dead, alive = place.machine(), place.machine(seed=1)
    together([dead, alive], 5, place.clock)
    dead.add(200)
    fault = place.region.fail("AttachNetworkInterface", 1, "lost_before")
    while not fault.is_consumed:
        together([dead, alive], 0.3, place.clock)
    place.region.terminate(dead.instance)
    tags = [{"ResourceType": "network-interface", "Tags": [{"Key": "routable:cluster", "Value": "other"}]}]
    for parameters in ({"TagSpecifications": tags}, {}):
        place.region.call("CreateNetworkInterface", {"SubnetId": place.subnet, **parameters})
    assert len(place.region.nics) == 4
    alive.run(AGE / 2)
    assert len(place.region.nics) == 4
    alive.run(AGE + 2 * INTERVAL)
    assert len(place.region.nics) == 3
    assert {nic.tags.get("routable:cluster") for nic in place.region.nics.values()} == {None, "other"}


# --- death and faults at every step -----------------------------------------------------------------------------


def scenario(machine: Machine) -> Iterator[float]:
    """Everything that the fabric can do; yields how long to let it go on."""
    yield 5
    machine.add(200)
    yield 40
    machine.delete(150)
    yield 100
    machine.add(20)
    yield 5
    machine.delete(70)
    yield REST


def played(place: Place, machine: Machine) -> int:
    """Play the scenario, starting anew where the process dies; how often it did."""
    deaths = 0
    for seconds in scenario(machine):
        until = place.clock.now + seconds
        while place.clock.now < until:
            try:
                machine.run(until - place.clock.now)
            except Killed:
                deaths += 1
                place.clock.now += 1
                until += REST if seconds == REST else 0
                machine.crash()
            assert machine.unserved() == set()
    return deaths


def steps() -> int:
    """How many calls and journal writes the scenario has."""
    place = Place()
    machine = place.machine()
    assert played(place, machine) == 0
    well(machine)
    return machine.blows.count


STEPS = steps()


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("nth", range(1, STEPS + 1))
@pytest.mark.parametrize("staleness", [0.0, 5.0], ids=["consistent", "stale"])
def test_death_at_every_call_and_every_write(nth: int, is_after: bool, staleness: float) -> None:
    """Afterwards EC2 has what the agent knows: no interface and no address that nobody tracks, and pods are served."""
    place = Place()
    place.region.staleness = staleness
    machine = place.machine()
    machine.blows.nth, machine.blows.is_after = nth, is_after
    assert played(place, machine) == 1
    well(machine)


CALLS = 14


@pytest.mark.parametrize("kind", ["throttle", "error500", "error503", "lost_before", "lost_after"])
@pytest.mark.parametrize("nth", range(1, CALLS + 1))
def test_a_fault_at_every_call(kind: str, nth: int) -> None:
    """Afterwards all is as it would have been."""
    place = Place()
    place.region.staleness = 2.0
    machine = place.machine()
    fault = place.region.fail("*", nth, kind)
    assert played(place, machine) == 0
    assert fault.is_consumed
    well(machine)


def disturbed(place: Place, machine: Machine, data: st.DataObject) -> None:
    """Something happens to a machine or in the region."""
    what = data.draw(st.sampled_from(["add", "delete", "fault", "kill", "crash"]))
    if what == "add":
        machine.add(data.draw(st.integers(1, 80)))
    elif what == "delete":
        machine.delete(data.draw(st.integers(1, 120)))
    elif what == "fault":
        kind = data.draw(st.sampled_from(["throttle", "error500", "lost_before", "lost_after"]))
        place.region.fail("*", data.draw(st.integers(1, 5)), kind)
    elif what == "kill":
        machine.blows.nth = machine.blows.count + data.draw(st.integers(1, 6))
        machine.blows.is_after = data.draw(st.booleans())
    else:
        machine.crash()


def passed(place: Place, machines: list[Machine], seconds: float) -> None:
    """So much time passes; who dies starts anew, and no pod ever has an address that EC2 does not deliver to it."""
    until = place.clock.now + seconds
    while place.clock.now < until:
        try:
            together(machines, min(5.0, until - place.clock.now), place.clock)
        except Killed:
            for one in machines:
                if one.blows.is_dead:
                    one.crash()
        for one in machines:
            assert one.unserved() == set()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_churn_faults_and_restarts(data: st.DataObject) -> None:
    """Whatever happens in whatever order: no address twice, none that EC2 does not deliver, at rest no difference."""
    place = Place(data.draw(st.sampled_from(["10.0.0.0/24", "10.0.0.0/20"])))
    place.region.staleness = data.draw(st.sampled_from([0.0, 3.0]))
    place.region.lag = data.draw(st.sampled_from([0.0, 10.0]))
    machines = [place.machine(seed=number) for number in range(2)]
    for _ in range(data.draw(st.integers(1, 12))):
        disturbed(place, data.draw(st.sampled_from(machines)), data)
        passed(place, machines, data.draw(st.floats(0.1, 150)))
    place.region.faults.clear()
    for one in machines:
        one.blows.nth = 0
        one.parked.clear()
    passed(place, machines, max(REST, STALE))
    for one in machines:
        well(one)
