"""Which differences at a pod are faults: pure.

On the host all that hangs on the pod's link is ours alone, and repaired. What is in the pod's namespace is the pod's
own business once its ADD was served: a sandbox may take the address away and answer by itself, a VPN the default route.
CHECK tells what is missing in there, since its runtime asks; even so a plugin chained after this one may change the
hardware address of the pod's end and make its MTU smaller, and whatever there is besides what is ours is no fault.
"""

from __future__ import annotations

from dataclasses import replace

from backends.podlink import link_name, place
from backends.wiring import Wiring
from dataplane.diff import Change, diff
from dataplane.items import HOST, Item, Key, Neigh, Plan, Route, Sysctl
from dataplane.links import Port
from dataplane.observe import Pod, PodLink, Scope
from ipam.store import Record


def link_key(record: Record) -> Key:
    """The key of the host's end of the pod's link."""
    return Key(HOST, "link", link_name(record.lease.who))


def port(record: Record, have: Plan) -> Port | None:
    """The pod's end, where it is there, in the namespace that is the pod's."""
    netns = place(record)
    found = have.get(Key(netns, "link", record.lease.who.ifname)) if netns is not None else None
    return found if isinstance(found, Port) else None


def scopes(record: Record, wiring: Wiring) -> tuple[Scope, ...]:
    """Where everything is that a pod's wiring consists of."""
    link, netns = PodLink(link_name(record.lease.who)), place(record)
    if netns is None:
        return (link,)
    inside = [item for item in wiring.pod(record).values() if item.key.place == netns]
    sysctls = tuple(item.path for item in inside if isinstance(item, Sysctl))
    neighbours = tuple(item.address for item in inside if isinstance(item, Neigh))
    return link, Pod(netns, record.lease.who.ifname, sysctls, neighbours, has_rules=bool(record.beside))


def end(record: Record) -> Pod | None:
    """Where the pod's end of its link is, and nothing else; None where that is not known."""
    netns = place(record)
    return Pod(netns, record.lease.who.ifname, is_link_alone=True) if netns is not None else None


def on_host(want: Plan) -> dict[Key, Item]:
    """What of *want* is on the host."""
    return {key: item for key, item in want.items() if key.place == HOST}


def outdated(have: Plan, want: Plan) -> list[Change]:
    """The changes that tell a pod what the way to other nodes carries, since its node is wired in another way: of the
    routes that it got from us those that it still has."""
    changes = []
    for key, new in want.items():
        old = have.get(key)
        if key.place != HOST and isinstance(old, Route) and isinstance(new, Route) and old.mtu != new.mtu:
            changes += [Change(old, new)] if old._replace(mtu=new.mtu) == new else []
    return changes


def seen(record: Record, have: Plan) -> Record:
    """The record with the hardware address that the pod's end has now."""
    now = port(record, have)
    return replace(record, mac=now.mac) if now is not None and now.mac != record.mac else record


def expected(wiring: Wiring, record: Record, have: Plan, mtu: int = 0) -> dict[Key, Item]:
    """What should be there; the pod's end has *mtu* (bytes), or where that is 0 at most the record's."""
    want = wiring.pod(record)
    now = port(record, have)
    if now is not None:
        want[now.key] = replace(now, mtu=mtu or min(record.mtu, now.mtu), mac=record.mac, up=True)
    return want


def faults(have: Plan, want: Plan) -> list[Change]:
    """The changes that make *want* of *have*, less the removal of what is the pod's own."""
    return [change for change in diff(have, want) if change.new is not None or change.item.key.place == HOST]
