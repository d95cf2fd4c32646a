"""What a custom IAM role allows: the file as ``gcloud iam roles create --file`` takes it, held to every call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tests.gcp import unverified

PERMISSIONS: Mapping[str, str] = {
    "instances.get": "compute.instances.get",
    "instances.updateNetworkInterface": "compute.instances.updateNetworkInterface",
    "subnetworks.get": "compute.subnetworks.get",
    "zoneOperations.get": "compute.zoneOperations.get",
    "zoneOperations.wait": "compute.zoneOperations.get",
}
"""As the API reference has them at each method."""


class Role:
    """The *document*, read from YAML or JSON. *used* are the permissions that allowed something, *refused* those that
    were missing."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        if unknown := document.keys() - {"title", "description", "stage", "includedPermissions"}:
            raise ValueError(f"a role has no {', '.join(sorted(unknown))}")
        self.all = frozenset(document["includedPermissions"])
        self.used: set[str] = set()
        self.refused: set[str] = set()

    def missing(self, method: str, parameters: Mapping[str, Any]) -> str:
        """The first permission that a call needs and does not have; '': it is allowed."""
        for one in needed(method, parameters):
            if one not in self.all:
                self.refused.add(one)
                return one
            self.used.add(one)
        return ""


def needed(method: str, parameters: Mapping[str, Any]) -> Iterator[str]:
    """The permissions for a call."""
    yield PERMISSIONS[method]
    if parameters.get("body", {}).get("aliasIpRanges"):
        yield unverified.USE
