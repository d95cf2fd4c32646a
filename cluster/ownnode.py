"""What a Node says that an agent may say of its own, and the changes that make it say something else: pure.

The fields are those of the API's v1 Node: `spec.taints`, `status.conditions`, `status.capacity`. What always holds:
what was said by others is not touched, but for the one taint that waits for the agent.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

import msgspec
from netaddr import IPNetwork

from cluster import addresses
from cluster.nodeobjects import ANNOTATION, decoded, split

NETWORK: Final = "NetworkUnavailable"
"""The condition by which a Node is given a taint, and no new pods, while it is True. Who else sets it is a cloud's
route controller, which says True of a node without a route of its own making."""
UP: Final = "RoutableIsUp"
DOWN: Final = "RoutableIsDown"
"""The reasons that are the agent's."""

_Object = dict[str, Any]


class Condition(NamedTuple):
    """One condition, but for its times."""

    type: str
    status: str
    reason: str = ""
    message: str = ""


class Said(NamedTuple):
    """What the Node *name* says. Two that say the same are equal; the *version* is another one at each heartbeat, and
    is no part of it."""

    name: str
    uid: str
    conditions: Mapping[str, Condition]
    taints: Sequence[_Object]
    capacity: Mapping[str, str]
    pod_cidrs: tuple[str, ...] = ()
    """What the controller manager gave it, and so what kube-proxy and others go by."""
    annotated: tuple[str, ...] = ()
    """What the annotation says."""


class Wish(NamedTuple):
    """What it shall say: *conditions*, no *taint* of that key ('': whatever there is), and *capacity*."""

    conditions: tuple[Condition, ...]
    taint: str
    capacity: tuple[tuple[str, str], ...] = ()


class _Part(msgspec.Struct, frozen=True, rename="camel"):
    """A part of an object: what is not named is not even decoded."""


class _Metadata(_Part, frozen=True):
    name: str = ""
    uid: str = ""
    resource_version: str = ""
    annotations: dict[str, str] | None = None


class _Spec(_Part, frozen=True):
    taints: list[_Object] | None = None
    pod_cidrs: list[str] | None = msgspec.field(default=None, name="podCIDRs")


class _Condition(_Part, frozen=True):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""


class _Status(_Part, frozen=True):
    conditions: list[_Condition] | None = None
    capacity: dict[str, str] | None = None


class _Node(_Part, frozen=True):
    metadata: _Metadata = _Metadata()
    spec: _Spec = _Spec()
    status: _Status = _Status()


class _Page(_Part, frozen=True):
    items: list[_Node] | None = None


def said(raw: bytes | msgspec.Raw) -> tuple[Said, str]:
    """What a Node says, and of which version that is. ValueError: it is none."""
    return _said(decoded(raw, _Node))


def found(raw: bytes, name: str) -> Said | None:
    """What the Node *name* says, if it is in this page of a list. ValueError: that is none."""
    nodes = decoded(raw, _Page).items or ()
    return next((_said(one)[0] for one in nodes if one.metadata.name == name), None)


def _said(node: _Node) -> tuple[Said, str]:
    conditions = {
        one.type: Condition(one.type, one.status, one.reason, one.message) for one in node.status.conditions or ()
    }
    taints, capacity = node.spec.taints or [], node.status.capacity or {}
    annotated = tuple(split(node.metadata.annotations or {}))
    name, uid, own = node.metadata.name, node.metadata.uid, tuple(node.spec.pod_cidrs or ())
    return Said(name, uid, conditions, taints, capacity, own, annotated), node.metadata.resource_version


def disagreement(now: Said, used: Collection[IPNetwork]) -> str:
    """What *now* says of its pods' ranges, where that is not what they are *used* for; '' where nothing is said, or the
    same. What is no range is told elsewhere."""
    if not now.pod_cidrs or not used:
        return ""
    theirs = set(_ranges(now.pod_cidrs))
    if theirs != set(used):
        return f"{', '.join(now.pod_cidrs)}, but its pods have addresses of {', '.join(map(str, sorted(used)))}"
    if now.annotated and set(_ranges(now.annotated)) != theirs:
        return f"{', '.join(now.pod_cidrs)}, but its annotation {ANNOTATION} {', '.join(now.annotated)}"
    return ""


def _ranges(texts: Iterable[str]) -> Iterator[IPNetwork]:
    for text in texts:
        with suppress(ValueError):
            yield addresses.cidr(text)


def status_change(now: Said, wish: Wish, time: str) -> _Object:
    """The strategic merge of ``status`` that makes *now* as is wished, {} for none; *time* is RFC 3339."""
    conditions = [
        {**one._asdict(), "lastHeartbeatTime": time, **({} if _is_same(now, one) else {"lastTransitionTime": time})}
        for one in wish.conditions
        if not _is_said(now.conditions.get(one.type), one)
    ]
    capacity = {name: value for name, value in wish.capacity if now.capacity.get(name) != value}
    status = {**({"conditions": conditions} if conditions else {}), **({"capacity": capacity} if capacity else {})}
    return {"status": status} if status else {}


def spec_change(now: Said, version: str, wish: Wish) -> _Object:
    """The strategic merge that takes the taint away from *now*, and fails if that is not of this *version* any more,
    since a list of taints is replaced whole. {}: there is none."""
    rest = [one for one in now.taints if one.get("key") != wish.taint]
    if not wish.taint or len(rest) == len(now.taints):
        return {}
    return {"metadata": {"resourceVersion": version}, "spec": {"taints": rest or None}}


def quantity(number: int) -> str:
    """A whole number as the API writes it: in its largest unit."""
    for unit in ("", "k", "M", "G"):
        if number % 1000 or not number:
            return f"{number}{unit}"
        number //= 1000
    return f"{number}T"


def _is_same(now: Said, one: Condition) -> bool:
    known = now.conditions.get(one.type)
    return known is not None and known.status == one.status


def _is_said(known: Condition | None, one: Condition) -> bool:
    """Whether there is nothing to say: messages change with every word of a failure, and are not news."""
    if one.type != NETWORK:
        return known is not None and (known.status, known.reason) == (one.status, one.reason)
    if one.status == "False":
        return known is not None and known.status == "False"  # whoever says so
    return known is None or known.reason not in (UP, DOWN) or known.status == one.status
