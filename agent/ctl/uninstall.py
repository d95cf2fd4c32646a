"""``routablectl uninstall``: want nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

import backends
from agent.announce.directories import EXECUTABLE, remove_conflist
from agent.config.schema import Config
from agent.process.machine import boot_id, identity, moment
from backends.nodeplan import NFT_TABLES
from backends.podlink import remains
from cni import install
from cni.errors import ConfigInvalid, StateCorrupt
from dataplane.diff import diff
from dataplane.items import Item, Key, Plan, Route, Rule, plan
from dataplane.kernel import Kernel
from dataplane.links import Veth
from dataplane.netns import Netns
from dataplane.nft import Nft
from dataplane.observe import Device, Filter, OnHost, Settings, Strangers
from dataplane.ours import TABLES
from ipam.moment import Moment
from ipam.schema import Damaged
from ipam.store import Record, Store


def uninstall(config: Config, *, is_sure: bool) -> Iterator[str]:
    """Remove every link, route, nexthop, neighbour, rule, address and table of ours, and end all leases; tells what in
    lines.

    The network configuration that the agent wrote goes first, so that the runtime adds no pod any more. Sysctls keep
    their values, since others may rely on them by now; the journal keeps the history of addresses.
    ConfigInvalid: pods have addresses, and the operator is not sure. StateCorrupt: which, the journal does not tell.
    """
    now = moment()
    with closing(_journal(Path(config.paths.state), now)) as store, closing(Netns()) as netns:
        with closing(Kernel(netns, Nft())) as kernel:
            records, have = store.load(), kernel.observe([OnHost(), Settings((), NFT_TABLES), Filter()])
            pods = max(len(records), sum(isinstance(item, Veth) for item in have.values()))  # the journal may be lost
            if pods and not is_sure:
                raise ConfigInvalid(
                    f"{pods} pods on this node have addresses",
                    "drain the node first, or add --yes: they lose their network",
                )
            yield from filter(None, [remove_conflist(config.cni)])
            for name in backends.BACKENDS:
                backend = backends.load(name)
                yield from backend.remove(config.of(backend), config.node)
            changes = diff({**have, **kernel.observe(_devices(have)), **_in_pods(records)}, {})
            yield from (str(change) for change in changes)
            kernel.apply(changes)
            for item in kernel.observe([Strangers()]).values():
                yield f"left alone, it has no mark of ours: {item}"
        for record in records:
            store.drop([record.lease.who], now)
        yield from _executable(store, is_needed=bool(pods))
        yield f"removed {len(changes)} objects, ended {len(records)} leases"


def _journal(path: Path, now: Moment) -> Store:
    try:
        return Store(path, boot_id(), now, identity())
    except Damaged as error:
        remedy = "start the agent once: it sets the file aside, and asks the kernel which pods there are"
        raise StateCorrupt(error.message, f"nothing was removed; {remedy}") from error


def _executable(store: Store, *, is_needed: bool) -> Iterator[str]:
    """Take away the executable that the agent put there; not while a runtime has to call it for pods that are left."""
    digest, _, target = (store.recall(EXECUTABLE) or "").partition(" ")
    if target and is_needed:
        yield f"left there, the runtime calls it when the pods end: {target}"
    elif target and install.removed(Path(target), digest):
        yield f"- {target}"


def _in_pods(records: Iterable[Record]) -> dict[Key, Item]:
    """What of ours is in pods that live on, and does not go with their links."""
    found = (item for one in records for item in remains(one.lease.who, one).values())
    return plan(*(item for item in found if isinstance(item, Rule)))


def _devices(have: Plan) -> list[Device]:
    """The addresses of ours on interfaces of the machine, each with a rule that leads from it to a table of ours, whose
    routes say by which interface: so does a backend whose addresses are on several."""
    devices = {item.table: item.dev for item in have.values() if isinstance(item, Route) and item.table in TABLES}
    rules = [item for item in have.values() if isinstance(item, Rule) and item.src and item.table in devices]
    return [Device(devices[rule.table], (rule.src,)) for rule in rules]
