"""What others do to a node's interfaces: it is noticed, and takes nothing from pods."""

from __future__ import annotations

import pytest
from netaddr import IPNetwork

from backends.aws.options import EniOptions
from ipam.warmpool import Targets
from tests.cloud.machine import Machine
from tests.cloud.test_fabric import REST, Place, well

NOTICED = 75.0
"""Seconds within which somebody else's change is known: the metadata's interval, and a call."""


@pytest.fixture
def place() -> Place:
    """One subnet of 4,091 addresses."""
    return Place()


def foreign(place: Place, machine: Machine, index: int, card: int = 0) -> str:
    """Somebody's interface, attached at *index* of a network *card*."""
    made = place.region.call("CreateNetworkInterface", {"SubnetId": place.subnet})["NetworkInterface"]
    name = str(made["NetworkInterfaceId"])
    where = {"NetworkInterfaceId": name, "InstanceId": machine.instance, "DeviceIndex": index, "NetworkCardIndex": card}
    attached = place.region.call("AttachNetworkInterface", where)
    change = {"AttachmentId": attached["AttachmentId"], "DeleteOnTermination": True}
    place.region.call("ModifyNetworkInterfaceAttribute", {"NetworkInterfaceId": name, "Attachment": change})
    return name


def primary(place: Place, machine: Machine) -> str:
    """The id of the first interface."""
    return next(nic.id for nic in place.region.held(machine.instance) if nic.attachment and not nic.attachment.index)


def test_an_interface_that_somebody_attached_is_known_within_a_minute(place: Place) -> None:
    """By the metadata, which costs no call, and then EC2's word; no more than one question for it."""
    machine = place.machine()
    machine.run(100)
    before = place.calls("DescribeNetworkInterfaces")
    name = foreign(place, machine, 1)
    machine.run(NOTICED)
    assert name in machine.fabric.inventory.enis
    machine.run(150)
    assert place.calls("DescribeNetworkInterfaces") == before + 1


def test_addresses_that_somebody_took_are_known_within_a_minute(place: Place) -> None:
    """Nobody is given one of them, and whose pod has one is told."""
    machine = place.machine()
    machine.run(5)
    machine.add(20)
    machine.run(100)
    name = primary(place, machine)
    texts = [str(block) for block in place.region.nics[name].blocks]
    place.region.call("UnassignPrivateIpAddresses", {"NetworkInterfaceId": name, "Ipv4Prefixes": texts})
    place.region.call("CreateNetworkInterface", {"SubnetId": place.subnet, "Ipv4PrefixCount": len(texts)})
    machine.run(NOTICED)
    assert len(machine.fabric.report().undelivered) == 20
    before = machine.addresses()
    machine.add(10)
    machine.run(10)
    assert len(machine.pods) == 30
    assert not machine.unserved() - before


def test_ranges_that_the_vpc_gains_are_known_within_a_minute(place: Place) -> None:
    """The metadata says them."""
    machine = place.machine()
    machine.run(30)
    place.region.vpcs[place.vpc].append(IPNetwork("100.64.0.0/16"))
    machine.run(NOTICED)
    assert IPNetwork("100.64.0.0/16") in machine.fabric.supplied(machine.here).networks


def test_metadata_that_cannot_be_read_disturbs_nothing(place: Place) -> None:
    """It stands still: no block comes back by it that went long ago, and EC2 is asked once."""
    machine = place.machine()
    machine.run(5)
    machine.add(60)
    machine.run(60)
    frozen = machine._look()
    machine._look = lambda: frozen  # type: ignore[method-assign]
    machine.delete(60)
    machine.run(400)
    before = place.calls("DescribeNetworkInterfaces")
    machine.run(1000)
    assert place.calls("DescribeNetworkInterfaces") <= before + 5
    well(machine)


def test_a_block_on_two_interfaces_is_given_to_nobody_and_told(place: Place) -> None:
    """Unassigned by hand, assigned to another of ours, while EC2's answer may be older: none of the two offers it, and
    when that is clear again the one that has it does."""
    machine = place.machine(options=EniOptions(warm=Targets(delay=1e9)))
    machine.run(5)
    machine.add(150)
    machine.run(20)
    machine.delete(150)
    machine.run(80)
    old, new = sorted(place.region.held(machine.instance), key=lambda nic: nic.id)
    block = old.blocks[0]
    machine.fabric.inventory.put(machine.fabric.inventory.enis[old.id])  # it was changed a moment ago
    move = {"NetworkInterfaceId": old.id, "Ipv4Prefixes": [str(block)]}
    place.region.call("UnassignPrivateIpAddresses", move)
    place.region.call("AssignPrivateIpAddresses", {"NetworkInterfaceId": new.id, "Ipv4PrefixCount": 1})
    assert block in new.blocks
    machine.fabric._turns.ask()
    machine.run(3)
    assert {pair[0] for pair in machine.fabric.inventory.conflicts} == {old.id, new.id}
    assert block not in {one.network for one in machine.fabric.supplied(machine.here).blocks}
    assert any(f"{block} of {old.id} is on another interface" in text for text in machine.fabric.report().obstacles)
    machine.run(NOTICED)
    assert not machine.fabric.inventory.conflicts
    assert block in {one.network for one in machine.fabric.supplied(machine.here).blocks if one.owner == new.id}
    well(machine)


@pytest.mark.parametrize("taken", [(1,), (1, 2)])
def test_a_device_index_that_somebody_took_is_not_tried_again(taken: tuple[int, ...]) -> None:
    """The refusal is news: the next one is tried at once, by the interface that was made."""
    place = Place()
    machine = place.machine("m5.4xlarge")
    machine.run(5)
    for index in taken:
        foreign(place, machine, index)
    machine.add(600)
    machine.run(15)
    assert len(machine.pods) == 600
    assert place.region.calls["AttachNetworkInterface", "InvalidParameterValue"] <= len(taken)
    assert place.calls("CreateNetworkInterface") == len(taken) + 1
    machine.run(REST)
    well(machine)


def test_a_device_index_of_another_card_takes_nothing(place: Place) -> None:
    """EC2 may hold it against an interface whose card is not named: it is."""
    machine = place.machine("p4d.24xlarge")
    machine.run(5)
    foreign(place, machine, 1, card=1)
    place.region.become(index_of_any_card=True)
    machine.add(900)
    machine.run(15)
    assert len(machine.pods) == 900
    assert not place.region.calls["AttachNetworkInterface", "InvalidParameterValue"]
    well_but_for_others = [one for one in machine.differences() if "the agent knows None" not in one]
    assert well_but_for_others == []


def test_an_attachment_without_an_answer_is_found(place: Place) -> None:
    """It has its index: another interface does not try the same, and the pods are served within seconds."""
    machine = place.machine("m5.4xlarge")
    machine.run(5)
    fault = place.region.fail("AttachNetworkInterface", 1, "lost_after")
    machine.add(1000)
    machine.run(20)
    assert fault.is_consumed
    assert len(machine.pods) == 1000
    assert not place.region.calls["AttachNetworkInterface", "InvalidParameterValue"]
    machine.run(REST)
    well(machine)
