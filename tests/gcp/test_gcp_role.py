"""The role in ``deploy/``: enough for everything that an agent does, and nothing more."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.fakes.living import Clock
from tests.gcp.node import AliasNode
from tests.gcp.project import Project
from tests.gcp.role import Role
from tests.gcp.strangers import Hands

FILE = Path(__file__).parents[2] / "deploy" / "gcp-alias-role.yaml"


def living(role: Role) -> AliasNode:
    """All that an agent does: more, less, what others changed, and a range that is full."""
    clock = Clock()
    project = Project(clock)
    project.add_subnetwork("nodes", "10.0.0.0/20", pods="10.4.0.0/24")
    project.run_instance("node-1", "nodes")
    project.role = role
    node = AliasNode(project, clock, "node-1")
    node.run(30)
    node.add(40)
    node.run(30)
    node.delete(40)
    node.run(600)
    Hands(project).add("node-1", range_="pods")
    node.run(100)
    Hands(project).exhaust("nodes", "pods")
    node.add(100)
    node.run(100)
    return node


def test_it_is_enough_and_nothing_more() -> None:
    """Nothing is refused for a permission, and every one was needed."""
    role = Role(yaml.safe_load(FILE.read_text()))
    node = living(role)
    assert role.refused == set()
    assert role.used == role.all
    assert len(node.pods) == 16


@pytest.mark.parametrize(
    "permission",
    ["compute.instances.get", "compute.instances.updateNetworkInterface", "compute.subnetworks.use"],
)
def test_what_it_lacks_is_told(permission: str) -> None:
    """With the file to look at."""
    document = yaml.safe_load(FILE.read_text())
    document["includedPermissions"].remove(permission)
    node = living(Role(document))
    node.run(700)
    seen: set[str] = set()
    for _ in range(200):
        node.run(1)
        seen.update(node.fabric.report().obstacles)
    told = "; ".join(seen)
    assert permission in told
    assert "deploy/gcp-alias-role.yaml" in told
