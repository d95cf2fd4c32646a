"""Two clusters behind one spine, and a load balancer: what the demo shows of them holds."""

from __future__ import annotations

from demo.between import Between
from demo.text import Printer


def test_what_the_demo_claims() -> None:
    """Pods of both reach each other without NAT; HAProxy outside has pods of both, and no request fails while one moves
    and while a node is drained; a range that overlaps is named."""
    out = Printer()
    Between("static", "dual", out).run()
    assert out.conclusion() == 0
