"""The API server of the tests refuses what Kubernetes would."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from cluster.access import Credentials
from cluster.apiserver import Api, Conflict, Unanswered
from tests.cluster.apiserver import ApiServer
from tests.cluster.rbac import Asked, permits
from tests.cluster.store import node

TAINTS = [{"key": "a", "effect": "NoSchedule"}, {"key": "b", "value": "c", "effect": "NoExecute"}]


@pytest.fixture
def patch(api: ApiServer, credentials: Callable[..., Credentials]) -> Callable[..., Any]:
    """Patches the Node n1, which is there; the answer is what the server says it is then."""
    made = node("n1", ["192.0.2.1"], ["10.1.1.0/24"])
    made["spec"]["taints"] = TAINTS
    made["status"]["conditions"] = [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]
    made["status"]["capacity"] = {"cpu": "4"}
    api.store.put(made)

    def send(change: Any, path: str = "/api/v1/nodes/n1") -> Any:
        body = change if isinstance(change, bytes) else json.dumps(change).encode()
        with Api(credentials()).connected() as connection:
            return json.loads(connection.patch(path, body, "the test's verb"))

    return send


def test_conditions_merge_by_type_and_taints_are_replaced(patch: Callable[..., Any]) -> None:
    """As the API's types are tagged; null removes."""
    added = {"type": "NetworkUnavailable", "status": "False"}
    change = {"status": {"conditions": [added, {"type": "Ready", "status": "False"}], "capacity": {"a.io/b": "2000"}}}
    found = patch(change, "/api/v1/nodes/n1/status")
    assert found["status"]["conditions"] == [{"type": "Ready", "status": "False", "reason": "KubeletReady"}, added]
    assert found["status"]["capacity"] == {"cpu": "4", "a.io/b": "2k"}
    assert patch({"spec": {"taints": TAINTS[1:]}})["spec"]["taints"] == TAINTS[1:]
    assert "taints" not in patch({"spec": {"taints": None}})["spec"]


def test_each_resource_changes_its_own(patch: Callable[..., Any]) -> None:
    """A patch of the Node leaves its status, one of the status the rest; one that changes nothing makes no version."""
    before = patch({})
    assert patch({"status": {"capacity": {"a.io/b": "1"}}}) == before
    assert patch({"spec": {"taints": None}}, "/api/v1/nodes/n1/status") == before
    assert before["metadata"]["resourceVersion"] == "1001"


def test_what_is_of_another_version_is_a_conflict(api: ApiServer, patch: Callable[..., Any]) -> None:
    """Or of another object of that name; without a version the patch is of whatever is there."""
    api.store.touch("n1", colour="blue")
    for about in ({"resourceVersion": "1001"}, {"uid": "another"}):
        with pytest.raises(Conflict, match="409 Conflict, Operation cannot be fulfilled"):
            patch({"metadata": about, "spec": {"taints": None}})
    assert patch({"metadata": {"resourceVersion": "1002"}, "spec": {"taints": None}})


@pytest.mark.parametrize(
    ("change", "path", "said"),
    [
        (b"{", "n1", "400 BadRequest, error decoding patch"),
        ([], "n1", "400 BadRequest, json: cannot unmarshal"),
        ({"spec": {"taints": [{"key": "a"}]}}, "n1", "422 Invalid, Node .* spec.taints.0..effect: Unsupported value"),
        ({"spec": {"podCIDRs": ["10.9.0.0/24"]}}, "n1", "422 Invalid, Node .* spec.podCIDRs: Forbidden"),
        ({"metadata": {"name": "n2"}}, "n1", "422 Invalid, Node .* metadata.name"),
        ({"status": {"conditions": [{"status": "True"}]}}, "n1/status", "400 BadRequest, map: .* merge key: type"),
        ({"status": {"conditions": [{"type": "A", "status": False}]}}, "n1/status", "400 BadRequest, json"),
        (
            {"status": {"conditions": [{"type": "A", "status": "True", "lastHeartbeatTime": "now"}]}},
            "n1/status",
            "400 BadRequest, parsing time",
        ),
        ({"status": {"capacity": {"a.io/b": "many"}}}, "n1/status", "400 BadRequest, quantities must match"),
        ({"status": {"capacity": {"things": "1"}}}, "n1/status", "422 Invalid, Node .* status.capacity.things"),
        ({}, "n2", '404 NotFound, nodes "n2" not found'),
        ({}, "n1/proxy", "404 NotFound, the server could not find"),
        ({}, "", "405 MethodNotAllowed"),
    ],
)
def test_what_is_no_node_is_refused(patch: Callable[..., Any], change: Any, path: str, said: str) -> None:
    """With the code and the reason that Kubernetes gives."""
    with pytest.raises(Unanswered, match=said):
        patch(change, f"/api/v1/nodes/{path}".rstrip("/"))


def test_rules_add_up_and_nothing_else_is_permitted() -> None:
    """Names bind what is about one object; a list of all is about none."""
    rules = (
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list"]},
        {"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"], "resourceNames": ["n1"]},
    )
    assert permits(rules, Asked("get", "", "nodes", "n9"))
    assert permits(rules, Asked("list", "", "nodes"))
    assert permits(rules, Asked("patch", "", "nodes/status", "n1"))
    assert not permits(rules, Asked("patch", "", "nodes/status", "n2"))
    assert not permits(rules, Asked("patch", "", "nodes", "n1"))
    assert not permits(rules, Asked("list", "apps", "nodes"))
    assert permits(({"apiGroups": ["*"], "resources": ["*/status"], "verbs": ["*"]},), Asked("get", "", "nodes/status"))


def test_the_server_permits_by_the_rules(api: ApiServer, patch: Callable[..., Any]) -> None:
    """What is not permitted is refused before anything else is looked at; what was used is known."""
    api.rules = ({"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]},)
    with pytest.raises(Unanswered, match=r'nodes "n9" is forbidden: User .* cannot patch resource "nodes"'):
        patch({}, "/api/v1/nodes/n9")
    patch({}, "/api/v1/nodes/n1/status")
    assert api.used == {("patch", "", "nodes/status")}
