"""The form of a result in each cniVersion, written down from the specification's own text for each version.

A form is the keys that must be there and those that may; anything else is wrong. Independent of ``cni.result``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

Check = Callable[[Any], object]
Form = Mapping[str, tuple[Check, str, str]]
"""By key: what its value must be, and the first and last version that has it."""
MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")


def problems(result: Any, version: str) -> list[str]:
    """What of an ADD's *result* is not as *version* wants it."""
    found = list(_object(result, RESULT, version, "result"))
    if not found:
        for number, ip in enumerate(result["ips"]):
            if not 0 <= ip["interface"] < len(result["interfaces"]):
                found.append(f"ips[{number}].interface points nowhere")
            if "version" in ip and ip["version"] != str(ip_interface(ip["address"]).version):
                found.append(f"ips[{number}].version is wrong")
    return found


def _object(value: Any, form: Form, version: str, where: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{where} is no object"]
    allowed = {key: check for key, (check, first, last) in form.items() if first <= version <= last}
    found = [f"{where}.{key} does not exist in {version}" for key in value.keys() - allowed.keys()]
    for key, check in allowed.items():
        if key not in value:
            if key not in OPTIONAL:
                found.append(f"{where}.{key} is missing in {version}")
            continue
        if isinstance(check, ListOf):
            for number, one in enumerate(value[key]):
                found += _object(one, check.form, version, f"{where}.{key}[{number}]")
            continue
        try:
            if check(value[key]) is False:
                found.append(f"{where}.{key} is {value[key]!r}")
        except (ValueError, TypeError) as error:
            found.append(f"{where}.{key} is {value[key]!r}: {error}")
    return found


class ListOf:
    """A list of objects of one form."""

    def __init__(self, form: Form) -> None:
        self.form = form

    def __call__(self, value: Any) -> object:
        return isinstance(value, list)


FIRST, LAST = "0.3.0", "9.9.9"
OPTIONAL = frozenset(("sandbox", "gw", "dns", "mtu"))
INTERFACE: Form = {
    "name": (lambda value: isinstance(value, str) and 0 < len(value) < 16, FIRST, LAST),
    "mac": (lambda value: bool(MAC.fullmatch(value)), FIRST, LAST),
    "mtu": (lambda value: isinstance(value, int) and value >= 576, "1.1.0", LAST),
    "sandbox": (lambda value: value.startswith("/"), FIRST, LAST),
}
IP: Form = {
    "version": (lambda value: value in ("4", "6"), FIRST, "0.4.0"),
    "address": (lambda value: "/" in value and bool(ip_interface(value)), FIRST, LAST),
    "gateway": (ip_address, FIRST, LAST),
    "interface": (lambda value: isinstance(value, int), FIRST, LAST),
}
ROUTE: Form = {"dst": (ip_network, FIRST, LAST), "gw": (ip_address, FIRST, LAST)}
RESULT: Form = {
    "cniVersion": (lambda value: isinstance(value, str), FIRST, LAST),
    "interfaces": (ListOf(INTERFACE), FIRST, LAST),
    "ips": (ListOf(IP), FIRST, LAST),
    "routes": (ListOf(ROUTE), FIRST, LAST),
    "dns": (lambda value: isinstance(value, dict), FIRST, LAST),
}
