"""What the operator says of interfaces that are there: their security groups, whose they are, which addresses."""

from __future__ import annotations

import pytest
from netaddr import IPNetwork

from backends.aws.options import EniOptions
from cni.errors import Exhausted
from ipam.warmpool import Targets
from tests.cloud.machine import Clock, Machine
from tests.cloud.region import Nic, Region

UNMANAGED = {"routable:unmanaged": ""}
LOOKED = 700.0
"""Seconds after which EC2 has said what there is."""


class Scene:
    """A machine whose pods are on three interfaces."""

    def __init__(self, options: EniOptions | None = None, pods: int = 300) -> None:
        self.clock = Clock()
        self.region = Region(self.clock)
        self.region.attach_delay = self.region.detach_delay = 2.0
        self.vpc = self.region.add_vpc("10.0.0.0/16")
        self.subnet = self.region.add_subnet(self.vpc, "10.0.0.0/20")
        self.machine = Machine(self.region, self.clock, self.region.run_instance("m5.large", self.subnet), options)
        self.machine.run(5)
        self.machine.add(pods)
        self.machine.run(60)

    def nic(self, index: int) -> Nic:
        found = {nic.attachment.index: nic for nic in self.region.attached(self.machine.instance) if nic.attachment}
        return found[index]

    def restarted(self, options: EniOptions) -> None:
        self.machine.options = options
        self.machine.crash()

    def tag(self, index: int, tags: dict[str, str]) -> None:
        pairs = [{"Key": key, "Value": value} for key, value in tags.items()]
        self.region.call("CreateTags", {"Resources": [self.nic(index).id], "Tags": pairs}, "an operator")


# --- security groups --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_by_tag", [False, True])
def test_changed_security_groups_become_those_of_what_is_there(is_by_tag: bool) -> None:
    """Of all interfaces that the agent made, not of the primary one; pods keep theirs meanwhile."""
    scene = Scene()
    group = scene.region.add_group(scene.vpc, {"for": "pods"})
    scene.restarted(EniOptions(group_tags={"for": "pods"}) if is_by_tag else EniOptions(groups=(group,)))
    scene.machine.run(LOOKED)
    assert [scene.nic(index).groups for index in range(3)] == [["sg-1"], [group], [group]]
    assert scene.machine.unserved() == set()
    before = scene.region.calls["ModifyNetworkInterfaceAttribute", ""]
    scene.machine.run(3000)
    assert scene.region.calls["ModifyNetworkInterfaceAttribute", ""] == before
    scene.nic(1).groups = ["sg-other"]
    scene.machine.run(2 * LOOKED)
    assert scene.nic(1).groups == [group]


def test_where_no_groups_are_configured_none_are_changed() -> None:
    """They are somebody else's business."""
    scene = Scene()
    scene.nic(1).groups = ["sg-other"]
    scene.machine.run(2 * LOOKED)
    assert scene.nic(1).groups == ["sg-other"]


def test_new_interfaces_have_the_groups_that_the_primary_one_has_now() -> None:
    """Where none are configured: those of the agent's start may have been deleted since."""
    scene = Scene(pods=5)
    scene.nic(0).groups = ["sg-2"]
    scene.region.on_change(scene.nic(0), None)
    scene.machine.run(75)
    scene.machine.add(295)
    scene.machine.run(60)
    assert [scene.nic(index).groups for index in range(3)] == [["sg-2"]] * 3


def test_groups_that_are_refused_keep_nothing_from_going_on() -> None:
    """It is asked for less and less often, and told; the life of the interface is bound all the same."""
    scene = Scene()

    def is_allowed(action: str, parameters: object) -> bool:
        return not (action == "ModifyNetworkInterfaceAttribute" and "Groups" in str(parameters))

    scene.region.authorize = is_allowed
    scene.restarted(EniOptions(groups=("sg-9",)))
    scene.machine.run(7200)
    assert scene.region.calls["ModifyNetworkInterfaceAttribute", "UnauthorizedOperation"] <= 40
    scene.machine.delete(300)
    scene.machine.run(1500)
    scene.machine.add(300)
    scene.machine.run(60)
    assert not scene.machine.parked
    assert scene.machine.differences() == []


# --- where interfaces are made ----------------------------------------------------------------------------------


