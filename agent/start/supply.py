"""Where a node's addresses, and the other nodes, come from: the list of nodes, or the backend itself."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from netaddr import IPAddress, IPNetwork

import backends
from agent.config.schema import Config
from agent.node.ledger import Ledger
from agent.process.life import Living
from agent.process.machine import boot_id, uptime
from agent.serve.parking import Parking
from agent.start import nodes
from backends.descriptor import Handles, Means, Part, Provision
from backends.fabric import Fabric
from cluster.peers import Source
from cni.errors import Exhausted
from ipam.family import Counts
from ipam.lease import Block


class Supply(NamedTuple):
    """The other nodes, the addresses, and what makes what lives: that which listens to the list of nodes, and the parts
    of the backend of a name. Those of the *lasting* ones live whether or not they are in use."""

    source: Source
    fabric: Fabric
    listening: Callable[[Handles], Sequence[Living]]
    parts: Callable[[str, Handles], Sequence[Part]]
    lasting: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Use:
    """`backends.cloud.usage.Usage`, after the *ledger* and who waits in the *parking*."""

    ledger: Ledger
    parking: Parking

    def counts(self) -> Sequence[Counts]:
        """See there."""
        return self.ledger.counts()

    def busy(self, block: IPNetwork) -> int:
        """See there."""
        return self.ledger.busy(block)

    def waiting(self) -> int:
        """See there."""
        return self.parking.waiting()

    def addresses(self) -> list[IPAddress]:
        """See there."""
        return [address for record in self.ledger.records().values() for address in record.lease.addresses]

    def blocks(self) -> frozenset[Block]:
        """See there."""
        return frozenset(one.block for record in self.ledger.records().values() for one in record.lease.leased)

    def resume(self, fabric: Fabric) -> None:
        """Have requests that wait for addresses served, if there may be some, or if *fabric* knows by now that none
        will come: then they are told so, as who comes now is."""
        has_news = any(one.free for one in self.counts())
        if not has_news and self.waiting():
            has_news = not fabric.shortage(Exhausted("no address is free")).may_end
        self.parking.resume(has_news)


def supply(config: Config, use: Use) -> Supply:
    """What *config* says. ConfigInvalid: what its backend needs is not installed."""
    means = Means(
        node=config.node,
        usage=use,
        journal=use.ledger,
        boot=boot_id(),
        uptime=uptime,
        wall=time.time,
        random=random.random,
        environment=os.environ,
    )

    @cache
    def provided(name: str) -> Provision:
        backend = backends.load(name)
        return backend.supply(config.of(backend), means)

    def parts(name: str, handles: Handles) -> Sequence[Part]:
        return provided(name).parts(handles)

    found = provided(config.backend)
    if found.source is not None:
        return Supply(found.source, found.fabric, lambda handles: (), parts)
    source = nodes.source(config, os.environ, Path(config.paths.state))
    written = (name for name, table in backends.BACKENDS.items() if hasattr(config, table))
    lasting = frozenset(name for name in written if backends.load(name).is_lasting)
    return Supply(source, found.fabric, partial(nodes.parts, source), parts, lasting)
