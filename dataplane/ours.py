"""What tells ours from everybody else's: pure, and asked before anything is changed or removed.

Never a prefix. A link is ours by its whole name *and* a mark that it has from its creation on: a pod's by a link group
of ours or the alias, a backend's device by its hardware address or the alias. One of such a name without a mark is
somebody's, and is told, not touched. A number that anybody may choose, as a protocol's, is no mark by itself either:
routes, nexthops and rules have, besides, the form that only ours have. What hangs on a link of ours is ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from dataplane.items import HOST, LOCAL, MAIN, POD_GROUP, POD_LINK_PREFIX, Nexthop, Route, Rule
from dataplane.links import VXLAN_LINK

ALIAS: Final = "routable "
"""What the alias of every link of ours begins with."""
DYING: Final = 0x52 << 24
"""The first of the link groups that links are put into for being deleted together: one of many for each deletion, by
chance, so that nobody else's link is in it."""
DYING_BITS: Final = 24
DEVICES: Final[Mapping[str, str]] = MappingProxyType({VXLAN_LINK: "vxlan"})
"""The devices that backends have on the host, by their whole name: the kind. All of them, whichever backend is chosen,
since what another one left is removed."""
DEVICE_MAC: Final = "02:52:"
"""What the hardware address of such a device begins with: locally administered, and 'R'."""
NEXTHOPS: Final = range(1 << 30, 1 << 31)
"""The ids of our nexthop objects."""
RULES: Final = range(8200, 8300)
"""The priorities of our rules."""
RULE: Final = 82
"""The priority of those of our rules that come before others'."""
TRIED: Final = 81
"""And before those: where a single address leads another way than the rest."""
TABLES: Final = range(8200, 8300)
"""The routing tables, besides main, that we have."""

_POD_LINK: Final = re.compile(POD_LINK_PREFIX + "[0-9a-f]{11}")


def has_pod_link_name(name: str) -> bool:
    """Whether *name* has the form that the host's end of a pod's link has: a hash of the attachment."""
    return _POD_LINK.fullmatch(name) is not None


def has_our_name(name: str) -> bool:
    """Whether a link is called as one of ours on the host is."""
    return name in DEVICES or has_pod_link_name(name)


def is_group(group: int) -> bool:
    """Whether *group* is one that only links of pods are put into."""
    return group == POD_GROUP or group >> DYING_BITS == DYING >> DYING_BITS


def is_pod_link(name: str, kind: str, alias: str, group: int) -> bool:
    """Whether that is the host's end of a pod's link: either mark is enough, whatever somebody made of the other."""
    return kind == "veth" and has_pod_link_name(name) and (alias.startswith(ALIAS) or is_group(group))


def is_device(name: str, kind: str, alias: str, mac: str) -> bool:
    """Whether that is a device of a backend's."""
    return DEVICES.get(name) == kind and (alias.startswith(ALIAS) or mac.startswith(DEVICE_MAC))


def is_nexthop(item: Nexthop) -> bool:
    """Whether a nexthop object with our protocol number can be ours: one gateway, and an id of our range."""
    return bool(item.via) and item.id in NEXTHOPS


def is_route(item: Route, metric: int) -> bool:
    """Whether a route with our protocol number can be ours: with the metric that the kernel gives where none is asked
    for; and on the host one to a pod, to a peer or to nowhere, in a table of ours, or one that makes an address the
    node's own, or such as no other program has in the kernel's own table."""
    if metric not in (0, 1024 if ":" in item.dst else 0):
        return False
    if item.place is not HOST or item.table in TABLES:
        return True
    if item.local:
        return item.table == LOCAL and item.dev == "lo"
    if item.throw:
        return item.table == LOCAL
    if item.table != MAIN:
        return False
    return item.unreachable or item.nhid in NEXTHOPS or (not item.via and has_pod_link_name(item.dev))


def is_rule(item: Rule) -> bool:
    """Whether a rule with our protocol number can be ours."""
    return item.priority in RULES or item.priority in (TRIED, RULE)
