"""Pods as the tests ask for them, and what is asked of them."""

from __future__ import annotations

import uuid

from tests.runtime.cri import Pod


def pod(**options: object) -> Pod:
    """A new pod."""
    return Pod(f"web-{uuid.uuid4().hex[:5]}", str(uuid.uuid4()), **options)  # type: ignore[arg-type]


def peer_url(address: str) -> str:
    """Where the web server of a pod tells a client's address."""
    return f"http://[{address}]/cgi-bin/peer" if ":" in address else f"http://{address}/cgi-bin/peer"
