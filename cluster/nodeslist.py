"""What a nodes file says, checked: ``[[node]]`` tables become Peers or a ``ConfigInvalid``.

What holds always: a set that got out of here is free of contradictions (names, addresses and pod CIDRs belong
to one node each), since a route to the wrong node is worse than an old one.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from netaddr import IPAddress, IPNetwork

from cluster import addresses, tomlfile
from cluster.peers import ASN_MAX, Peer
from cni.errors import ConfigInvalid
from cni.spec import NAME

NAME_MAX: Final = 253
"""Characters of a node's name: a DNS name (RFC 1123)."""

_KEYS: Final = ("name", "addresses", "pod_cidrs")
_OPTIONAL: Final = ("asn", "labels")


@dataclass(frozen=True, slots=True)
class _Where:
    """One ``[[node]]`` table, so that a complaint can say where it is."""

    path: str
    text: str
    index: int
    name: str

    def wrong(self, key: str, value: object, why: str) -> ConfigInvalid:
        """The complaint about *value* of *key*; *why* ends with what is allowed."""
        line = tomlfile.line_of(self.text, "node", self.index, key, value if isinstance(value, str) else "")
        called = f"node {self.name}" if self.name else f"node number {self.index + 1}"
        shown = "" if value is None else f" {tomlfile.shown(value)}"
        return ConfigInvalid(f"{tomlfile.place(self.path, line)}, {called}: {key}{shown}", why)


def parse(path: str, raw: bytes) -> frozenset[Peer]:
    """The nodes that *raw*, the content of *path*, lists.

    Raises ConfigInvalid, which names the file, the line, the node, the key, the value and what is allowed.
    """
    text, document = tomlfile.parse(path, raw)
    entries = []
    for index, table in enumerate(_tables(path, text, document)):
        name = table.get("name")
        where = _Where(path, text, index, name if isinstance(name, str) and NAME.fullmatch(name) else "")
        entries.append((where, _peer(where, table)))
    _refuse_repeated_names(entries)
    _refuse_repeated_addresses(entries)
    _refuse_overlaps(entries)
    return frozenset(peer for _, peer in entries)


def _tables(path: str, text: str, document: dict[str, Any]) -> list[dict[str, Any]]:
    for key in document:
        if key != "node":
            at = tomlfile.place(path, tomlfile.line_of(text, "", key=key) or tomlfile.line_of(text, key))
            raise ConfigInvalid(f"{at}: unknown key {tomlfile.shown(key)}", "allowed: [[node]] tables")
    tables = document.get("node", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        at = tomlfile.place(path, tomlfile.line_of(text, "node") or tomlfile.line_of(text, "", key="node"))
        raise ConfigInvalid(f"{at}: node is not a list of tables", "write [[node]], in double brackets")
    if not tables:
        raise ConfigInvalid(f"{path}: lists no node", "write one [[node]] table per node of the cluster")
    return tables


def _peer(where: _Where, table: dict[str, Any]) -> Peer:
    for key, value in table.items():
        if key not in (*_KEYS, *_OPTIONAL):
            raise where.wrong(key, value, f"unknown key; allowed: {', '.join((*_KEYS, *_OPTIONAL))}")
    for key in _KEYS:
        if key not in table:
            raise where.wrong(key, None, f"is missing; every node has {', '.join(_KEYS)}")
    name = table["name"]
    if not isinstance(name, str) or not NAME.fullmatch(name) or len(name) > NAME_MAX:
        allowed = f"at most {NAME_MAX} letters, digits, dots, dashes and underscores, a letter or digit first"
        raise where.wrong("name", name, f"allowed: {allowed}")
    return Peer(
        name,
        _addresses(where, table["addresses"]),
        _pod_cidrs(where, table["pod_cidrs"]),
        asn=_asn(where, table.get("asn")),
        labels=_labels(where, table.get("labels", {})),
    )


def _asn(where: _Where, value: object) -> int:
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= ASN_MAX:
        raise where.wrong("asn", value, f"allowed: the number of an autonomous system, 1 to {ASN_MAX}")
    return value


def _labels(where: _Where, value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise where.wrong("labels", value, 'allowed: a table of strings, such as { rack = "r1" }')
    return tuple(sorted(value.items()))


def _texts(where: _Where, key: str, value: object) -> list[str]:
    if not isinstance(value, list) or not value:
        raise where.wrong(key, value, "allowed: a list of at least one string")
    for one in value:
        if not isinstance(one, str):
            raise where.wrong(key, one, "allowed: strings, in quotes")
    return value


def _addresses(where: _Where, value: object) -> tuple[IPAddress, ...]:
    found: dict[int, IPAddress] = {}
    for text in _texts(where, "addresses", value):
        try:
            one = addresses.address(text)
            addresses.refuse_reserved(one)
        except ValueError as error:
            raise where.wrong("addresses", text, str(error)) from error
        if one.version in found:
            why = f"is a second IPv{one.version} address; allowed: one per family"
            raise where.wrong("addresses", text, why)
        found[one.version] = one
    return tuple(found[family] for family in sorted(found))


def _pod_cidrs(where: _Where, value: object) -> tuple[IPNetwork, ...]:
    found = []
    for text in _texts(where, "pod_cidrs", value):
        try:
            one = addresses.cidr(text)
            addresses.refuse_reserved(one)
        except ValueError as error:
            raise where.wrong("pod_cidrs", text, str(error)) from error
        found.append(one)
    return tuple(sorted(found, key=lambda one: (one.version, one.first, one.prefixlen)))


_Entries = list[tuple[_Where, Peer]]


def _refuse_repeated_names(entries: _Entries) -> None:
    seen: dict[str, _Where] = {}
    for where, peer in entries:
        if peer.name in seen:
            why = f"is also the name of node number {seen[peer.name].index + 1}; allowed: each once"
            raise where.wrong("name", peer.name, why)
        seen[peer.name] = where


def _refuse_repeated_addresses(entries: _Entries) -> None:
    seen: dict[IPAddress, str] = {}
    for where, peer in entries:
        for one in peer.addresses:
            if one in seen:
                why = f"is also an address of node {seen[one]}; allowed: each once"
                raise where.wrong("addresses", str(one), why)
            seen[one] = peer.name


class _Range(NamedTuple):
    """A pod CIDR as numbers: comparing netaddr's objects 10,000 times costs more than reading the file."""

    first: int
    last: int
    network: IPNetwork
    where: _Where


def _refuse_overlaps(entries: _Entries) -> None:
    """Pod CIDRs are disjoint, and no node's address lies in one.

    Two CIDRs nest or are apart: where any two overlap, two neighbours in order do.
    """
    for family in (4, 6):
        ranges = [
            _Range(one.first, one.last, one, where)
            for where, peer in entries
            for one in peer.pod_cidrs
            if one.version == family
        ]
        ranges.sort(key=lambda one: (one.first, -one.last))
        for before, after in itertools.pairwise(ranges):
            if after.first <= before.last:
                why = f"overlaps {before.network} of node {before.where.name}; allowed: ranges that are apart"
                raise after.where.wrong("pod_cidrs", str(after.network), why)
        starts = [one.first for one in ranges]
        for _, peer in entries:
            own = peer.address(family)
            if own is None:
                continue
            at = bisect_right(starts, int(own)) - 1
            if at >= 0 and int(own) <= ranges[at].last:
                why = f"contains {own}, the address of node {peer.name}; allowed: ranges of pods alone"
                raise ranges[at].where.wrong("pod_cidrs", str(ranges[at].network), why)
