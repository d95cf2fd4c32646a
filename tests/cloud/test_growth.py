"""Growing where EC2 is slow, has not heard yet of what it made a moment ago, or has not much left."""

from __future__ import annotations

import pytest
from netaddr import IPNetwork

from backends.aws.inventory import STALE
from backends.aws.options import EniOptions
from cni.errors import Exhausted
from ipam.warmpool import Targets
from tests.cloud.machine import Machine
from tests.cloud.test_fabric import NO_ADDRESS, REST, Place, well

SINGLES = EniOptions(warm=Targets(is_prefix_mode=False, warm_addresses=4))


def served(machine: Machine, seconds: float) -> int:
    """How many pods have an address after that time."""
    machine.run(seconds)
    return len(machine.pods)


# --- several interfaces at once -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("type_", "pods"), [("m5.4xlarge", 200), ("m5.24xlarge", 700)])
def test_a_burst_that_needs_several_interfaces_makes_them_at_once(type_: str, pods: int) -> None:
    """Attaching takes 10 s each, and all of them attach meanwhile: no pod waits as long as an ADD may."""
    place = Place()
    place.region.attach_delay = 10.0
    machine = place.machine(type_, SINGLES)
    machine.run(5)
    machine.add(pods)
    assert served(machine, 45) == pods
    machine.run(10)
    made = place.calls("CreateNetworkInterface")
    machine.run(REST)
    assert place.calls("CreateNetworkInterface") == made
    well(machine)


def test_a_pod_waits_for_the_last_interface_that_comes() -> None:
    """All that the instance can have are there or attaching, or have come and are not offered yet: each is a reason to
    wait, not to be refused."""
    place = Place()
    place.region.attach_delay = 10.0
    machine = place.machine()
    machine.run(5)
    machine.add(432)
    while machine.parked:
        assert machine.fabric.shortage(NO_ADDRESS).may_end
        place.clock.now += machine.turn()
        assert max((place.clock.now - since for since in machine.parked.values()), default=0) < 20
    assert len(machine.pods) == 432


def test_pods_are_served_while_an_interface_is_let_go_of() -> None:
    """Detaching takes half a minute, and nobody waits for it."""
    place = Place()
    machine = place.machine(options=EniOptions(warm=Targets(warm_prefixes=0)))
    machine.run(5)
    machine.add(300)
    machine.run(60)
    machine.delete(300)
    place.region.detach_delay = 30.0
    while not place.calls("DetachNetworkInterface"):
        machine.run(0.5)
    assert not place.calls("DeleteNetworkInterface")
    machine.add(140)
    assert served(machine, 3) == 140
    assert not place.calls("DeleteNetworkInterface")
    machine.run(REST)
    well(machine)


# --- eventual consistency ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "empty"), [(1.0, 0.0), (7.0, 0.0), (7.0, 1.0), (40.0, 0.0)])
def test_an_interface_that_is_not_known_yet_is_attached_when_it_is(seconds: float, empty: float) -> None:
    """NotFound right after it was made, or a list of none: it is tried again, later and later, and no other is made."""
    place = Place()
    place.region.become(unseen=(seconds, seconds), unseen_empty=empty)
    machine = place.machine()
    machine.run(5)
    machine.add(200)
    assert served(machine, 2 * seconds + 10) == 200
    assert place.calls("CreateNetworkInterface") == 1
    assert place.region.calls["AttachNetworkInterface", "InvalidNetworkInterfaceID.NotFound"] < 8
    machine.run(REST)
    well(machine)


def test_how_long_an_interface_has_not_been_seen_counts_from_when_it_was_made() -> None:
    """Not from when that was first asked for: EC2 gave no answer for two minutes, and then made it."""
    place = Place()
    machine = place.machine()
    machine.run(5)
    faults = [place.region.fail("CreateNetworkInterface", nth, "error503") for nth in range(1, 8)]
    machine.add(200)
    begun = place.clock.now
    while not all(one.is_consumed for one in faults):
        machine.run(1)
    assert place.clock.now - begun > STALE
    place.region.become(unseen=(3.0, 3.0))
    machine.run(120)
    assert place.region.calls["AttachNetworkInterface", "InvalidNetworkInterfaceID.NotFound"]
    assert place.calls("DeleteNetworkInterface") == 0
    assert len(machine.pods) == 200
    well(machine)


def test_an_interface_that_never_appears_makes_no_storm() -> None:
    """After a minute it is given up, and what stands in the way is told; another is made a minute later at the
    soonest."""
    place = Place()
    place.region.become(unseen=(1e6, 1e6))
    machine = place.machine()
    machine.run(5)
    machine.add(200)
    machine.run(90)
    assert "AttachNetworkInterface" in str(machine.fabric.shortage(NO_ADDRESS).failure)
    machine.run(90)
    assert place.calls("CreateNetworkInterface") <= 2
    assert sum(count for (action, _), count in place.region.calls.items() if action == "AttachNetworkInterface") < 20
    assert sum(count for (action, _), count in place.region.calls.items() if action == "DeleteNetworkInterface") < 10


# --- little is left -----------------------------------------------------------------------------------------------


def test_the_last_free_addresses_of_a_subnet_are_found_and_used() -> None:
    """Throttled in between: it goes on from where it was, and a full subnet is told as that within seconds."""
    place = Place("10.0.0.0/26")
    machine = place.machine("m5.4xlarge", EniOptions(warm=Targets(is_prefix_mode=False, warm_addresses=1)))
    machine.run(5)
    subnet = place.region.subnets[place.subnet].addresses
    for address in list(IPNetwork("10.0.0.0/26"))[16:]:
        subnet.take_this(address)
    left = subnet.free
    before = sum(place.region.calls.values())
    for nth in (2, 4, 5):
        place.region.fail("AssignPrivateIpAddresses", nth, "throttle")
    machine.add(28)
    machine.run(30)
    assert subnet.free == 0
    assert len(machine.pods) == left + 1
    assert sum(place.region.calls.values()) - before < 20
    shortage = machine.fabric.shortage(NO_ADDRESS).failure
    assert isinstance(shortage, Exhausted)
    assert f"subnet {place.subnet} has no free address" in shortage.message
    assert machine.fabric.report().obstacles
