"""The nftables tables of ours, each replaced as a whole in one transaction by nft(8).

``nft`` is the interface that nftables promises to keep; it costs some milliseconds, and the tables change with the
configuration and the list of nodes alone, never with a pod.
"""

from __future__ import annotations

import errno
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeAlias

from cni.errors import Failure, KernelRefused
from dataplane.items import NftTable
from dataplane.memory import Memory
from dataplane.nfgen import generation
from dataplane.program import Program, Run
from dataplane.refusal import translated

OUR_CHAIN: Final = "source"
"""The name of a chain that every table of ours has."""
_NAME: Final = "nft {} {}"
"""What is remembered of a table is called so."""
_ABSENT: Final = "No such file or directory"
Listing: TypeAlias = Sequence[Mapping[str, Any]]


class Nft:
    """Reads and writes single tables.

    nft lists a table in its own spelling, so what it lists just after writing is remembered as the listing of that
    text: a later listing that differs means that somebody changed the table. *memory* has both for the next process; it
    need not be trusted, for two texts that are listed alike are the same table. Without it a table found at start is
    of unknown text, and is replaced once; the transaction is atomic, so no packet sees a gap.

    A table is ours that has a chain which every one of ours has, or the handle of one that was written here: no two
    tables of a namespace have the same one after the other. Another's of the same name is not there for us, and is
    neither replaced nor removed.

    A table is listed anew when *generation*, nftables' own, has changed: with every change by anybody.
    """

    def __init__(
        self,
        run: Run | None = None,
        clock: Callable[[], float] = time.monotonic,
        memory: Memory | None = None,
        generation: Callable[[], int | None] = generation,
    ) -> None:
        self._nft = Program("nft", "nftables", run, clock)
        self._memory = memory
        self._generation = generation
        self._seen: dict[tuple[str, str], tuple[int, NftTable | None]] = {}
        self._known: dict[tuple[str, str], tuple[str, str]] = {}
        self._handles: dict[tuple[str, str], set[int]] = {}

    def read(self, family: str, name: str) -> NftTable | None:
        """The table as it is now; its text is the one written if it still is what was written. None: there is none of
        ours.

        Raises:
            KernelRefused, TryAgain: it cannot be read.
        """
        now = self._now()  # before the listing: what changes meanwhile is listed again the next time
        seen = self._seen.get((family, name))
        if seen is not None and seen[0] == now:
            return seen[1]
        found = self._read(family, name)
        if now is not None:
            self._seen[family, name] = now, found
        return found

    def _now(self) -> int | None:
        with translated("ask for nftables' generation"):
            return self._generation()

    def _read(self, family: str, name: str) -> NftTable | None:
        found = self._list(family, name)
        if found is None or not self._is_ours(family, name, found):
            return None
        listing = _comparable(found)
        text, as_listed = self._known.get((family, name)) or self._recalled(family, name)
        return NftTable(family, name, text if listing == as_listed else f"changed by others: {listing}")

    def write(self, table: NftTable) -> None:
        """Create the table or replace the whole of it.

        KernelRefused: it cannot be had, or there is another's of that name.
        """
        there = self._list(table.family, table.name)
        if there is not None and not self._is_ours(table.family, table.name, there):
            raise KernelRefused(
                f"the nft table {table.family} {table.name} is another program's: it was left alone",
                f"rename it there, or remove it: nft delete table {table.family} {table.name}",
                errno.EEXIST,
                "nft",
            )
        head = f"table {table.family} {table.name}"
        before = self._now()
        self._call(["-f", "-"], f"{head}\ndelete {head}\n{head} {{\n{table.text}\n}}\n", f"+ nft {head}")
        made = self._list(table.family, table.name) or []
        # If somebody changed a table between the two, it may have been this one: what is listed may not be what was
        # written, so it counts as changed, and is written once more.
        is_certain = before is None or (self._now() or 0) <= before + 1
        self._remember(table, _comparable(made) if is_certain else "")
        self._handles[table.family, table.name] = _handle(made)

    def delete(self, table: NftTable) -> None:
        """Remove the table; one that is not there, or is another's, is no error."""
        if self.read(table.family, table.name) is None:
            return
        head = f"table {table.family} {table.name}"
        self._call(["-f", "-"], f"{head}\ndelete {head}\n", f"- nft {head}")
        self._known.pop((table.family, table.name), None)

    def check(self, table: NftTable) -> str:
        """Why this machine could not hold *table*, or '' if it could: nothing is changed (``nft --check``).

        Raises:
            TryAgain: it could not be found out.
        """
        text = f"table {table.family} {table.name} {{\n{table.text}\n}}\n"
        try:
            done = self._nft.done(["--check", "-f", "-"], text, f"check table {table.family} {table.name}")
        except KernelRefused as failure:
            return str(failure)
        return (done.complained or f"nft ended with code {done.code}") if done.code else ""

    def _recalled(self, family: str, name: str) -> tuple[str, str]:
        """The text that was last written, and how nft listed that."""
        text = listing = ""
        if self._memory is not None:
            with suppress(Failure, ValueError, TypeError):  # then the table is of unknown text
                text, listing = map(str, json.loads(self._memory.recall(_NAME.format(family, name)) or '["", ""]'))
        self._known[family, name] = text, listing
        return text, listing

    def _remember(self, table: NftTable, listing: str) -> None:
        self._known[table.family, table.name] = table.text, listing
        if self._memory is not None:
            with suppress(Failure):  # the table is there; without this the next process writes it once more
                self._memory.remember(_NAME.format(table.family, table.name), json.dumps([table.text, listing]))

    def _is_ours(self, family: str, name: str, listing: Listing) -> bool:
        chains = {one["chain"]["name"] for one in listing if "chain" in one}
        return OUR_CHAIN in chains or not _handle(listing).isdisjoint(self._handles.get((family, name), ()))

    def _list(self, family: str, name: str) -> Listing | None:
        what = f"list table {family} {name}"
        done = self._nft.done(["--json", *what.split()], "", what)
        if done.code and _ABSENT in done.complained:
            return None
        if done.code:
            raise KernelRefused(f"nft refused: {what}", done.complained)
        try:
            listing: Listing = [dict(one) for one in json.loads(done.said)["nftables"][1:]]
            _comparable(listing), self._is_ours(family, name, listing)
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            why = f"it said {done.said[:_SHOWN]!r}: is the program nft on the agent's PATH the one of nftables?"
            raise KernelRefused(f"nft's answer cannot be read: {what}", why) from error
        return listing

    def _call(self, arguments: Sequence[str], text: str, what: str) -> None:
        done = self._nft.done(arguments, text, what)
        if done.code:
            raise KernelRefused(f"nft refused: {what}", done.complained)


_SHOWN: Final = 80
_MOST: Final = 1 << 14


def _handle(listing: Listing) -> set[int]:
    return {one["table"]["handle"] for one in listing if "table" in one}


def _comparable(listing: Listing) -> str:
    """For a table with thousands of addresses a digest is enough to be remembered, and to be told."""
    text = json.dumps(_without_handles(listing), sort_keys=True)
    return text if len(text) <= _MOST else hashlib.sha256(text.encode()).hexdigest()


def _without_handles(value: object) -> object:
    """Handles count up with every replacement; they are not content."""
    if isinstance(value, dict):
        return {key: _without_handles(inner) for key, inner in value.items() if key != "handle"}
    if isinstance(value, list):
        return [_without_handles(inner) for inner in value]
    return value
