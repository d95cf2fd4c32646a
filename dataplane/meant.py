"""Where a packet should go by what is wanted of the kernel: `dataplane.ways`, asked of a plan. Pure.

The plan's own rules, in their order, then the main table; the most specific route of a table decides. Where the plan
has nothing to say, others decide.
"""

from __future__ import annotations

from socket import inet_ntop, inet_pton

from netaddr import IPAddress, IPNetwork

from dataplane.items import HOST, MAIN, Nexthop, Plan, Route, Rule, nexthop_key
from dataplane.ours import has_pod_link_name
from dataplane.routemsg import MAIN_RULE
from dataplane.rtnl import family_of
from dataplane.ways import Course, Packet


class Meant:
    """Answers for one *plan*."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        rules = [item for item in plan.values() if isinstance(item, Rule)]
        main = [Rule(family, MAIN_RULE, MAIN) for family in (4, 6)]
        self._rules = sorted([*rules, *main], key=lambda rule: rule.priority)

    def way(self, packet: Packet) -> Course | None:
        """Where *packet* should go; None where the plan does not say."""
        family = 6 if ":" in packet.dst else 4
        for rule in self._rules:
            if rule.family == family and _fits(rule, packet):
                route = self._route(packet.dst, rule.table)
                if route is not None and (rule.suppress is None or has_pod_link_name(route.dev)):
                    return self._by(route)
        return None

    def _route(self, dst: str, table: int) -> Route | None:
        """The most specific one. By all keys that it can have: a plan has thousands of routes, and is asked of few."""
        family = family_of(dst)
        packed = inet_pton(family, dst)
        bits, number = 8 * len(packed), int.from_bytes(packed, "big")
        for length in range(bits, -1, -1):
            network = number >> (bits - length) << (bits - length)
            text = f"{inet_ntop(family, network.to_bytes(len(packed), 'big'))}/{length}"
            item = self._plan.get(Route(HOST, text, table=table).key)
            if isinstance(item, Route):
                return item
        return None

    def _by(self, route: Route) -> Course:
        if route.unreachable:
            return Course("no route", table=route.table)
        nexthop = self._plan.get(nexthop_key(route.nhid)) if route.nhid else None
        if isinstance(nexthop, Nexthop):
            return Course("unicast", nexthop.dev, nexthop.via, route.table)
        return Course("unicast", route.dev, route.via, route.table)


def _fits(rule: Rule, packet: Packet) -> bool:
    if rule.mask and packet.mark & rule.mask != rule.mark:
        return False
    if rule.src and (not packet.src or IPAddress(packet.src) not in IPNetwork(rule.src)):
        return False
    return not rule.dst or IPAddress(packet.dst) in IPNetwork(rule.dst)
