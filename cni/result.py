"""What a plugin prints: results, errors and versions, each in exactly its cniVersion's form.

SPEC.md of containernetworking/cni, "Success", "Error" and "VERSION Success"; the forms of earlier versions are those
of the tags spec-v0.3.0 to spec-v1.0.0. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec
from netaddr import AddrFormatError, IPAddress, IPNetwork

from cni.errors import Failure, Undecodable
from cni.spec import VERSIONS

_TEXT_MAX: Final = 4096
"""Characters of an error's text: a caller's standard input can be 1 MiB of anything."""
_WITH_FAMILY: Final = frozenset(("0.3.0", "0.3.1", "0.4.0"))
"""Versions whose ``ips`` say "4" or "6"."""
_WITH_MTU: Final = frozenset(("1.1.0",))


class Interface(NamedTuple):
    """One interface: *mtu* in bytes, 0 where unknown; *sandbox* the path of its namespace, '' for the host's."""

    name: str
    mac: str
    mtu: int = 0
    sandbox: str = ""


class Ip(NamedTuple):
    """An address with its prefix length, its gateway, and the index of its interface in the result."""

    address: IPNetwork
    gateway: IPAddress | None = None
    interface: int | None = None


class Route(NamedTuple):
    """A route in the pod."""

    dst: IPNetwork
    gw: IPAddress | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """The result of an ADD; *dns* is passed on as it came. *raw* is what it was read from, if it was."""

    interfaces: tuple[Interface, ...] = ()
    ips: tuple[Ip, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Mapping[str, object] = field(default_factory=dict)
    raw: Mapping[str, Any] = field(default_factory=dict, compare=False)


def encode(result: Result, version: str, prev: Result | None = None) -> bytes:
    """*result* in the form of *version*: one JSON document and a newline. What the plugins before had, *prev*, is
    passed on as it came, whatever it is: a runtime gives it in the form of *version*."""
    before = prev.raw if prev is not None else {}
    interfaces = _passed(before, "interfaces")
    document: dict[str, object] = {
        **before,
        "cniVersion": version,
        "interfaces": [*interfaces, *(_interface(one, version) for one in result.interfaces)],
        "ips": [*_passed(before, "ips"), *(_ip(one, version, len(interfaces)) for one in result.ips)],
    }
    routes = [*_passed(before, "routes"), *map(_route, result.routes)]
    if routes:
        document["routes"] = routes
    document["dns"] = {**(before.get("dns") or {}), **result.dns}
    return msgspec.json.encode(document) + b"\n"


def _passed(before: Mapping[str, Any], key: str) -> Sequence[object]:
    return before.get(key) or ()


def error(failure: Failure, version: str) -> bytes:
    """The error document of *failure*: valid UTF-8 of bounded length, whatever its text came from."""
    document = {
        "cniVersion": version,
        "code": failure.code,
        "msg": _text(failure.message),
        "details": _text(failure.details),
    }
    return msgspec.json.encode(document) + b"\n"


def versions(asked: str) -> bytes:
    """What VERSION answers to a configuration of version *asked*."""
    return msgspec.json.encode({"cniVersion": asked, "supportedVersions": list(VERSIONS)}) + b"\n"


def decode(value: object, where: str = "prevResult") -> Result:
    """A result of any version, as a runtime passes it on. Undecodable names the key, below *where*."""
    document = _mapping(value, where)
    dns = document.get("dns")
    return Result(
        tuple(_interface_of(*one) for one in _items(document, "interfaces", where)),
        tuple(_ip_of(*one) for one in _items(document, "ips", where)),
        tuple(_route_of(*one) for one in _items(document, "routes", where)),
        _mapping(dns, f"{where}.dns") if dns is not None else {},
        document,
    )


def _interface(one: Interface, version: str) -> dict[str, object]:
    form: dict[str, object] = {"name": one.name, "mac": one.mac}
    if version in _WITH_MTU and one.mtu:
        form["mtu"] = one.mtu
    if one.sandbox:
        form["sandbox"] = one.sandbox
    return form


def _ip(one: Ip, version: str, before: int) -> dict[str, object]:
    form: dict[str, object] = {"version": str(one.address.version)} if version in _WITH_FAMILY else {}
    form["address"] = str(one.address)
    if one.gateway is not None:
        form["gateway"] = str(one.gateway)
    if one.interface is not None:
        form["interface"] = one.interface + before
    return form


def _route(one: Route) -> dict[str, object]:
    form: dict[str, object] = {"dst": str(one.dst)}
    if one.gw is not None:
        form["gw"] = str(one.gw)
    return form


def _text(text: str) -> str:
    # Variables are bytes: what is not UTF-8 in them arrives as lone surrogates, which are no JSON.
    whole = text.encode("utf-8", "backslashreplace").decode()
    return whole if len(whole) <= _TEXT_MAX else f"{whole[:_TEXT_MAX]}... ({len(whole)} characters)"


# --- reading ----------------------------------------------------------------------------------------------------------


def _interface_of(value: object, where: str) -> Interface:
    form = _mapping(value, where)
    mtu = form.get("mtu") or 0
    if not isinstance(mtu, int) or isinstance(mtu, bool):
        raise Undecodable(f"{where}.mtu is not a number")
    return Interface(
        _string(form, "name", where), _string(form, "mac", where).lower(), mtu, _string(form, "sandbox", where)
    )


def _ip_of(value: object, where: str) -> Ip:
    form = _mapping(value, where)
    index = form.get("interface")
    if index is not None and (not isinstance(index, int) or isinstance(index, bool)):
        raise Undecodable(f"{where}.interface is not a number")
    return Ip(_network(form, "address", where), _gateway(form, "gateway", where), index)


def _route_of(value: object, where: str) -> Route:
    form = _mapping(value, where)
    return Route(_network(form, "dst", where), _gateway(form, "gw", where))


def _items(document: Mapping[str, Any], key: str, where: str) -> Sequence[tuple[object, str]]:
    value = document.get(key)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise Undecodable(f"{where}.{key} is not a list")
    return [(one, f"{where}.{key}[{index}]") for index, one in enumerate(value)]


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise Undecodable(f"{where} is not an object")
    return value


def _string(form: Mapping[str, Any], key: str, where: str) -> str:
    value = form.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Undecodable(f"{where}.{key} is not a string")
    return value


def _network(form: Mapping[str, Any], key: str, where: str) -> IPNetwork:
    text = _string(form, key, where)
    try:
        return IPNetwork(text)
    except (AddrFormatError, ValueError) as error:
        raise Undecodable(f"{where}.{key} is no address with a prefix length: {_text(text)[:80]!r}") from error


def _gateway(form: Mapping[str, Any], key: str, where: str) -> IPAddress | None:
    text = _string(form, key, where)
    if not text:
        return None
    try:
        return IPAddress(text)
    except (AddrFormatError, ValueError) as error:
        raise Undecodable(f"{where}.{key} is no address: {_text(text)[:80]!r}") from error
