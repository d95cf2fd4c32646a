"""What is looked at where: a plan and what there is, by the places that the kernel is asked about one by one. Pure."""

from __future__ import annotations

from typing import TypeAlias

from backends.nodeplan import NFT_TABLES
from dataplane.forward import Accept
from dataplane.items import Addr, Item, Key, NftTable, Plan, Sysctl, plan
from dataplane.links import Port, Veth
from dataplane.observe import Device, Filter, OnHost, Scope, Settings
from dataplane.ours import has_pod_link_name

Scoped: TypeAlias = tuple[Scope, Plan]
"""A place that is looked at by itself, and what should be there."""


def scoped(want: Plan) -> list[Scoped]:
    """Where the node's plan is, and everything else of ours on the host: the places that are looked at one by one, and
    what should be in each."""
    settings = {key: item for key, item in want.items() if isinstance(item, Sysctl)}
    parts: list[Scoped] = [(Settings(tuple(key.name for key in settings)), settings)] if settings else []
    rest = {key: item for key, item in want.items() if not isinstance(item, Sysctl)}
    for device in [item.name for item in rest.values() if isinstance(item, Port)]:
        port = {key: item for key, item in rest.items() if isinstance(item, Port | Addr) and item.link == device}
        addresses = tuple(item.address for item in port.values() if isinstance(item, Addr))
        parts.append((Device(device, addresses), port))
        rest = {key: item for key, item in rest.items() if key not in port}
    tables = [item for item in rest.values() if isinstance(item, NftTable)]
    accepts = {key: item for key, item in rest.items() if isinstance(item, Accept)}
    parts.append((OnHost(), {key: item for key, item in rest.items() if not isinstance(item, NftTable | Accept)}))
    # The last, since programs that may be slow have to be asked.
    parts += [(Settings((), (name,)), plan(*(one for one in tables if one[:2] == name))) for name in NFT_TABLES]
    return [*parts, (Filter(), accepts)]


def of_node(have: Plan) -> dict[Key, Item]:
    """What there is but for pods' links, and what hangs on them."""
    return {key: item for key, item in have.items() if not _is_of_pod(item)}


def by_pod_link(have: Plan) -> dict[str, dict[Key, Item]]:
    """Pods' links by their names, each with what hangs on it."""
    parts: dict[str, dict[Key, Item]] = {}
    for key, item in have.items():
        if _is_of_pod(item):
            parts.setdefault(key.name if isinstance(item, Veth) else item.link, {})[key] = item
    return parts


def _is_of_pod(item: Item) -> bool:
    name = item.key.name if isinstance(item, Veth) else item.link
    return has_pod_link_name(name)
