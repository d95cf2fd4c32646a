"""Strategic merge patches of Nodes, as an API server applies them: by the fields' keys, the subresource, the version.

As kubernetes/api's types.go tags them (core/v1: NodeStatus.conditions and .addresses merge by type, NodeSpec.taints is
replaced whole), and the registry's strategies: a patch of ``nodes`` changes no status, one of ``nodes/status`` no spec.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any, Final

Object = dict[str, Any]

_KEYS: Final = {("status", "conditions"): "type", ("status", "addresses"): "type"}
_QUANTITY: Final = re.compile(r"([+-]?[0-9.]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)?")
_UNITS: Final = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_EFFECTS: Final = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_CONDITION: Final = ("type", "status")
_FIXED: Final = ("name", "uid", "creationTimestamp")


class Invalid(Exception):
    """The object would be no Node: 422, or 400 where it cannot even be decoded; 409 for a version or uid of another."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message


def _invalid(name: str, why: str) -> Invalid:
    return Invalid(422, "Invalid", f'Node "{name}" is invalid: {why}')


def patched(now: Object, patch: Any, subresource: str) -> Object:
    """The Node *now* with the *patch* of ``nodes`` ('') or ``nodes/status`` ("status"). Invalid: it is refused."""
    if not isinstance(patch, dict):
        raise Invalid(400, "BadRequest", "json: cannot unmarshal into Go value of type map[string]interface {}")
    name = now["metadata"]["name"]
    about = patch.get("metadata") or {}
    version, uid = about.get("resourceVersion"), about.get("uid")
    if version and version != now["metadata"]["resourceVersion"]:
        said = "the object has been modified; please apply your changes to the latest version and try again"
        raise Invalid(409, "Conflict", f'Operation cannot be fulfilled on nodes "{name}": {said}')
    if uid and uid != now["metadata"]["uid"]:
        raise Invalid(409, "Conflict", f'Operation cannot be fulfilled on nodes "{name}": Precondition failed: UID')
    made: Object = _merged(copy.deepcopy(now), patch, ())
    kept = "spec" if subresource == "status" else "status"
    made[kept] = copy.deepcopy(now[kept])
    if made["spec"].get("podCIDRs") != now["spec"].get("podCIDRs") and now["spec"].get("podCIDRs"):
        raise _invalid(name, "spec.podCIDRs: Forbidden: node updates may not change it")
    for key in _FIXED:
        if made["metadata"].get(key) != now["metadata"].get(key):
            raise _invalid(name, f"metadata.{key}: Invalid value: field is immutable")
    _judge(name, made)
    return made


def _merged(now: Any, patch: Any, where: tuple[str, ...]) -> Any:
    if isinstance(patch, dict) and isinstance(now, dict | None):
        found = dict(now or {})
        for key, value in patch.items():
            if value is None:
                found.pop(key, None)
            else:
                found[key] = _merged(found.get(key), value, (*where, key))
        return found
    key = _KEYS.get(where[:2]) if len(where) == 2 else None
    if isinstance(patch, list) and key is not None:
        items = {one[key]: one for one in now or ()}
        for one in patch:
            if not isinstance(one, dict) or key not in one:
                raise Invalid(400, "BadRequest", f"map: {one} does not contain declared merge key: {key}")
            items[one[key]] = _merged(items.get(one[key]), one, (*where, "*"))
        return list(items.values())
    return patch


def _judge(name: str, made: Mapping[str, Any]) -> None:
    """What validation refuses, and how quantities are written."""
    for index, taint in enumerate(made["spec"].get("taints") or ()):
        if not taint.get("key") or taint.get("effect") not in _EFFECTS:
            raise _invalid(name, f"spec.taints[{index}].effect: Unsupported value")
    for one in made["status"].get("conditions") or ():
        if any(not isinstance(value, str) for value in one.values()) or not all(one.get(key) for key in _CONDITION):
            raise Invalid(400, "BadRequest", f"json: cannot unmarshal into Go struct field NodeCondition: {one}")
        for key in ("lastHeartbeatTime", "lastTransitionTime"):
            if key in one and not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", one[key]):
                raise Invalid(400, "BadRequest", f"parsing time {one[key]!r} as RFC 3339")
    capacity = made["status"].get("capacity") or {}
    for key, value in capacity.items():
        capacity[key] = _quantity(value)
        if "/" not in key and key not in ("cpu", "memory", "pods", "ephemeral-storage"):
            raise _invalid(name, f"status.capacity.{key}: must be a standard resource")


def _quantity(value: Any) -> str:
    """As it is written back: whole numbers in their largest unit."""
    found = _QUANTITY.fullmatch(str(value)) if isinstance(value, str | int) else None
    if found is None:
        raise Invalid(400, "BadRequest", "quantities must match the regular expression '^([+-]?[0-9.]+)([eEi…]*)$'")
    if not found[1].isdecimal() or (found[2] or "") not in _UNITS:
        return str(value)
    number = int(found[1]) * _UNITS[found[2] or ""]
    for unit in ("", "k", "M", "G"):
        if number % 1000 or not number:
            return f"{number}{unit}"
        number //= 1000
    return f"{number}T"
