"""What a ClusterRole permits, as Kubernetes judges it: rules add up, and nothing else is permitted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

ALL: Final = ({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},)
"""As of cluster-admin."""


class Asked(NamedTuple):
    """What a request needs. *name* is '' for what is not about one object: a list or a watch may be of one alone, by a
    field selector, and then is about it."""

    verb: str
    group: str
    resource: str
    name: str = ""

    def __str__(self) -> str:
        return f'cannot {self.verb} resource "{self.resource}" in API group "{self.group}" at the cluster scope'


def permits(rules: Iterable[Mapping[str, Any]], asked: Asked) -> bool:
    """Whether one of the *rules* of a ClusterRole, as YAML has them, permits it."""
    return any(
        _has(rule.get("verbs", ()), asked.verb)
        and _has(rule.get("apiGroups", ()), asked.group)
        and _has(rule.get("resources", ()), asked.resource)
        and (not rule.get("resourceNames") or asked.name in rule["resourceNames"])
        for rule in rules
    )


def _has(listed: Sequence[str], one: str) -> bool:
    """A wildcard stands for all; ``*/status`` for that of all."""
    _, slash, subresource = one.partition("/")
    return "*" in listed or one in listed or bool(slash and f"*/{subresource}" in listed)
