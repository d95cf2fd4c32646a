"""The IAM policy in ``deploy/``: enough for everything that an agent does, and nothing more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backends.aws.options import EniOptions
from backends.aws.sweep import AGE, INTERVAL
from tests.cloud.machine import Clock, Machine
from tests.cloud.policy import Authority, Policy
from tests.cloud.region import Region

FILE = Path(__file__).parents[2] / "deploy" / "aws-eni-policy.json"
TAGS = {"routable:cluster": "blue"}


class Scene:
    """A node of the cluster "blue", whose instance and primary interface have the cluster's tag, under the policy."""

    def __init__(self, tags: dict[str, str], cluster: str = "blue") -> None:
        self.clock = Clock()
        self.region = Region(self.clock)
        vpc = self.region.add_vpc("10.0.0.0/16")
        subnet = self.region.add_subnet(vpc, "10.0.0.0/20", "2001:db8::/64")
        text = FILE.read_text().replace("CLUSTER", "blue").replace("vpc/VPC", f"vpc/{vpc}")
        self.policy = Policy(json.loads(text))
        self.authority = Authority(self.region, self.policy)
        self.instance = self.region.run_instance("m5.large", subnet, tags=tags)
        self.region.authorize = self.authority
        self.region.add_group(vpc, {"for": "pods"})
        options = EniOptions(cluster=cluster, ipv6=True, group_tags={"for": "pods"})
        self.machine = Machine(self.region, self.clock, self.instance, options)

    def live(self) -> None:
        """All that an agent does: IPv6, prefixes, interfaces, their groups, what is given back, what others left."""
        machine = self.machine
        machine.run(30)
        machine.add(300)
        machine.run(60)
        for nic in machine.region.attached(self.instance):
            nic.groups = ["sg-other"] if nic.attachment and nic.attachment.index else nic.groups
        machine.run(1400)
        machine.delete(300)
        machine.run(1500)
        left = {**TAGS, "routable:made": f"{self.clock.now - AGE - 1:.0f}"}
        self.region.add_nic(machine.region.instances[self.instance].subnet.id, left)
        machine.run(3 * INTERVAL)


def test_it_is_enough_and_nothing_more() -> None:
    """Nothing is refused, and every action of every statement was needed."""
    scene = Scene(TAGS)
    scene.live()
    assert scene.authority.refused == []
    assert scene.policy.used == scene.policy.all
    assert {error for _, error in scene.region.calls} == {""}
    assert len(scene.region.nics) == 1
    assert len(scene.machine.waits) == 300


@pytest.mark.parametrize(("tags", "cluster"), [({}, "blue"), (TAGS, "green")])
def test_what_is_not_the_clusters_is_out_of_reach(tags: dict[str, str], cluster: str) -> None:
    """A node without the tag, and a cluster of another name: refused, and an error says what to look at."""
    scene = Scene(tags, cluster)
    scene.machine.run(30)
    scene.machine.add(300)
    scene.machine.run(60)
    assert scene.authority.refused
    assert not any(nic.tags.get("routable:cluster") == "green" for nic in scene.region.nics.values())
    assert any("deploy/aws-eni-policy.json" in one for one in scene.machine.fabric.report().obstacles)
