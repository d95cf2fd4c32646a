"""Where a node's addresses, and the other nodes, come from: the list of nodes, or a cloud."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from netaddr import IPAddress, IPNetwork

from agent.ledger import Ledger
from agent.machine import boot_id, uptime
from agent.schema import Aws, Config
from agent.server import Server
from backends.aws import live
from backends.aws.fabric import Fabric as EniFabric
from backends.aws.options import Options
from backends.cloud.failures import CloudError
from backends.cloud.steps import Steps
from backends.fabric import Fabric
from backends.podcidrs import PodCidrs
from cluster.nodesfile import NodesFile
from cluster.peers import Source
from dataplane import uplink
from ipam.family import Counts
from ipam.store import Store
from ipam.warmpool import Settings

SPARE: Final = 4
"""Free addresses kept ready in mode "address" where nothing is said: without any, every pod would wait for EC2."""


class Growth(NamedTuple):
    """What a fabric that grows needs done: see `agent.errands`."""

    life: Steps[None]
    perform: Callable[[Any], Any]
    failures: type[Exception]


class Supply(NamedTuple):
    """The other nodes, the addresses, and what has more of these come, if anything does."""

    source: Source
    fabric: Fabric
    growth: Growth | None = None


@dataclass(slots=True)
class Use:
    """What a fabric needs of parts that are made after it: `backends.aws.fabric.Usage` and its journal. *store* is read
    at the start; what is to be kept goes through the ledger, which may have another store by then."""

    store: Store
    ledger: Ledger | None = None
    server: Server | None = None

    def counts(self) -> Sequence[Counts]:
        """See there."""
        return self.ledger.counts() if self.ledger is not None else ()

    def busy(self, block: IPNetwork) -> int:
        """See `backends.aws.changes.Usage`."""
        return self.ledger.busy(block) if self.ledger is not None else 0

    def waiting(self) -> int:
        """See there."""
        return self.server.waiting if self.server is not None else 0

    def addresses(self) -> list[IPAddress]:
        """See there."""
        records = self.ledger.records().values() if self.ledger is not None else ()
        return [address for record in records for address in record.lease.addresses]

    def resume(self) -> None:
        """Have requests that wait for addresses served, if there may be some."""
        if self.server is not None:
            self.server.resume(any(one.free for one in self.counts()))

    def recall(self, name: str) -> str | None:
        """See `backends.aws.inventory.Journal`."""
        return (self.ledger or self.store).recall(name)

    def remember(self, name: str, value: str) -> None:
        """See `backends.aws.inventory.Journal`."""
        assert self.ledger is not None, "the fabric lives in a thread that starts last"
        self.ledger.remember(name, value)


def supply(config: Config, use: Use) -> Supply:
    """What *config* says. ConfigInvalid: what its backend needs is not installed."""
    if config.backend != "aws-eni":
        kept = Path(config.paths.state).with_suffix(".nodes.toml")
        return Supply(NodesFile(config.nodes.file, kept=kept), PodCidrs())
    live.refuse_without_library()
    fabric = EniFabric(
        node=config.node,
        options=wanted(config.aws),
        journal=use,
        usage=use,
        devices=uplink.by_mac,
        clock=uptime,
        wall=time.time,
        boot=boot_id(),
        random=random.random,
        token=live.token,
    )
    return Supply(fabric, fabric, Growth(fabric.life(), live.Live(fabric, os.environ).perform, CloudError))


def wanted(aws: Aws) -> Options:
    """The table [aws] as the backend wants to know it."""
    has_nothing_warm = aws.mode == "address" and not (aws.minimum_addresses or aws.warm_enis)
    return Options(
        cluster=aws.cluster,
        warm=Settings(
            is_prefix_mode=aws.mode == "prefix",
            warm_addresses=aws.warm_addresses or (SPARE if has_nothing_warm else None),
            minimum_addresses=aws.minimum_addresses or None,
            warm_prefixes=aws.warm_prefixes,
            warm_interfaces=aws.warm_enis,
            delay=aws.shrink_delay,
        ),
        interfaces=aws.max_enis,
        reserved=aws.reserved_enis,
        subnets=aws.subnets,
        subnet_tags=aws.subnet_tags,
        groups=aws.security_groups,
        group_tags=aws.security_group_tags,
        ipv6=aws.ipv6,
        foreign=aws.foreign_addresses,
    )
