"""Labs that tests of one kind share: real nodes, real agents, the real kernel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from demo.lab import Lab, built


@pytest.fixture(
    scope="module",
    params=[
        pytest.param({"backend": "static", "family": "dual"}, id="static"),
        pytest.param({"backend": "vxlan", "family": "dual"}, id="vxlan"),
        pytest.param({"backend": "vxlan", "family": "dual", "is_routed": True}, id="vxlan-routed"),
        pytest.param(
            {"backend": "vxlan", "family": "dual", "settings": {"vxlan": {"underlay": "ipv6"}}}, id="vxlan-over-ipv6"
        ),
        pytest.param(
            {"backend": "vxlan", "family": "dual", "settings": {"vxlan": {"direct": True}}}, id="vxlan-direct"
        ),
    ],
)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Two nodes with two pods each, in every way that the backends can connect them."""
    options: dict[str, Any] = dict(request.param)
    with built(nodes=2, **options) as lab:
        for node in lab.nodes:
            node.add()
            node.add()
        yield lab
