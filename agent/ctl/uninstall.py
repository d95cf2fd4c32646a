"""``routablectl uninstall``: want nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import backends
from agent.announce.directories import EXECUTABLE, remove_conflist
from agent.config.schema import Config
from agent.process.machine import boot_id, identity, moment
from backends.nodeplan import NFT_TABLES
from cni import install
from cni.errors import ConfigInvalid
from dataplane.diff import diff
from dataplane.items import Plan, Route, Rule
from dataplane.kernel import Kernel
from dataplane.netns import Netns
from dataplane.nft import Nft
from dataplane.observe import Device, Filter, OnHost, Settings, Strangers
from dataplane.ours import TABLES
from ipam.store import Store


def uninstall(config: Config, *, is_sure: bool) -> Iterator[str]:
    """Remove every link, route, nexthop, neighbour, rule, address and table of ours, and end all leases; tells what in
    lines.

    The network configuration that the agent wrote goes first, so that the runtime adds no pod any more. Sysctls keep
    their values, since others may rely on them by now; the journal keeps the history of addresses.
    ConfigInvalid: pods have addresses, and the operator is not sure.
    """
    now = moment()
    with closing(Store(Path(config.paths.state), boot_id(), now, identity())) as store, closing(Netns()) as netns:
        records = store.load()
        if records and not is_sure:
            raise ConfigInvalid(
                f"{len(records)} pods on this node have addresses",
                "drain the node first, or add --yes: they lose their network",
            )
        yield from filter(None, [remove_conflist(config.cni)])
        for name in backends.BACKENDS:
            backend = backends.load(name)
            yield from backend.remove(config.of(backend), config.node)
        with closing(Kernel(netns, Nft())) as kernel:
            have = kernel.observe([OnHost(), Settings((), NFT_TABLES), Filter()])
            changes = diff({**have, **kernel.observe(_devices(have))}, {})
            yield from (str(change) for change in changes)
            kernel.apply(changes)
            for item in kernel.observe([Strangers()]).values():
                yield f"left alone, it has no mark of ours: {item}"
        for record in records:
            store.drop([record.lease.who], now)
        yield from _executable(store, is_needed=bool(records))
        yield f"removed {len(changes)} objects, ended {len(records)} leases"


def _executable(store: Store, *, is_needed: bool) -> Iterator[str]:
    """Take away the executable that the agent put there; not while a runtime has to call it for pods that are left."""
    digest, _, target = (store.recall(EXECUTABLE) or "").partition(" ")
    if target and is_needed:
        yield f"left there, the runtime calls it when the pods end: {target}"
    elif target and install.removed(Path(target), digest):
        yield f"- {target}"


def _devices(have: Plan) -> list[Device]:
    """The addresses of ours on interfaces of the machine, each with a rule that leads from it to a table of ours, whose
    routes say by which interface: so does a backend whose addresses are on several."""
    devices = {item.table: item.dev for item in have.values() if isinstance(item, Route) and item.table in TABLES}
    rules = [item for item in have.values() if isinstance(item, Rule) and item.src and item.table in devices]
    return [Device(devices[rule.table], (rule.src,)) for rule in rules]
