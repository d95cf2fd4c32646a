"""Prefixes that the primary interface had from the start, by the launch template (RunInstances, Ipv4PrefixCount)."""

from __future__ import annotations

import pytest

from backends.aws.options import EniOptions
from ipam.warmpool import Targets
from tests.cloud.machine import Clock, Machine, together
from tests.cloud.region import Region

QUIET = 240.0
"""Seconds in which EC2 is not asked for the whole of what there is, not even the first time."""


def started(clock: Clock, count: int, prefixes: int, warm: Targets) -> list[Machine]:
    """That many instances that were started with so many prefixes each."""
    region = Region(clock)
    subnet = region.add_subnet(region.add_vpc("10.0.0.0/16"), "10.0.0.0/18")
    instances = [region.run_instance("m5.large", subnet, wanted=(0, prefixes)) for _ in range(count)]
    return [
        Machine(region, clock, instance, EniOptions(warm=warm), seed=number)
        for number, instance in enumerate(instances)
    ]


def test_the_first_pods_need_no_call_at_all() -> None:
    """Nor do those that come and go later, as long as the minimum is enough for them; on no node."""
    machines = started(clock := Clock(), 20, 2, Targets(minimum_addresses=20))
    for one in machines:
        one.add(20)
    together(machines, 5, clock)
    assert [len(one.pods) for one in machines] == [20] * 20
    for _ in range(20):
        for one in machines:
            one.delete(1)
            one.add(1)
        together(machines, (QUIET - 10) / 20, clock)
    assert sum(machines[0].region.calls.values()) == 0
    assert all(one.unserved() == set() for one in machines)
    assert max(wait for one in machines for wait in one.waits) < 1


@pytest.mark.parametrize(
    ("prefixes", "warm", "left"),
    [
        (1, Targets(), 1),
        (3, Targets(warm_prefixes=3), 3),
        (3, Targets(minimum_addresses=40), 3),
        (3, Targets(warm_addresses=20), 2),
        (3, Targets(), 1),
        (0, Targets(), 1),
    ],
)
def test_they_are_kept_within_the_warm_target(prefixes: int, warm: Targets, left: int) -> None:
    """What is wanted stays as it was, after EC2's own word and a restart, too; what is beyond that is given back."""
    (machine,) = started(Clock(), 1, prefixes, warm)
    nic = machine.region.instances[machine.instance].nics[0]
    before = set(nic.blocks)
    machine.run(30)
    assert set(nic.blocks) >= before
    machine.run(1500)
    machine.crash()
    machine.run(1500)
    assert len(nic.blocks) == left
    assert not before or set(nic.blocks) <= before
    asked = {action for action, _ in machine.region.calls}
    assert ("UnassignPrivateIpAddresses" in asked) == (left < prefixes)
    assert ("AssignPrivateIpAddresses" in asked) == (left > prefixes)
    assert machine.differences() == []
