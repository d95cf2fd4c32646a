"""The network configuration that the agent writes for its runtime: what is in it, and whether one is ours. Pure.

What always holds: what is written is one that containerd 1.6 to 2.x take, or what the operator wished otherwise, and
bears our mark. A file without that is another's, or was made ours by hand to stay as it is: it is never touched.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from cni import keys
from cni.errors import ConfigInvalid, Failure
from cni.install import NAME as OURS
from cni.spec import NAME, VERSIONS

MARK: Final = "routable.io/kept-by"
"""The key of the list that says that it is the agent's. The specification has runtimes ignore what they do not know,
and libcni, which all use, does."""
_KEEPER: Final = "routable-agent: changes are undone; see cni.template in its configuration"
_VERSIONED: Final[Mapping[str, Any]] = {"cniVersion": "1.0.0", "cniVersions": ["0.4.0", "1.0.0", "1.1.0"]}
"""containerd 1.6 and 1.7 refuse 1.1.0, and take the first; 2.x choose the last of the list, which has STATUS."""
DEFAULT: Final[Mapping[str, Any]] = {
    **_VERSIONED,
    "name": "routable",
    "plugins": [
        {"type": OURS, "capabilities": {"ips": True, "mac": True}},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}
"""As conf/10-routable.conflist."""
SIZE_MAX: Final = 1 << 20
"""Bytes of a conflist that is read: more is none."""


@dataclass(frozen=True, slots=True)
class Conflist:
    """What is to be written, and the executables that a runtime needs for it."""

    content: bytes
    types: tuple[str, ...]
    versions: tuple[str, ...] = ()
    """Of which a runtime may choose; () where it has no choice."""

    def without(self, versions: Collection[str]) -> Conflist:
        """The same with no choice of these *versions*, if there are others."""
        whole = json.loads(self.content)
        rest = tuple(one for one in self.versions if one not in versions)
        if rest in ((), self.versions):
            return self
        whole["cniVersions"] = rest
        if whole["cniVersion"] not in rest:
            whole["cniVersion"] = rest[-1]
        return Conflist(_written(whole), self.types, rest)


def conflist(template: bytes | None = None, origin: str = "") -> Conflist:
    """What the operator's *template*, the file *origin*, makes; None: the default. ConfigInvalid: it makes none."""
    wanted = DEFAULT if template is None else _read(template, origin)
    whole = {MARK: _KEEPER, **({} if "cniVersion" in wanted else _VERSIONED), **wanted}
    types = tuple(str(plugin["type"]) for plugin in whole["plugins"])
    return Conflist(_written(whole), types, tuple(whole.get("cniVersions", ())))


def _written(whole: Mapping[str, Any]) -> bytes:
    return json.dumps(whole, indent=2).encode() + b"\n"


def is_ours(raw: bytes) -> bool:
    """Whether a conflist of this content is one that an agent wrote."""
    try:
        found = msgspec.json.decode(raw)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and MARK in found


def _read(raw: bytes, origin: str) -> Mapping[str, Any]:
    try:
        found = msgspec.json.decode(raw)
    except (ValueError, RecursionError) as error:
        raise ConfigInvalid(f"{origin}: is not JSON", str(error) or type(error).__name__) from error
    if not isinstance(found, dict):
        raise ConfigInvalid(f"{origin}: is not a JSON object", "copy conf/10-routable.conflist and change that")
    if not isinstance(found.get("name"), str) or not NAME.fullmatch(found["name"]):
        raise ConfigInvalid(f"{origin}: name", "is needed; allowed: letters, digits, '_', '.', '-', as \"routable\"")
    listed = found.get("cniVersions", [])
    if not isinstance(listed, list):
        raise ConfigInvalid(f"{origin}: cniVersions", "is not a list")
    for version in [found.get("cniVersion", VERSIONS[-1]), *listed]:
        if version not in VERSIONS:
            raise ConfigInvalid(f"{origin}: cniVersion(s) {version!r}", f"allowed: {', '.join(VERSIONS)}")
    plugins = found.get("plugins")
    if not isinstance(plugins, list) or not all(isinstance(one, dict) and _has_type(one) for one in plugins):
        raise ConfigInvalid(f"{origin}: plugins", "is needed: a list of objects, each with a type")
    own = [one for one in plugins if one["type"] == OURS]
    if len(own) != 1:
        raise ConfigInvalid(f"{origin}: plugins", f'has {len(own)} of type "{OURS}"; allowed: one')
    try:
        keys.refuse(own[0], {})
    except Failure as failure:
        raise ConfigInvalid(f"{origin}: {failure.message}", failure.details) from failure
    return found


def _has_type(plugin: Mapping[str, Any]) -> bool:
    """Whether its type can be the name of an executable."""
    found = plugin.get("type")
    return isinstance(found, str) and bool(NAME.fullmatch(found))
