"""Pods that wait for an address of a cloud: until it comes, or until it is known that it will not; on both clouds."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import pytest

from agent.serve.lane import Incoming
from agent.serve.parking import PATIENCE, Parking
from agent.start.supply import Use
from backends.aws.options import EniOptions
from backends.cloud.failures import Throttled
from backends.fabric import Shortage
from backends.gcp.calls import GET, UPDATE
from cni import frame
from cni.errors import Exhausted, FabricRefused, Failure, TryAgain
from tests.cloud.machine import Machine
from tests.cloud.test_fabric import NO_ADDRESS
from tests.cloud.test_fabric import Place as Vpc
from tests.fakes.world import World
from tests.gcp.node import AliasNode
from tests.gcp.operations import Failed
from tests.gcp.test_gcp_fabric import Place as Project
from tests.gcp.test_gcp_fabric import under_way

SOON = 25.0
"""Seconds within which a cloud has answered."""


def told(node: Machine | AliasNode, pods: int = 1) -> tuple[float, Shortage]:
    """What so many pods are told that wait, once they need not wait any more; and after how many seconds."""
    node.add(pods)
    since = node.clock()
    while (shortage := node.fabric.shortage(NO_ADDRESS)).may_end and node.clock() - since < PATIENCE:
        node.run(0.05)
    return node.clock() - since, shortage


# --- what they are told -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "kind"),
    [("AssignPrivateIpAddresses", FabricRefused), ("InsufficientFreeAddressesInSubnet", Exhausted)],
)
def test_ec2_refuses_while_a_pod_waits(action: str, kind: type[Failure]) -> None:
    """By the policy, or for want of addresses: the pod has the reason as soon as the agent has."""
    vpc = Vpc("10.0.0.0/28" if kind is Exhausted else "10.0.0.0/20")
    vpc.region.authorize = lambda one, _: one != action
    interfaces = 3 if kind is Exhausted else 1
    seconds, shortage = told(vpc.machine(options=EniOptions(interfaces=interfaces)), 20)
    assert seconds < SOON
    assert type(shortage.failure) is kind
    assert action in str(shortage.failure)


@pytest.mark.parametrize(("code", "kind"), [("forbidden", FabricRefused), ("IP_SPACE_EXHAUSTED", Exhausted)])
def test_google_refuses_while_a_pod_waits(code: str, kind: type[Failure]) -> None:
    """By the role, or for want of addresses: the pod has the reason as soon as the agent has."""
    project = Project("10.4.0.0/28" if kind is Exhausted else "10.4.0.0/20")
    if kind is FabricRefused:
        project.project.denied.add("compute.instances.updateNetworkInterface")
    seconds, shortage = told(project.node(), 17)
    assert seconds < SOON
    assert type(shortage.failure) is kind
    assert code in str(shortage.failure)


@pytest.mark.parametrize(
    "code", ["RESOURCE_OPERATION_RATE_EXCEEDED", "IP_IN_USE_BY_ANOTHER_RESOURCE", "INTERNAL_ERROR", "503"]
)
def test_what_passes_by_itself_is_waited_for(code: str) -> None:
    """Too much to do, another who was faster, Google's own trouble: the pod is not refused for that."""
    node = Project().node()
    node.run(20)
    node.add(17)
    operation = node.project.operations.by_name[under_way(node)]
    operation.wanted, operation.error = None, Failed(code, "not now")
    while node.parked:
        shortage = node.fabric.shortage(NO_ADDRESS)
        assert (type(shortage.failure), shortage.may_end) == (TryAgain, True)
        node.run(0.1)
    assert max(node.waits) < 2 * PATIENCE


def test_throttling_is_waited_out_as_long_as_a_pod_may_wait() -> None:
    """Calls are too many for an hour, say: nobody is refused before his time is over."""
    node = Project().node()
    node.refusals = {one: [Throttled(one, "rateLimitExceeded", "no")] * 1000 for one in (GET, UPDATE)}
    seconds, shortage = told(node)
    assert seconds >= PATIENCE
    assert isinstance(shortage.failure, TryAgain)


def test_a_call_whose_answer_was_lost_is_no_end() -> None:
    """An instance that can have no other interface: what was asked of this one is being looked up, and then it is asked
    for more."""
    vpc = Vpc()
    machine = vpc.machine(options=EniOptions(interfaces=1))
    fault = vpc.region.fail("AssignPrivateIpAddresses", 1, "lost_before")
    machine.add(1)
    while machine.parked:
        shortage = machine.fabric.shortage(NO_ADDRESS)
        assert shortage.may_end, shortage.failure
        machine.run(0.1)
    assert fault.is_consumed


class Asked(Machine):
    """Is asked by one who waits before each pass: what may be offered by then is offered by it."""

    def __init__(self, vpc: Vpc) -> None:
        self.answers: list[Shortage] = []
        super().__init__(vpc.region, vpc.clock, vpc.region.run_instance("m5.large", vpc.subnet))

    def offered(self) -> None:
        self.answers.append(self.fabric.shortage(NO_ADDRESS))
        super().offered()


def test_what_is_free_is_waited_for_though_ec2_gives_no_answers() -> None:
    """After a restart the metadata alone is believed at last; who waits then has to wait for the next pass alone."""
    vpc = Vpc()
    machine = Asked(vpc)
    machine.run(20)
    machine.add(3)
    machine.run(60)
    for nth in range(1, 1000):
        vpc.region.fail("*", nth, "error500")
    machine.crash()
    machine.answers.clear()
    machine.run(30)
    assert machine.fabric.cloud.silence
    assert len(machine.answers) > 1
    assert all(one.may_end for one in machine.answers)
    machine.add(1)
    assert not machine.parked


# --- who tells them ------------------------------------------------------------------------------------------------


def test_who_waits_is_asked_to_again_when_it_is_in_vain(tmp_path: Path) -> None:
    """After each look of the agent's, but not while the cloud is being asked: then the verb tells them the reason."""
    with closing(World(tmp_path)) as world:
        world.node.ledger.offer(frozenset())
        parking, again = Parking(), list[Incoming]()
        use = Use(world.node.ledger, parking)
        project = Project()
        project.project.denied.add("compute.instances.updateNetworkInterface")
        node = project.node()
        for number in range(3):
            request = frame.Request({"CNI_COMMAND": b"ADD"}, b"")
            incoming = Incoming(request, number, lambda: False, arrived=time.monotonic())
            assert parking.park(incoming, again.append)
        use.resume(node.fabric)
        assert (parking.waiting(), again) == (3, [])
        node.run(SOON)
        use.resume(node.fabric)
        assert parking.waiting() == 0
        assert [(one.sequence, one.has_patience) for one in again] == [(0, True), (1, True), (2, True)]
        use.resume(node.fabric)
        assert len(again) == 3
