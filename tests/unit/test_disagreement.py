"""What a Node says of its pods' ranges, beside what they are."""

from __future__ import annotations

import msgspec
import pytest
from netaddr import IPNetwork

from cluster.ownnode import disagreement, said


@pytest.mark.parametrize(
    ("spec", "annotation", "used", "told"),
    [
        (["10.1.1.0/24"], "", ["10.1.1.0/24"], ""),
        (["10.1.1.0/24", "fd00:1::/64"], "", ["fd00:1::/64", "10.1.1.0/24"], ""),
        (None, "10.1.1.0/24", ["10.1.1.0/24"], ""),
        (["10.1.1.0/24"], "10.1.1.0/24", ["10.1.1.0/24"], ""),
        (["10.1.1.0/24"], "", [], ""),
        (["10.1.1.0/24"], "", ["10.9.1.0/24"], "10.1.1.0/24, but its pods have addresses of 10.9.1.0/24"),
        (["10.1.1.0/24", "fd00::/64"], "", ["10.1.1.0/24"], "fd00::/64, but its pods have addresses of 10.1.1.0/24"),
        (["10.1.1.0/24"], "10.9.1.0/24", ["10.1.1.0/24"], "its annotation routable.io/pod-cidrs 10.9.1.0/24"),
        (["10.1.1.0/24"], "nonsense, 10.1.1.0/24", ["10.1.1.0/24"], ""),
    ],
)
def test_it_is_told_where_they_are_not_the_same(
    spec: list[str] | None, annotation: str, used: list[str], told: str
) -> None:
    """In whatever order they stand; nothing is told where one says nothing. What is no range is told elsewhere."""
    annotations = {"routable.io/pod-cidrs": annotation} if annotation else None
    node = {"metadata": {"name": "n1", "annotations": annotations}, "spec": {"podCIDRs": spec}}
    now, _ = said(msgspec.json.encode(node))
    found = disagreement(now, [IPNetwork(one) for one in used])
    assert bool(found) == bool(told)
    assert found.endswith(told)
