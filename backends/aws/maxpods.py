"""``routablectl max-pods``: how many pods a node can have, for kubelet."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from typing import Final

from backends.aws.table import AwsTable
from backends.cloud import maxpods as shared
from backends.descriptor import Command


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--instance-type", metavar="TYPE", required=True, help="such as m5.large")
    parser.add_argument("--mode", choices=("prefix", "address"), help="what an interface's slots are filled with")
    parser.add_argument("--max-enis", type=int, metavar="N", help="interfaces that are attached at most")
    parser.add_argument("--reserved-enis", type=int, metavar="N", help="first interfaces that are not for pods")
    shared.arguments(parser)
    parser.add_argument("--ask", action="store_true", help="ask EC2 even if the table has the type")
    region = os.environ.get("AWS_REGION")  # which boto3 itself does not read
    parser.add_argument("--region", metavar="REGION", default=region, help="where to ask; default: AWS_REGION")


def _run(options: Namespace, aws: AwsTable, cooldown: float) -> int:
    from backends.aws import limits, live

    mode = options.mode or aws.mode
    found = live.limits_of(options.instance_type, options.region, is_asked=options.ask)
    addresses = limits.pod_addresses(
        found,
        is_prefix_mode=mode == "prefix",
        reserved=aws.reserved_enis if options.reserved_enis is None else options.reserved_enis,
        most=aws.max_enis if options.max_enis is None else options.max_enis,
    )
    pods = limits.max_pods(found, addresses, headroom=options.headroom, is_capped=not options.uncapped)
    document = {"instance_type": options.instance_type, "mode": mode, **found._asdict()}
    return shared.tell(options, pods, addresses, document, cooldown)


COMMAND: Final = Command(
    "max-pods",
    "how many pods a node on AWS can have: for kubelet's --max-pods",
    "Prints the number. Mode and interfaces are those of the agent's configuration, if there is one for aws-eni, "
    "unless they are given here. What the type can have is looked up in a built-in table, or asked of EC2 "
    "(DescribeInstanceTypes) if that does not have it. A pod that comes while the address of the one before it cools "
    "down needs another: --headroom leaves some for that.",
    _arguments,
    _run,
)
