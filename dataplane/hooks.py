"""Other programs' chains that pods' packets pass and may be dropped in, found by what they say of themselves.

What a firewall lets through cannot be known without being it; but a chain that drops what no rule of it accepts, of a
table that nowhere speaks of our pods, lets none of their packets through.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from netaddr import AddrFormatError, IPNetwork

from cni.errors import Failure, KernelRefused
from dataplane.items import POD_LINK_PREFIX
from dataplane.nfgen import generation
from dataplane.program import Program
from dataplane.refusal import translated

_OURS: Final = "routable"
_IPTABLES: Final = frozenset({("ip", "filter", "FORWARD"), ("ip6", "filter", "FORWARD")})
"""See `dataplane.forward`: our packets are accepted there."""
_FAMILIES: Final = {4: ("ip", "inet"), 6: ("ip6", "inet")}

Listing = Sequence[Mapping[str, Any]]


class Hooks:
    """One thread at a time calls."""

    def __init__(self, nft: Program | None = None, generation: Callable[[], int | None] = generation) -> None:
        self._nft = nft or Program("nft", "nftables")
        self._generation = generation
        self._known: tuple[object, list[Failure]] | None = None

    def look(self, networks: Collection[IPNetwork], *, is_asymmetric: bool) -> list[Failure]:
        """What may drop packets of pods with addresses of *networks*; *is_asymmetric*: some come in by where the way
        back does not lead.

        Raises:
            KernelRefused, TryAgain: it cannot be seen.
        """
        with translated("ask for nftables' generation"):
            asked = (self._generation(), frozenset(networks), is_asymmetric)
        if self._known is None or asked[0] is None or self._known[0] != asked:
            self._known = asked, self._found(networks, is_asymmetric)
        return self._known[1]

    def _found(self, networks: Collection[IPNetwork], is_asymmetric: bool) -> list[Failure]:
        try:
            chains = self._listed("list chains")
            return [*self._dropping(chains, networks), *(self._checking(chains) if is_asymmetric else ())]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise KernelRefused("nft's answer cannot be read: chains of others", repr(error)) from error

    def _dropping(self, chains: Listing, networks: Collection[IPNetwork]) -> Iterator[Failure]:
        for one in _base(chains, "forward"):
            if (one["family"], one["table"], one["name"]) in _IPTABLES:
                continue
            where = f"{one['family']} {one['table']}"
            rules = [entry["rule"] for entry in self._listed(f"list chain {where} {one['name']}") if "rule" in entry]
            if one.get("policy") != "drop" and not (rules and _is_final(rules[-1])):
                continue
            table = self._listed(f"list table {where}")
            concerned = [network for network in networks if one["family"] in _FAMILIES[network.version]]
            if concerned and not _speaks_of(table, concerned):
                ranges = ", ".join(map(str, concerned))
                yield Failure(
                    f"nft chain {one['name']} of table {where} drops what pods send and what is sent to them",
                    f"no rule there speaks of {ranges}: have it accept these, from and to",
                )

    def _checking(self, chains: Listing) -> Iterator[Failure]:
        for one in _base(chains, "prerouting"):
            where = f"{one['family']} {one['table']}"
            rules = [entry["rule"] for entry in self._listed(f"list chain {where} {one['name']}") if "rule" in entry]
            if any(_is_source_check(rule) for rule in rules):
                yield Failure(
                    f"nft chain {one['name']} of table {where} drops packets that come in by where the way back does "
                    "not lead: pods do not reach other nodes' own addresses",
                    "switch that check off for these (firewalld: IPv6_rpfilter=no in /etc/firewalld/firewalld.conf)",
                )

    def _listed(self, what: str) -> Listing:
        done = self._nft.done(["--json", *what.split()], "", what)
        if done.code:  # it went meanwhile, which the next look sees
            return []
        try:
            return [dict(one) for one in json.loads(done.said)["nftables"]]
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise KernelRefused(f"nft's answer cannot be read: {what}", f"it said {done.said[:80]!r}") from error


def _base(chains: Listing, hook: str) -> Iterator[Mapping[str, Any]]:
    """Others' base chains of a hook that filter."""
    for one in chains:
        chain = one.get("chain", {})
        if chain.get("hook") == hook and chain.get("type") == "filter" and not chain["table"].startswith(_OURS):
            yield chain


def _expressions(rule: Mapping[str, Any]) -> list[Any]:
    """What a rule consists of; one that a program made without nft may have nothing, and is listed without that key."""
    return list(rule.get("expr", ()))


def _is_final(rule: Mapping[str, Any]) -> bool:
    """Whether nothing passes the rule."""
    words = [one for one in _expressions(rule) if "counter" not in one and "log" not in one]
    return len(words) == 1 and ("drop" in words[0] or "reject" in words[0])


def _is_source_check(rule: Mapping[str, Any]) -> bool:
    """Whether the rule drops what has no way back by the link that it came in by, as nft(8) shows for ``fib``."""
    expressions = _expressions(rule)
    lefts = [one["match"]["left"] for one in expressions if "match" in one]
    flags = [set(left["fib"].get("flags", ())) for left in lefts if isinstance(left, dict) and "fib" in left]
    return any({"saddr", "iif"} <= one for one in flags) and any("drop" in one for one in expressions)


def _speaks_of(table: Listing, networks: Collection[IPNetwork]) -> bool:
    """Whether a table's listing names our links, or ranges that all of *networks* are in."""
    if f'"{POD_LINK_PREFIX}*"' in json.dumps(table):
        return True
    named = [network for network in _networks(table) if network.prefixlen]
    return all(any(network in one for one in named) for network in networks)


def _networks(value: object) -> Iterator[IPNetwork]:
    if isinstance(value, dict):
        if set(value) == {"addr", "len"}:
            yield from _network(f"{value['addr']}/{value['len']}")
        for inner in value.values():
            yield from _networks(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _networks(inner)


def _network(text: str) -> Iterator[IPNetwork]:
    try:
        yield IPNetwork(text)
    except (AddrFormatError, ValueError):
        return
