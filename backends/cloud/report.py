"""What a cloud's fabric tells: what the cloud gives and refuses. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from backends.told import Complaint, Measure, Shown, Told, few
from cni.errors import Limited


class Report(NamedTuple):
    """What a cloud gives and refuses: *interfaces* of *most* are attached, *obstacles* stand in the way of more,
    *under_way* are changes whose end is not known; *calls* are counted by action and error, '' for none, and
    those that were *throttled*, by action. *undelivered* are pods' addresses that the cloud does not deliver to this
    node any more."""

    cloud: str
    interfaces: int
    most: int
    obstacles: tuple[str, ...]
    under_way: tuple[str, ...]
    calls: Mapping[tuple[str, str], int]
    undelivered: tuple[str, ...] = ()
    throttled: Mapping[str, int] = {}

    def told(self) -> Told:
        """In the agent's terms: the section "cloud", and the metrics ``routable_cloud_…``."""
        calls = [{"action": action, "error": error, "count": count} for (action, error), count in self.calls.items()]
        return Told(
            complaints={"undelivered": self._undelivered()},
            sections={"cloud": {**self._asdict(), "calls": calls}},
            measures=self._measures(),
        )

    def _undelivered(self) -> list[Complaint]:
        if not self.undelivered:
            return []
        failure = Limited(
            f"{self.cloud} does not deliver these pods' addresses here any more: {few(self.undelivered)}",
            "somebody took them from the node's interfaces: delete these pods to have them made anew",
        )
        return [Complaint(failure, len(self.undelivered))]

    def _measures(self) -> list[Measure]:
        gauges = (
            ("routable_cloud_interfaces", "Interfaces attached to this node.", self.interfaces),
            ("routable_cloud_interfaces_max", "Interfaces that it can have.", self.most),
            ("routable_cloud_obstacles", "Limits and refusals in the way of more addresses.", len(self.obstacles)),
            ("routable_cloud_under_way", "Changes of the cloud whose end is not known.", len(self.under_way)),
        )
        found = [Measure(name, help_text, [((), value)]) for name, help_text, value in gauges]
        labels, calls = ("action", "error"), tuple(self.calls.items())
        # From zero on for each action that was called: a rate needs something to begin from.
        actions = sorted({action for action, _ in self.calls})
        numbers = [((action,), self.throttled.get(action, 0)) for action in actions]
        throttled = "Calls that the cloud's API refused for being too many."
        return [
            *found,
            Measure("routable_cloud_calls", "Calls of the cloud's API.", calls, labels, is_counter=True),
            Measure("routable_cloud_throttled", throttled, numbers, ("action",), is_counter=True),
        ]


def shown(sections: Mapping[str, Any]) -> Shown:
    """See `backends.descriptor.Backend.show`: one line for the interfaces, and one for each obstacle and change."""
    cloud = sections.get("cloud")
    if not cloud:
        return Shown()
    lines = [f"{cloud['cloud']}: {cloud['interfaces']} of {cloud['most']} interfaces"]
    lines += [f"  {one}" for one in (*cloud["obstacles"], *(f"under way: {one}" for one in cloud["under_way"]))]
    return Shown(lines)
