"""What EC2 refuses is in the way of that alone, is asked for less and less often, and is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from backends.aws.options import EniOptions
from cni.errors import Exhausted
from ipam.warmpool import Targets
from tests.cloud.machine import Clock, Machine
from tests.cloud.region import Refusal, Region
from tests.cloud.shapes import TYPES, Shape

SINGLE = EniOptions(warm=Targets(is_prefix_mode=False, warm_addresses=0))
Refuse = Callable[[str, Mapping[str, Any]], Refusal | None]


class Strict(Region):
    """Refuses what *refuse* says, before anything else; *asked* are all calls by action."""

    refuse: Refuse = staticmethod(lambda action, parameters: None)

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self.asked: list[str] = []

    def call(self, action: str, parameters: Mapping[str, Any], who: str = "an agent") -> dict[str, Any]:
        self.asked.append(action)
        if (refusal := self.refuse(action, parameters)) is not None:
            raise refusal
        return super().call(action, parameters, who)


class Scene:
    """A machine in a region that refuses."""

    def __init__(self, kind: str = "m5.large", options: EniOptions = SINGLE) -> None:
        self.clock = Clock()
        self.region = Strict(self.clock)
        self.region.attach_delay = self.region.detach_delay = 2.0
        self.subnet = self.region.add_subnet(self.region.add_vpc("10.0.0.0/16"), "10.0.0.0/20")
        self.machine = Machine(self.region, self.clock, self.region.run_instance(kind, self.subnet), options)

    def refuse(self, code: str, *actions: str, status: int = 403) -> None:
        """From now on; of all actions if none is named."""
        self.region.refuse = lambda action, _: (
            Refusal(code, "no", status) if action in actions or not actions else None
        )

    def asked(self, action: str) -> int:
        return self.region.asked.count(action)


DENIED, EXPIRED = "UnauthorizedOperation", "ExpiredToken"


@pytest.mark.parametrize("code", [DENIED, "NetworkInterfaceLimitExceeded", "VcpuLimitExceeded"])
def test_who_may_make_no_interface_fills_those_that_are_there(code: str) -> None:
    """The primary one has nine slots: nine pods, though the tenth cannot be had; and it is told why."""
    scene = Scene()
    scene.refuse(code, "CreateNetworkInterface")
    scene.machine.add(4)
    scene.machine.run(3)
    scene.machine.add(7)
    scene.machine.run(10)
    scene.machine.delete(0)
    assert len(scene.machine.pods) == 9
    failure = scene.machine.fabric.shortage(Exhausted("no address")).failure
    assert code in str(failure)
    assert "9 of 9 slots taken, 1 of 3 interfaces attached" in str(failure)


@pytest.mark.parametrize(
    ("action", "what"),
    [
        ("DeleteNetworkInterface", "an interface that is spare"),
        ("DetachNetworkInterface", "an interface that is spare"),
        ("UnassignPrivateIpAddresses", "addresses that are spare"),
        ("ModifyNetworkInterfaceAttribute", "the life of an interface"),
        ("DescribeInstanceTypes", "what the table knows"),
    ],
)
def test_what_does_not_give_addresses_keeps_no_pod_waiting(action: str, what: str) -> None:
    """Refused as long as it lasts: pods are served meanwhile, and it is asked for less and less often."""
    scene = Scene()
    machine = scene.machine
    scene.refuse(DENIED, action)
    machine.add(15)
    machine.run(30)
    assert len(machine.pods) == 15, what
    machine.delete(15)
    machine.run(200)
    machine.add(9)
    machine.run(5)
    assert not machine.parked, what
    before = len(scene.region.asked)
    machine.run(3600)
    assert scene.asked(action) <= 14, what
    assert len(scene.region.asked) - before < 120, what
    scene.region.refuse = lambda action, parameters: None
    machine.delete(9)
    machine.run(2000)
    assert machine.differences() == []


@pytest.mark.parametrize(
    "code", [EXPIRED, "AuthFailure", "NoCredentialsError", "RequestExpired", "SignatureDoesNotMatch"]
)
def test_credentials_that_come_late_are_used_soon(code: str) -> None:
    """A machine that boots has them in a moment: the first pod need not wait a minute for that."""
    scene = Scene()
    scene.refuse(code)
    scene.machine.add(1)
    scene.machine.run(7)
    assert 2 <= len(scene.region.asked) <= 6
    assert "does not accept this node's credentials" in str(scene.machine.fabric.report().obstacles)
    scene.region.refuse = lambda action, parameters: None
    scene.machine.run(9)
    assert len(scene.machine.pods) == 1
    assert scene.machine.fabric.report().obstacles == ()


def test_another_interface_helps_where_one_may_not_be_filled() -> None:
    """A policy by tags: what one interface is refused, another may have."""
    scene = Scene()
    first = scene.region.instances[scene.machine.instance].nics[0].id
    scene.region.refuse = lambda action, parameters: (
        Refusal(DENIED, "no", 403)
        if action == "AssignPrivateIpAddresses" and parameters["NetworkInterfaceId"] == first
        else None
    )
    scene.machine.add(12)
    scene.machine.run(40)
    assert len(scene.machine.pods) == 12
    assert scene.machine.unserved() == set()


def test_slots_that_may_not_be_filled_are_not_counted_as_taken() -> None:
    """What the operator is told is what there is; and what stands in the way."""
    scene = Scene()
    scene.refuse(DENIED, "CreateNetworkInterface", "AssignPrivateIpAddresses")
    scene.machine.add(1)
    scene.machine.run(10)
    failure = scene.machine.fabric.shortage(Exhausted("no address")).failure
    assert "0 of 0 addresses in use, 0 of 9 slots taken, 1 of 3 interfaces attached" in str(failure)
    assert DENIED in str(failure)


# --- what nobody tells ------------------------------------------------------------------------------------------


def test_a_known_type_needs_no_answer_at_the_start() -> None:
    """The table says what it can have; EC2 is asked once, later, and its word counts."""
    scene = Scene()
    scene.machine.add(1)
    scene.machine.run(250)
    assert scene.asked("DescribeInstanceTypes") == 0
    scene.machine.run(800)
    assert scene.asked("DescribeInstanceTypes") == 1


def test_a_type_that_nobody_knows_is_asked_for_less_and_less() -> None:
    """Meanwhile it is taken to have four interfaces of fifteen addresses, and that is told."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TYPES, "z9.large", Shape((4,), 15, 2))
        scene = Scene("z9.large")
        scene.refuse(DENIED, "DescribeInstanceTypes")
        scene.machine.add(14)
        scene.machine.run(10)
        assert len(scene.machine.pods) == 14
        scene.machine.run(3600)
    assert scene.asked("DescribeInstanceTypes") <= 14
    told = "what a z9.large can have is not known: 4 interfaces of 15 addresses are assumed"
    assert any(told in one for one in scene.machine.fabric.report().obstacles)


def test_refusals_teach_what_an_unknown_type_can_have() -> None:
    """Fewer addresses, fewer interfaces: what there is is used to the full, and not asked beyond."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TYPES, "z9.small", Shape((2,), 4, 2))
        scene = Scene("z9.small")
        scene.refuse(DENIED, "DescribeInstanceTypes")
        scene.machine.add(6)
        scene.machine.run(200)
        assert len(scene.machine.pods) == 6
        scene.machine.add(1)
        before = len(scene.region.asked)
        scene.machine.run(600)
        assert len(scene.region.asked) - before < 20
        assert any("2 interfaces of 4 addresses are assumed" in one for one in scene.machine.fabric.report().obstacles)
    assert scene.machine.differences() == []
