"""iptables' chain FORWARD, which Docker, ufw and others have drop what no rule accepts: our accepts in there.

A chain that drops outweighs whatever another table accepts, so pods' packets must be accepted where they would be
dropped. This chain is where every program that does so puts its rules, by either of iptables' two forms: tables of
nftables (iptables-nft), or tables of its own (iptables-legacy). Ours are made and listed by iptables itself, with the
comment "routable"; the chain's other rules, and its policy, are others' business.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, NamedTuple

from cni.errors import KernelRefused
from dataplane.items import HOST, POD_LINK_PREFIX, Key
from dataplane.nfgen import generation
from dataplane.program import Program
from dataplane.refusal import translated

Form = Literal["nft", "legacy"]

_COMMENT: Final = "routable"
_SIDES: Final = {"from": ("-s", "-i"), "to": ("-d", "-o")}
_TABLES: Final = {4: "ip", 6: "ip6"}
_NAMES: Final = {4: "ip_tables_names", 6: "ip6_tables_names"}
_EVERY: Final = 5.0
"""Seconds between looks at tables of the legacy form, which tell of no change."""


class Chain(NamedTuple):
    """A chain FORWARD of one family and form."""

    family: int
    form: Form

    def __str__(self) -> str:
        return f"{'iptables' if self.family == 4 else 'ip6tables'} FORWARD ({self.form})"


class Accept(NamedTuple):
    """One rule of ours there: what comes "from" the links of pods with addresses of *cidr*, or goes "to" them, is
    accepted. One that somebody changed has no *direction*, and all its words as *cidr*."""

    chain: Chain
    direction: str
    cidr: str

    @property
    def rank(self) -> int:
        return 8

    @property
    def key(self) -> Key:
        return Key(HOST, "accept", str(self))

    @property
    def link(self) -> str:
        return ""

    @property
    def words(self) -> str:
        """What names it after iptables' -A, -I and -D."""
        if not self.direction:
            return self.cidr
        side, link = _SIDES[self.direction]
        return f"FORWARD {side} {self.cidr} {link} {POD_LINK_PREFIX}+ -m comment --comment {_COMMENT} -j ACCEPT"

    def __str__(self) -> str:
        return f"accept {self.direction} pods of {self.cidr} in {self.chain}"


class Chains(NamedTuple):
    """The chains that drop by policy, and our rules in any."""

    dropping: frozenset[Chain] = frozenset()
    accepts: tuple[Accept, ...] = ()


class Forward:
    """One thread at a time calls. *nft* and *iptables* are the programs; *generation* tells whether nftables' rules may
    have changed; *names* is the directory of the files that list legacy tables in use."""

    def __init__(
        self,
        nft: Program | None = None,
        iptables: Mapping[Chain, Program] | None = None,
        generation: Callable[[], int | None] = generation,
        names: Path = Path("/proc/thread-self/net"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._nft = nft or Program("nft", "nftables")
        self._iptables = iptables or {
            Chain(4, "nft"): Program("iptables-nft", "iptables"),
            Chain(6, "nft"): Program("ip6tables-nft", "iptables"),
            Chain(4, "legacy"): Program("iptables-legacy", "iptables"),
            Chain(6, "legacy"): Program("ip6tables-legacy", "iptables"),
        }
        self._generation = generation
        self._names = names
        self._clock = clock
        self._known: tuple[int, Chains] | None = None
        self._legacy_at = -_EVERY
        self._legacy = Chains()

    def look(self) -> Chains:
        """What there is now.

        Raises:
            KernelRefused, TryAgain: it cannot be seen.
        """
        with translated("ask for nftables' generation"):
            now = self._generation()
        if self._known is None or self._known[0] != now:
            nft = self._seen(Chain(family, "nft") for family in _TABLES if self._is_there(family))
            self._known = (now, nft) if now is not None else None
        else:
            nft = self._known[1]
        if self._clock() >= self._legacy_at + _EVERY:
            self._legacy = self._seen(Chain(family, "legacy") for family in _NAMES if self._is_used(family))
            self._legacy_at = self._clock()
        return Chains(nft.dropping | self._legacy.dropping, nft.accepts + self._legacy.accepts)

    def put(self, accept: Accept) -> None:
        """Make a rule, before all others of its chain. KernelRefused, TryAgain: it cannot be made."""
        code, complained = self._change(accept, f"-I {accept.words}")
        if code:
            raise KernelRefused(f"iptables refused: + {accept}", complained)

    def drop(self, accept: Accept) -> None:
        """Remove a rule; one that is gone is no error. KernelRefused, TryAgain: iptables cannot be called."""
        self._change(accept, f"-D {accept.words}")

    def _change(self, accept: Accept, words: str) -> tuple[int, str]:
        self._known, self._legacy_at = None, -_EVERY
        done = self._iptables[accept.chain].done(["-w", "5", *shlex.split(words)], "", f"change {accept.chain}")
        return done.code, done.complained

    def _seen(self, chains: Iterable[Chain]) -> Chains:
        dropping, accepts = set(), []
        for chain in chains:
            for words in self._lines(chain):
                if words == ["-P", "FORWARD", "DROP"]:
                    dropping.add(chain)
                elif _COMMENT in words and words[words.index(_COMMENT) - 1] == "--comment":
                    accepts.append(_accept(chain, words))
        return Chains(frozenset(dropping), tuple(accepts))

    def _lines(self, chain: Chain) -> Iterator[list[str]]:
        done = self._iptables[chain].done(["-w", "5", "-S", "FORWARD"], "", f"list {chain}")
        if done.code:
            raise KernelRefused(f"{chain} cannot be listed", done.complained)
        for line in done.said.splitlines():
            with suppress(ValueError):  # a quote in a name that iptables does not quote: not ours, nor a policy
                yield shlex.split(line)

    def _is_there(self, family: int) -> bool:
        """Whether there is a chain of the form nft: iptables, asked for one that is not, might make it."""
        what = f"list chain {_TABLES[family]} filter FORWARD"
        done = self._nft.done(["--json", *what.split()], "", what)
        try:
            return done.code == 0 and any("hook" in one.get("chain", {}) for one in json.loads(done.said)["nftables"])
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise KernelRefused(f"nft's answer cannot be read: {what}", f"it said {done.said[:80]!r}") from error

    def _is_used(self, family: int) -> bool:
        try:
            return "filter" in (self._names / _NAMES[family]).read_text().split()
        except OSError:  # a kernel without this form
            return False


def accepts(chains: Iterable[Chain], cidrs: Iterable[str]) -> Iterator[Accept]:
    """What lets packets of pods with addresses of *cidrs* through *chains*."""
    ranges = list(cidrs)
    for chain in sorted(chains):
        for cidr in ranges:
            if (":" in cidr) == (chain.family == 6):
                yield Accept(chain, "from", cidr)
                yield Accept(chain, "to", cidr)


def _accept(chain: Chain, words: list[str]) -> Accept:
    for direction in _SIDES:
        accept = Accept(chain, direction, words[3])
        if words == ["-A", *accept.words.split()]:
            return accept
    return Accept(chain, "", shlex.join(words[1:]))
