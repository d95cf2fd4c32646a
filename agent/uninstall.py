"""``routablectl uninstall``: want nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from agent.machine import boot_id, identity, moment
from agent.schema import Config
from backends.nodeplan import TABLE
from cni.errors import ConfigInvalid
from dataplane.diff import diff
from dataplane.kernel import Kernel
from dataplane.netns import Netns
from dataplane.nft import Nft
from dataplane.observe import Host, Settings
from ipam.store import Store


def uninstall(config: Config, *, is_sure: bool) -> Iterator[str]:
    """Remove every link, route, nexthop, neighbour and table of ours, and end all leases; tells what in lines.

    Sysctls keep their values, since others may rely on them by now; the journal keeps the history of addresses.
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
        with closing(Kernel(netns, Nft())) as kernel:
            changes = diff(kernel.observe([Host(), Settings((), (TABLE,))]), {})
            yield from (str(change) for change in changes)
            kernel.apply(changes)
        for record in records:
            store.drop([record.lease.who], now)
        yield f"removed {len(changes)} objects, ended {len(records)} leases"