@pytest.mark.parametrize("is_another_left", [True, False])
def test_a_configured_subnet_that_is_no_more(is_another_left: bool) -> None:
    """Interfaces are made in the others; if there are none, pods and status are told where to look."""
    left = ("subnet-00000000000000002",) if is_another_left else ()
    scene = Scene(EniOptions(subnets=("subnet-0123456789abcdef0", *left)))
    if is_another_left:
        assert scene.subnet in left
        assert len(scene.machine.pods) == 300
    else:
        failure = scene.machine.fabric.shortage(Exhausted("no address")).failure
        assert isinstance(failure, Exhausted)
        assert "no subnet is there to make an interface in" in str(failure)


# --- whose an interface is --------------------------------------------------------------------------------------


def test_an_interface_with_the_tag_is_left_alone() -> None:
    """Its pods keep their addresses, no other pod gets one, and it is neither filled nor given back; without the tag it
    is the agent's again."""
    scene = Scene(pods=300)
    machine, nic = scene.machine, scene.nic(2)
    held = {one for one in machine.addresses() if any(one in block for block in nic.blocks)}
    assert held
    scene.tag(2, UNMANAGED)
    machine.run(LOOKED)
    assert len(machine.fabric.supplied(machine.here).interfaces) == 3
    assert nic.id not in {block.owner for block in machine.fabric.supplied(machine.here).blocks}
    machine.delete(300)
    machine.run(1500)
    assert scene.nic(2) is nic
    assert nic.blocks
    machine.add(250)
    machine.run(30)
    assert not any(one in block for one in machine.addresses() for block in nic.blocks)
    del nic.tags["routable:unmanaged"]
    machine.delete(250)
    machine.run(2500)
    assert machine.differences() == []
    assert [one.attachment.index for one in scene.region.attached(machine.instance) if one.attachment] == [0]


def test_a_primary_interface_with_the_tag_is_not_for_pods() -> None:
    """Others have it all; pods are on further ones."""
    scene = Scene(pods=0)
    scene.tag(0, UNMANAGED)
    before = list(scene.nic(0).blocks)
    scene.machine.run(LOOKED)
    scene.machine.add(20)
    scene.machine.run(30)
    assert len(scene.machine.pods) == 20
    assert scene.nic(0).blocks == before
    assert not any(one in block for one in scene.machine.addresses() for block in before)


# --- which addresses --------------------------------------------------------------------------------------------


def test_foreign_addresses_are_not_the_pods() -> None:
    """Something else on the node uses them: no pod gets one, they are not given back, and they take their slots."""
    scene = Scene(EniOptions(warm=Targets(is_prefix_mode=False, warm_addresses=2)), pods=0)
    address, prefix = IPNetwork("10.0.9.9/32"), IPNetwork("10.0.8.16/28")
    nic = scene.nic(0)
    for block in (address, prefix):
        nic.blocks.append(block)
    scene.restarted(
        EniOptions(warm=Targets(is_prefix_mode=False, warm_addresses=2), foreign=(address, IPNetwork("10.0.8.0/24")))
    )
    scene.machine.add(7)
    scene.machine.run(60)
    assert len(scene.machine.pods) == 7
    scene.machine.add(8)
    scene.machine.run(60)
    assert not any(one in block for one in scene.machine.addresses() for block in (address, prefix))
    assert len(nic.blocks) == 9
    wired = {block for one in scene.machine.fabric.supplied(scene.machine.here).interfaces for block in one.blocks}
    assert not wired & {address, prefix}
    scene.machine.delete(15)
    scene.machine.run(2000)
    assert {address, prefix} <= set(nic.blocks)


def test_an_address_that_becomes_foreign_stays_its_pods() -> None:
    """Declared foreign while a pod has it: the pod keeps its way until it goes."""
    scene = Scene(EniOptions(warm=Targets(is_prefix_mode=False, warm_addresses=0)), pods=1)
    (address,) = scene.machine.addresses()
    scene.restarted(EniOptions(warm=Targets(is_prefix_mode=False, warm_addresses=0), foreign=(IPNetwork(address),)))
    scene.machine.run(30)
    (one,) = scene.machine.fabric.supplied(scene.machine.here).interfaces
    assert IPNetwork(address) in one.blocks
    scene.machine.delete(1)
    scene.machine.run(1500)
    scene.machine.add(3)
    scene.machine.run(30)
    assert address not in scene.machine.addresses()
    assert IPNetwork(address) in scene.nic(0).blocks


