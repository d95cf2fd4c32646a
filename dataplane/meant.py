"""Where a packet should go by what is wanted of the kernel: `dataplane.ways`, asked of a plan. Pure.

The plan's own rules, in their order, then the main table; the most specific route of a table decides. Where the plan
has nothing to say, others decide.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from netaddr import IPAddress, IPNetwork

from dataplane.items import HOST, MAIN, Nexthop, Plan, Route, Rule, nexthop_key
from dataplane.ours import has_pod_link_name
from dataplane.ways import Packet, Way

_MAIN: Final = 32766
"""The priority of the kernel's own rule for the main table (ip-rule(8))."""


class Meant:
    """Answers for one *plan*: it is sorted once, and asked often."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        rules = [item for item in plan.values() if isinstance(item, Rule)]
        main = [Rule(family, _MAIN, MAIN) for family in (4, 6)]
        self._rules = sorted([*rules, *main], key=lambda rule: rule.priority)
        self._tables: dict[tuple[int, int], list[tuple[IPNetwork, Route]]] = {}
        for route in _routes(plan.values()):
            network = IPNetwork(route.dst)
            self._tables.setdefault((network.version, route.table), []).append((network, route))
        for table in self._tables.values():
            table.sort(key=lambda entry: -entry[0].prefixlen)

    def way(self, packet: Packet) -> Way | None:
        """Where *packet* should go; None where the plan does not say."""
        dst = IPAddress(packet.dst)
        for rule in self._rules:
            if rule.family != dst.version or not _fits(rule, packet):
                continue
            table = self._tables.get((dst.version, rule.table), ())
            route = next((route for network, route in table if dst in network), None)
            if route is not None and (rule.suppress is None or has_pod_link_name(route.dev)):
                return self._by(route)
        return None

    def _by(self, route: Route) -> Way:
        if route.unreachable:
            return Way("no route", table=route.table)
        nexthop = self._plan.get(nexthop_key(route.nhid)) if route.nhid else None
        if isinstance(nexthop, Nexthop):
            return Way("unicast", nexthop.dev, nexthop.via, route.table)
        return Way("unicast", route.dev, route.via, route.table)


def _routes(items: Iterable[object]) -> Iterator[Route]:
    return (item for item in items if isinstance(item, Route) and item.place == HOST)


def _fits(rule: Rule, packet: Packet) -> bool:
    if rule.mask and packet.mark & rule.mask != rule.mark:
        return False
    if rule.src and (not packet.src or IPAddress(packet.src) not in IPNetwork(rule.src)):
        return False
    return not rule.dst or IPAddress(packet.dst) in IPNetwork(rule.dst)
