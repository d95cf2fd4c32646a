"""A project with one subnet and machines in it, and the short way to ask for what tests ask for."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.cloud.machine import Clock
from tests.cloud.refusals import Refusal
from tests.gcp.estate import REGION, ZONE
from tests.gcp.project import Project
from tests.gcp.unkindness import KIND, Unkind

Row = dict[str, Any]


def row(cidr: str, name: str = "pods") -> dict[str, str]:
    """A range as a body has it."""
    return {"ipCidrRange": cidr, "subnetworkRangeName": name} if name else {"ipCidrRange": cidr}


class Scene:
    """*clock* answers seconds; "node-a" and "node-b" are in the subnet "nodes", which has the range "pods"."""

    def __init__(self, clock: Callable[[], float] | None = None, unkind: Unkind = KIND, pods: str = "10.1.0.0/16"):
        self.virtual = Clock()
        self.project = Project(clock or self.virtual, unkind)
        self.project.add_subnetwork("nodes", "10.0.0.0/20", pods=pods)
        for name in ("node-a", "node-b"):
            self.project.run_instance(name, "nodes")

    def call(self, method: str, **asked: Any) -> Row:
        """In the project, and where else that method looks."""
        where = {"region": REGION} if method.startswith("subnetworks") else {"zone": ZONE}
        return self.project.call(method, {"project": self.project.project, **where, **asked})

    def nic(self, name: str = "node-a") -> Row:
        """The first interface, as instances.get has it."""
        found, *_ = self.call("instances.get", instance=name)["networkInterfaces"]
        return dict(found)

    def ranges(self, name: str = "node-a") -> list[str]:
        """Its ranges, as instances.get has them."""
        return [one["ipCidrRange"] for one in self.nic(name).get("aliasIpRanges", [])]

    def patch(self, rows: list[dict[str, str]] | None, name: str = "node-a", **more: Any) -> Row:
        """The operation that makes these its ranges; None: none are sent."""
        body = {"fingerprint": more.pop("fingerprint", None) or self.nic(name)["fingerprint"], **more.pop("body", {})}
        if rows is not None:
            body["aliasIpRanges"] = rows
        asked = {"instance": name, "networkInterface": "nic0", "body": body, **more}
        return self.call("instances.updateNetworkInterface", **asked)

    def got(self, operation: Row) -> Row:
        """As it is now."""
        return self.call("zoneOperations.get", operation=operation["name"])

    def refused(self, method: Callable[..., Any], *arguments: Any, **asked: Any) -> Refusal:
        """The refusal of what must be refused."""
        with pytest.raises(Refusal) as caught:
            method(*arguments, **asked)
        return caught.value


def request() -> str:
    """A requestId."""
    return str(uuid.uuid4())
