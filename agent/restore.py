"""A start on what earlier processes left: the journal, or where that is lost, what the kernel knows."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from pathlib import Path

from agent.adopt import adopted
from backends.podlink import link_name
from cni.errors import StateCorrupt
from cni.spec import Attachment
from dataplane.items import POD_LINK_PREFIX, Plan, Route, Veth
from dataplane.kernel import Dataplane
from dataplane.observe import Host
from ipam.lease import Block
from ipam.schema import Damaged, set_aside
from ipam.store import Record, Store

log = logging.getLogger(__name__)


def journal(path: Path, boot: str, clock: Callable[[], float] = time.time) -> Store:
    """The journal at *path*; one that is damaged is set aside, since the kernel knows the leases of living pods, too.

    StateCorrupt: it cannot be read, or a newer agent wrote it.
    """
    try:
        return Store(path, boot, clock())
    except Damaged as error:
        log.error("the journal is built anew from what the kernel knows", extra={"error": str(error)})
        return renewed(path, boot, clock)


def renewed(path: Path, boot: str, clock: Callable[[], float] = time.time) -> Store:
    """An empty journal in the place of whatever is there."""
    aside = set_aside(path, clock())
    if aside is not None:
        log.warning("what was in the journal's place was set aside", extra={"file": str(aside)})
    return Store(path, boot, clock())


def records(
    store: Store, kernel: Dataplane, blocks: frozenset[Block], clock: Callable[[], float] = time.time
) -> list[Record]:
    """The records of the journal, and those of pods that only the kernel still knows.

    StateCorrupt: it knows nothing, and a pod's link does not tell whose it is.
    """
    kept = store.load()
    known = {record.lease.who for record in kept}
    have = kernel.observe([Host()])
    more = adopted(have, known, blocks, clock())
    if store.is_new:
        _refuse_unknown(have, {record.lease.who for record in more})
    for record in more:
        store.save(record)
        addresses = " ".join(map(str, record.lease.addresses))
        log.warning(
            "the journal had lost a lease; the kernel knows it",
            extra={"attachment": str(record.lease.who), "addresses": addresses},
        )
    return kept + more


def _refuse_unknown(have: Plan, known: Collection[Attachment]) -> None:
    """Such a pod's address might be given to another, and its link would be taken for a leftover."""
    ours = {link_name(who) for who in known}
    links = {item.name for item in have.values() if isinstance(item, Veth)}
    links |= {item.dev for item in have.values() if isinstance(item, Route) and item.dev.startswith(POD_LINK_PREFIX)}
    for name in sorted(links - ours):
        raise StateCorrupt(
            f"the journal is lost, and link {name} does not say which pod's it is",
            f"delete that pod, or if there is none, the link: ip link delete {name}; then start again",
        )
