"""The metadata of an instance as a tree, and as the metadata server writes parts of it ("View and query VM metadata").

Directories are written with a slash at the end; a list is a directory of numbers, but for a few that are lines of
text. In JSON the names have no hyphens but capitals.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from tests.gcp.estate import ZONE, Estate, Nic

_LINES = {"scopes", "aliases", "dns-servers"}
Tree = Mapping[str, Any]


def tree(project: Estate, name: str) -> Tree:
    """All of instance *name*, as its metadata lags behind the truth."""
    instance, view, number = project.instances[name], project.told(name), project.number
    account = {"aliases": ["default"], "email": instance.account, "scopes": list(instance.scopes)}
    interfaces = [
        _interface(project, instance.nic, [str(one.network) for one in view.aliases]),
        *(_interface(project, one, []) for one in instance.others),
    ]
    return {
        "instance": {
            "attributes": {},
            "hostname": f"{name}.{ZONE}.c.{project.project}.internal",
            "id": instance.id,
            "machine-type": f"projects/{number}/machineTypes/e2-standard-4",
            "name": name,
            "network-interfaces": interfaces,
            "service-accounts": {instance.account: account, "default": account} if instance.account else {},
            "zone": f"projects/{number}/zones/{ZONE}",
        },
        "project": {"attributes": {}, "numeric-project-id": number, "project-id": project.project},
    }


def _interface(project: Estate, nic: Nic, aliases: list[str]) -> Tree:
    return {
        "access-configs": [],
        "dns-servers": ["169.254.169.254"],
        "forwarded-ips": [],
        "gateway": str(nic.subnetwork.gateway),
        "ip": str(nic.address),
        "ip-aliases": aliases,
        "mac": nic.mac,
        "mtu": project.mtu,
        "network": f"projects/{project.number}/networks/{nic.subnetwork.network}",
        "subnetmask": str(nic.subnetwork.primary.cidr.netmask),
        "target-instance-ips": [],
    }


def found(whole: Tree, path: str) -> Any:
    """What is at *path* ("instance/id"). KeyError: nothing."""
    at: Any = whole
    for word in path.strip("/").split("/") if path.strip("/") else ():
        if isinstance(at, list):
            if not word.isdigit() or int(word) >= len(at):
                raise KeyError(path)
            at = at[int(word)]
        elif isinstance(at, Mapping):
            at = at[word]
        else:
            raise KeyError(path)
    return at


def is_directory(path: str, at: Any) -> bool:
    """Whether its path ends with a slash."""
    return isinstance(at, Mapping) or (isinstance(at, list) and path.strip("/").rpartition("/")[2] not in _LINES)


def listed(path: str, at: Any) -> str:
    """As text, not deeper than one directory."""
    if isinstance(at, Mapping):
        return "".join(f"{name}/\n" if is_directory(name, one) else f"{name}\n" for name, one in at.items())
    if isinstance(at, list):
        if not is_directory(path, at):
            return "".join(f"{one}\n" for one in at)
        return "".join(f"{number}/\n" if isinstance(one, Mapping) else f"{number}\n" for number, one in enumerate(at))
    return str(at)


def written(at: Any) -> str:
    """As JSON."""
    return json.dumps(_camel(at), separators=(",", ":"))


def lines(path: str, at: Any) -> str:
    """As text, with all that is below it: a line for each value."""
    if isinstance(at, Mapping) and at:
        return "".join(lines(f"{path}{name}/", one) for name, one in at.items())
    if isinstance(at, list):
        return "".join(lines(f"{path}{number}/", one) for number, one in enumerate(at))
    return f"{path.strip('/')} {at}\n" if not isinstance(at, Mapping) else ""


def etag(at: Any) -> str:
    """Of what is there: another one, if anything of it is otherwise."""
    return hashlib.sha256(json.dumps(at, sort_keys=True).encode()).hexdigest()[:16]


def _camel(at: Any) -> Any:
    if isinstance(at, Mapping):
        return {_word(name): _camel(one) for name, one in at.items()}
    return [_camel(one) for one in at] if isinstance(at, list) else at


def _word(name: str) -> str:
    """An account's name stays as it is."""
    first, *others = name.split("-")
    return name if "@" in name else first + "".join(one.capitalize() for one in others)
