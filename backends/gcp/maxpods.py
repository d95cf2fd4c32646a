"""``routablectl max-pods-gcp``: how many pods a node can have by its alias ranges, for kubelet."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Final

from backends.cloud import maxpods as shared
from backends.descriptor import Command
from backends.gcp.table import GcpTable, wanted
from ipam.warmpool import capacity


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--processors", type=shared.count, metavar="N", default=0, help="that the machine type has")
    parser.add_argument("--max-ranges", type=shared.count, metavar="N", help="alias ranges that the interface takes")
    shared.arguments(parser)


def _run(options: Namespace, gcp: GcpTable, cooldown: float) -> int:
    chosen = wanted(gcp)
    most = chosen.most if options.max_ranges is None else options.max_ranges
    addresses = capacity(most, chosen.warm)
    pods = shared.max_pods(
        addresses, options.processors, headroom=options.headroom, is_capped=not options.uncapped
    )
    document = {"max_ranges": most, "prefix": gcp.prefix, "largest_prefix": gcp.largest_prefix}
    return shared.tell(options, pods, addresses, document, cooldown)


COMMAND: Final = Command(
    "max-pods-gcp",
    "how many pods a node on Google Cloud can have: for kubelet's --max-pods",
    "Prints the number. The size of the ranges, and how many the interface takes, are those of the agent's "
    "configuration, if there is one for gcp-alias. Nothing is asked: whether the subnet's range has as many addresses "
    "for all nodes is another matter.",
    _arguments,
    _run,
)
