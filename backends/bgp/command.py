"""``routablectl bgp``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Final

from backends.bgp.table import BgpTable
from backends.descriptor import Command


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "what",
        choices=["check", "run"],
        help="check: whether BIRD can be restarted without a packet lost; run: be BIRD, in a container of its own",
    )


def bgp(options: Namespace, table: BgpTable, cooldown: float) -> int:
    """See `backends.bgp.check` and `backends.bgp.beside`."""
    if options.what == "run":
        from backends.bgp.beside import run

        return run(table)
    from backends.bgp.check import check

    return check(table)


BGP: Final = Command(
    name="bgp",
    help="whether BIRD can be restarted without a packet lost",
    description="With backend bgp. check: whether graceful restart was negotiated, by both ends and for each family, "
    "and whether BFD would defeat it; exit code 1 where packets would be lost. run: runs BIRD with what the agent "
    "tells it, where that is not the agent's own to start (bgp.start_bird = false), until it is told to end.",
    arguments=_arguments,
    run=bgp,
)
