"""A fabric that grows lives in a thread of the agent, too, and does not die unnoticed."""

from __future__ import annotations

from contextlib import suppress

from demo.lab import Node
from demo.runtime import Refused
from demo.vpc import built
from tests.cloud.test_vpc import SINGLE
from tests.netns.test_death import assert_ends


def fill(node: Node) -> None:
    """More pods than there are addresses for: more are fetched, or would be."""
    with suppress(Refused):
        for _ in range(12):
            node.add()


def test_the_process_ends_with_the_fabric() -> None:
    """Within a second, with exit code 1; the next process gives the pods that it had asked for addresses."""
    with built(nodes=1, settings=SINGLE, is_started=False) as vpc:
        (node,) = vpc.nodes
        filling = assert_ends(node, "fabric", "perform", fill, "SystemExit")
        node.program = ("-m", "agent.main")
        node.start()
        filling.join()  # it goes on with this process; all that it asks for and two are as many as there can be
        for _ in range(2):
            node.add()
