"""What an API server keeps of Nodes: objects, a version that only grows, and the changes that it remembers.

As the Kubernetes API documentation has it (API Concepts: resource versions, efficient detection of changes, retrieving
large results sets in chunks).
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Object = dict[str, Any]


def node(
    name: str,
    addresses: Sequence[str],
    pod_cidrs: Sequence[str] | None,
    *,
    annotations: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    created: str = "2026-01-01T00:00:00Z",
    images: int = 0,
) -> Object:
    """A Node as kubelet and the controller manager write it; *images* is how many it has pulled."""
    spec: Object = {"providerID": f"test://{name}"}
    if pod_cidrs:
        spec |= {"podCIDR": pod_cidrs[0], "podCIDRs": list(pod_cidrs)}
    listed = [{"type": "Hostname", "address": name}]
    listed += [{"type": "InternalIP", "address": one} for one in addresses]
    pulled = [
        {"names": [f"registry.example/team/app-{n}@sha256:{n:064x}", f"registry.example/team/app-{n}:v1.{n}"],
         "sizeBytes": 100_000_000 + n} for n in range(images)
    ]  # fmt: skip
    return {
        "metadata": {
            "name": name,
            "uid": f"uid-of-{name}",
            "creationTimestamp": created,
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", **(labels or {})},
            **({"annotations": dict(annotations)} if annotations else {}),
        },
        "spec": spec,
        "status": {"addresses": listed, "images": pulled, "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}}},
    }


class Change(NamedTuple):
    """One change: what a watch tells."""

    version: int
    type: str
    object: Object

    @property
    def name(self) -> str:
        """Whose."""
        return str(self.object["metadata"]["name"])


class Store:
    """Any thread may change it; *changed* is told of each."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.version = 1000
        self.oldest = 1000
        """What came since that version is remembered."""
        self.changes: list[Change] = []
        self._objects: dict[str, Object] = {}
        self._snapshots: dict[int, list[Object]] = {}

    def put(self, made: Object) -> None:
        """Create it, or replace what there is of that name."""
        with self.changed:
            known = made["metadata"]["name"] in self._objects
            self._add("MODIFIED" if known else "ADDED", made)

    def get(self, name: str) -> Object | None:
        """What there is of that name."""
        with self.changed:
            return copy.deepcopy(self._objects.get(name))

    def touch(self, name: str, **labels: str) -> None:
        """What does not concern us changes: labels, or the time of a heartbeat."""
        with self.changed:
            made = copy.deepcopy(self._objects[name])
            made["metadata"]["labels"] |= labels
            others = [one for one in made["status"].get("conditions", ()) if one["type"] != "Ready"]
            now = f"2026-01-01T00:{self.version % 60:02}:00Z"
            made["status"]["conditions"] = [*others, {"type": "Ready", "status": "True", "lastHeartbeatTime": now}]
            self._add("MODIFIED", made)

    def delete(self, name: str) -> None:
        """Delete it; watchers are shown it as it was, with the version of the deletion."""
        with self.changed:
            self._add("DELETED", self._objects[name])
            del self._objects[name]

    def _add(self, kind: str, made: Object) -> None:
        self.version += 1
        made = {**made, "metadata": {**made["metadata"], "resourceVersion": str(self.version)}}
        self._objects[made["metadata"]["name"]] = made
        self.changes.append(Change(self.version, kind, made))
        self.changed.notify_all()

    def forget(self) -> None:
        """Compaction: what was before now is not remembered."""
        with self.changed:
            self.version += 1
            self.oldest = self.version
            self.changes.clear()
            self._snapshots.clear()

    def page(
        self, at: int | None, after: str, limit: int, name: str = ""
    ) -> tuple[int, list[Object], str, int]:
        """Of the list at version *at* (None: now) the next *limit* (0: all) after the name *after*: the version, the
        objects, the name to go on after ('': that was all), and how many are left. With *name* it is a list of that one
        alone. KeyError: it is forgotten."""
        with self.changed:
            version = self.version if at is None else at
            if at is None:
                self._snapshots[version] = sorted(self._objects.values(), key=lambda one: str(one["metadata"]["name"]))
            whole = self._snapshots[version]
            rest = [
                one for one in whole if one["metadata"]["name"] > after and name in ("", one["metadata"]["name"])
            ]
            found = rest[:limit] if limit else rest
            left = len(rest) - len(found)
            return version, found, found[-1]["metadata"]["name"] if left else "", left
