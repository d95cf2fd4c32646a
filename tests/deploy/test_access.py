"""The role that is in deploy/: it permits what agents ask of the API server, and nothing that they do not ask."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from demo.cluster import cluster, do_meet
from demo.lab import eventually
from tests.deploy.manifests import OVERLAYS, rendered


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_role_is_of_the_agents_account_in_every_overlay_alike(overlay: str) -> None:
    """One role, bound to the account that the pods run as; what is on no other namespace's account."""
    found = rendered(f"overlays/{overlay}")
    (role,), (binding,), (account,) = (
        found.of(one) for one in ("ClusterRole", "ClusterRoleBinding", "ServiceAccount")
    )
    assert role["rules"] == rendered("overlays/static").of("ClusterRole")[0]["rules"]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    (subject,) = binding["subjects"]
    identity = account["metadata"]["name"], account["metadata"]["namespace"]
    assert (subject["name"], subject["namespace"]) == identity
    assert found.pod["serviceAccountName"] == account["metadata"]["name"]


def test_agents_ask_for_just_what_the_role_permits() -> None:
    """Two of them, with the API server judging by that role: each comes to know the other, is ready, says so on its
    Node and takes its taint away; and every verb of the role was needed for it."""
    (role,) = rendered("overlays/static").of("ClusterRole")
    with cluster("static") as here:
        here.api.rules = role["rules"]
        for one in here.lab.nodes:
            here.api.store.put(here.told(one))
            one.start()
        for one in here.lab.nodes:
            eventually("the node is ready", partial(here.takes_pods, one))
        pods = [one.add() for one in here.lab.nodes]
        eventually("the pods reach each other", lambda: do_meet(*pods))
        eventually("nothing is wrong", lambda: not any(one.status()["problems"] for one in here.lab.nodes))
        assert 403 not in here.api.refusals
        assert here.api.used == permitted(role["rules"])


def permitted(rules: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    """Each verb, API group and resource that *rules* permit; none of them by a wildcard."""
    return {
        (verb, group, resource)
        for rule in rules
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
