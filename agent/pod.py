"""Which differences at a pod are faults: pure, and the same for CHECK and for repair.

In the pod's namespace others may have their say. A plugin chained after this one may change the hardware address of
the pod's end and make its MTU smaller, and whatever is there besides what is ours (a second address, more routes) is
the pod's own business. On the host all that hangs on the pod's link is ours alone.
"""

from __future__ import annotations

from dataclasses import replace

from backends.podlink import link_name
from backends.wiring import Wiring
from dataplane.diff import Change, diff
from dataplane.items import HOST, Item, Key, Plan, Port, Sysctl
from dataplane.observe import Pod, PodLink, Scope
from ipam.store import Record


def link_key(record: Record) -> Key:
    """The key of the host's end of the pod's link."""
    return Key(HOST, "link", link_name(record.lease.who))


def port_key(record: Record) -> Key:
    """The key of the pod's end."""
    return Key(record.netns, "link", record.lease.who.ifname)


def scopes(record: Record, wiring: Wiring) -> tuple[Scope, ...]:
    """Where everything is that a pod's wiring consists of."""
    sysctls = (item.path for item in wiring.pod(record).values() if isinstance(item, Sysctl))
    return (
        PodLink(link_name(record.lease.who)),
        Pod(record.netns, record.lease.who.ifname, tuple(sysctls)),
    )


def seen(record: Record, have: Plan) -> Record:
    """The record with the hardware address that the pod's end has now."""
    port = have.get(port_key(record))
    return replace(record, mac=port.mac) if isinstance(port, Port) and port.mac != record.mac else record


def expected(wiring: Wiring, record: Record, have: Plan, mtu: int = 0) -> dict[Key, Item]:
    """What should be there; the pod's end has *mtu* (bytes), or where that is 0 at most the record's."""
    want = wiring.pod(record)
    key = port_key(record)
    port, now = want.get(key), have.get(key)
    if isinstance(port, Port) and isinstance(now, Port):
        want[key] = replace(port, mtu=mtu or min(port.mtu, now.mtu))
    return want


def faults(have: Plan, want: Plan) -> list[Change]:
    """The changes that make *want* of *have*, less the removal of what is the pod's own."""
    return [change for change in diff(have, want) if change.new is not None or change.item.key.place == HOST]
