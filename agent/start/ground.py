"""What everything stands on: the journal and the kernel, and what is known of leases when the agent starts."""

from __future__ import annotations

import logging
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector

from agent.config.schema import Config
from agent.keep.survey import Survey
from agent.node.ledger import Ledger
from agent.process.machine import boot_id, identity, moment
from agent.start import restore
from agent.tell.metrics import Metrics
from backends import nodeplan
from cni.errors import NotReady
from dataplane import preflight
from dataplane.forward import Forward
from dataplane.items import plan
from dataplane.kernel import Kernel
from dataplane.netns import Netns
from dataplane.nft import Nft
from ipam.allocator import Allocator
from ipam.store import Store

log = logging.getLogger("agent")


@dataclass(frozen=True, slots=True)
class Ground:
    """What everything stands on: the journal, and the kernel."""

    boot: str
    store: Store
    ledger: Ledger
    registry: CollectorRegistry
    metrics: Metrics
    nft: Nft
    forward: Forward
    kernel: Kernel


def grounded(config: Config, parts: ExitStack) -> Ground:
    """Read the journal. Its leases are in the ledger once they are `restored`."""
    netns = parts.enter_context(closing(Netns()))
    boot, machine, state = boot_id(), identity(), Path(config.paths.state)
    store = restore.journal(state, boot, machine=machine)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    measured = Metrics(registry)
    ledger = Ledger(
        allocator=Allocator(config.ipam.cooldown),
        store=store,
        metrics=measured,
        clock=moment,
        reopen=lambda: restore.renewed(state, boot, machine=machine),
    )
    nft, forward = Nft(memory=ledger), Forward()
    kernel = parts.enter_context(closing(Kernel(netns, nft, settings=Path(config.paths.sysctls), forward=forward)))
    parts.callback(ledger.close)
    restore.refuse_other_pods(store, config.backend)
    return Ground(boot, store, ledger, registry, measured, nft, forward, kernel)


def restored(ground: Ground, survey: Survey) -> None:
    """Give the ledger what the journal and the kernel know of leases."""
    store = ground.store
    if store.dropped:
        log.info("dropped the leases of an earlier boot", extra={"leases": store.dropped})
    blocks = survey.now.blocks if survey.now else frozenset()
    ground.ledger.restore(restore.records(store, ground.kernel, blocks))


def refuse_what_is_missing(survey: Survey, nft: Nft, settings: Path) -> None:
    """Raise NotReady with all that this machine lacks, by name, before anything is changed."""
    now = survey.now
    # Where the list of nodes or a cloud's metadata is not there yet, what every node needs is known all the same.
    needed = now.wired.plan if now is not None else plan(nodeplan.table((), None))
    lacking = preflight.missing(needed, nft, settings=settings)
    if lacking:
        raise NotReady("this machine lacks what the agent needs", "; ".join(lacking))
