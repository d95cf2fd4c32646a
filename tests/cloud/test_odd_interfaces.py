"""What else an instance may have beside interfaces for pods: on other network cards, or without IPv4."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.cloud.machine import Clock, Machine
from tests.cloud.region import Region


def row(name: str, index: int, card: int, address: str = "", kind: str = "interface") -> dict[str, Any]:
    """An attached interface as it is described."""
    own = {"PrivateIpAddress": address} if address else {}
    return {
        "NetworkInterfaceId": name,
        "MacAddress": f"02:ee:00:00:{card:02x}:{index:02x}",
        "SubnetId": "subnet-other",
        "Status": "in-use",
        "InterfaceType": kind,
        **own,
        "PrivateIpAddresses": [{**own, "Primary": True}] if own else [],
        "Attachment": {
            "AttachmentId": f"attach-{name}",
            "DeviceIndex": index,
            "NetworkCardIndex": card,
            "Status": "attached",
            "DeleteOnTermination": True,
        },
        "TagSet": [],
    }


class Odd(Region):
    """Every instance has *rows*, too, before its own."""

    rows: tuple[dict[str, Any], ...] = ()

    def seen(self, instance: str) -> list[dict[str, Any]]:
        return [*self.rows, *super().seen(instance)]

    def call(self, action: str, parameters: Mapping[str, Any], who: str = "an agent") -> dict[str, Any]:
        answer = super().call(action, parameters, who)
        if action == "DescribeNetworkInterfaces" and "attachment.instance-id" in str(parameters):
            answer["NetworkInterfaces"] = [*self.rows, *answer["NetworkInterfaces"]]
        if action == "DescribeSubnets" and "subnet-other" in str(parameters):
            raise AssertionError("of no use here")
        return answer


EFA = row("eni-efa", 1, 1, kind="efa-only")
OTHERS = tuple(row(f"eni-{card}", 0, card, f"10.9.0.{card + 8}") for card in range(1, 4))
SIX = row("eni-six", 1, 0)


def machine(*rows: dict[str, Any], kind: str = "m5.large") -> Machine:
    clock = Clock()
    region = Odd(clock)
    region.rows = rows
    subnet = region.add_subnet(region.add_vpc("10.0.0.0/16"), "10.0.0.0/20")
    region.subnets["subnet-other"] = region.subnets[subnet]
    return Machine(region, clock, region.run_instance(kind, subnet))


@pytest.mark.parametrize("rows", [(EFA,), OTHERS, (EFA, *OTHERS), (SIX,)], ids=["efa", "cards", "both", "ipv6"])
def test_what_is_not_for_pods_is_no_hindrance(rows: tuple[dict[str, Any], ...]) -> None:
    """The node starts, and is the one with the address of the first card's first interface; neither a look at the
    metadata nor EC2's own answer ends it, and pods are served."""
    one = machine(*rows)
    one.run(5)
    one.add(20)
    one.run(700)
    assert not one.parked
    (own,) = one.here.addresses
    assert own == one.region.instances[one.instance].nics[0].address
    assert one.unserved() == set()


def test_other_cards_take_nothing_from_the_first() -> None:
    """An m5.large may have three interfaces on its only card; what is on others is not counted."""
    one = machine(EFA, *OTHERS)
    one.run(5)
    one.add(9 * 16 * 3)
    one.run(120)
    assert not one.parked
    assert one.fabric.report().interfaces == 3


def test_what_has_no_ipv4_takes_a_place_of_its_card() -> None:
    """It is attached there, as EC2 counts."""
    one = machine(SIX)
    one.run(5)
    assert one.fabric.report().interfaces == 2
