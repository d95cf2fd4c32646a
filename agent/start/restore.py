"""A start on what earlier processes left: the journal, or where that is lost, what the kernel knows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from pathlib import Path

import backends
from agent.process.machine import claim, is_claimed, moment
from agent.start.adopt import adopted
from agent.switch.way import JOURNAL, State, kept, restored, seen
from backends.podlink import link_name
from cluster.peers import Source
from cni.errors import ConfigInvalid, StateCorrupt
from cni.spec import Attachment
from dataplane.items import Plan, Route
from dataplane.links import Veth
from dataplane.observe import OnHost
from dataplane.ours import has_pod_link_name
from dataplane.seam import Dataplane
from ipam.lease import Block
from ipam.moment import Moment
from ipam.schema import Damaged, bears_our_mark, set_aside
from ipam.store import Record, Store

log = logging.getLogger(__name__)


def journal(path: Path, boot: str, clock: Callable[[], Moment] = moment, machine: str = "-") -> Store:
    """The journal at *path*; one that is damaged is set aside, since the kernel knows the leases of living pods, too.

    StateCorrupt: it cannot be read, a newer agent wrote it, or it is somebody else's file, which is left alone.
    """
    try:
        store = Store(path, boot, clock(), machine)
    except Damaged as error:
        refuse_file_of_others(path)
        log.error("the journal is built anew from what the kernel knows", extra={"error": str(error)})
        return renewed(path, boot, clock, machine)
    if store.is_foreign:
        log.warning("another machine wrote the journal: it is begun anew", extra={"file": str(path)})
    return _claimed(store)


def renewed(path: Path, boot: str, clock: Callable[[], Moment] = moment, machine: str = "-") -> Store:
    """An empty journal in the place of whatever is there."""
    aside = set_aside(path, clock().wall)
    if aside is not None:
        log.warning("what was in the journal's place was set aside", extra={"file": str(aside)})
    return _claimed(Store(path, boot, clock(), machine))


def state(store: Store, kernel: Dataplane, source: Source, configured: str, boot: str) -> State:
    """Which backends wire the node: after the journal, or where that is lost, after what is in the kernel."""
    text = store.recall(JOURNAL)
    if text is not None:
        return restored(text, configured, boot)
    have = kernel.observe([OnHost()])
    found = seen(have, (), configured)
    if found.is_resting:
        return found
    log.warning("the journal was lost; the kernel knows the backend in use", extra={"backend": found.active})
    source.refresh()
    return seen(have, [peer.name for peer in source.nodes], configured)


def refuse_other_pods(store: Store, backend: str) -> None:
    """Raise ConfigInvalid if there are pods with addresses that *backend* knows nothing of."""
    text = store.recall(JOURNAL)
    refuse_pods_of(str(kept(text)["active"]) if text is not None else backend, len(store.load()), backend)


def refuse_pods_of(before: str, pods: int, backend: str) -> None:
    """Raise ConfigInvalid if so many pods have addresses of the backend *before*, which mean nothing to *backend*."""
    if pods and not backends.are_alike(before, backend):
        raise ConfigInvalid(
            f"backend is {backend}, but {pods} pods on this node have addresses of backend {before}",
            f"set backend to {before} again and drain the node first",
        )


def refuse_file_of_others(path: Path) -> None:
    """Raise StateCorrupt if what is at *path*, and is no journal that can be read, never was one of ours."""
    if not bears_our_mark(path) and not is_claimed(path):
        raise StateCorrupt(
            f"paths.state is {path}, which is no journal of the agent's: {_beginning(path)}",
            "it was left alone: set paths.state to a file of the agent's own, or move this one away",
        )


def _claimed(store: Store) -> Store:
    try:
        claim(store.path)
    except OSError as error:
        store.close()
        raise StateCorrupt(
            f"the store {store.path} has no room beside it: {error.strerror}", "check paths.state and its directory"
        ) from error
    return store


def _beginning(path: Path) -> str:
    with path.open("rb") as file:
        return f"it begins with {file.read(16)!r}"


def records(
    store: Store, kernel: Dataplane, blocks: frozenset[Block], clock: Callable[[], Moment] = moment
) -> list[Record]:
    """The records of the journal, and those of pods that only the kernel still knows.

    StateCorrupt: it knows nothing, and a pod's link does not tell whose it is.
    """
    saved = store.load()
    known = {record.lease.who for record in saved}
    have = kernel.observe([OnHost()])
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
        if not record.netns:
            log.warning(
                "its namespace is not known: nothing is mended but the host's end until a CHECK names it",
                extra={"attachment": str(record.lease.who)},
            )
    return saved + more


def _refuse_unknown(have: Plan, known: Collection[Attachment]) -> None:
    """Such a pod's address might be given to another, and its link would be taken for a leftover."""
    ours = {link_name(who) for who in known}
    links = {item.name for item in have.values() if isinstance(item, Veth)}
    links |= {item.dev for item in have.values() if isinstance(item, Route) and has_pod_link_name(item.dev)}
    for name in sorted(links - ours):
        raise StateCorrupt(
            f"the journal is lost, and link {name} does not say which pod's it is",
            f"delete that pod, or if there is none, the link: ip link delete {name}; then start again",
        )
