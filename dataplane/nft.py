"""One nftables table of ours, replaced as a whole in one transaction by nft(8).

``nft`` is the interface that nftables promises to keep; it costs some milliseconds, and the table changes with the
configuration alone, never with a pod.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from io import FileIO
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from cni.errors import Failure, KernelRefused, TryAgain
from dataplane.items import NftTable
from dataplane.refusal import unable

OUR_CHAIN: Final = "source"
"""The name of a chain that every table of ours has."""
TIMEOUT: Final = 10.0
"""Seconds that a call may take: nft waits for whoever else is changing the rules."""
REST: Final = 60.0
"""Seconds after a call that took too long for which nft is not called: a pass that waits for it mends nothing else."""
_MOMENT: Final = 1.0
"""Seconds."""
_NAME: Final = "nft {} {}"
"""What is remembered of a table is called so."""
_ABSENT: Final = "No such file or directory"
Listing: TypeAlias = Sequence[Mapping[str, Any]]


class Done(NamedTuple):
    """How a call of nft ended: below 0 *code* is the signal that killed it."""

    code: int
    said: str
    complained: str


Run = Callable[[Sequence[str], str], Done]


def run(arguments: Sequence[str], text: str, timeout: float = TIMEOUT) -> Done:
    """Call nft with *text* on its standard input.

    Raises:
        TimeoutError: it did not end in time, and is killed.
        OSError: it could not be started.
    """
    # Files in memory instead of pipes: Popen leaks those it has when it gets no more of them, and a child of nft's that
    # goes on would keep them open.
    with _file() as stdin, _file() as stdout, _file() as stderr:
        stdin.write(text.encode())
        stdin.seek(0)
        # What it says is read, so it has to be in one language.
        process = subprocess.Popen(
            ["nft", *arguments], stdin=stdin, stdout=stdout, stderr=stderr, env={**os.environ, "LC_ALL": "C"}
        )
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            process.kill()
            with suppress(subprocess.TimeoutExpired):  # unless it is stuck in the kernel: that it may be for long
                process.wait(_MOMENT)
            raise TimeoutError(f"nft did not end within {timeout:g} s") from error
        return Done(code, _content(stdout), _content(stderr).strip())


def _file() -> FileIO:
    return FileIO(os.memfd_create("nft", os.MFD_CLOEXEC), "r+")


def _content(file: FileIO) -> str:
    file.seek(0)
    return file.readall().decode(errors="replace")


class Memory(Protocol):
    """What outlives the process. Failure: it cannot be read or written."""

    def recall(self, name: str) -> str | None:
        """What was remembered under *name*."""

    def remember(self, name: str, value: str) -> None:
        """Keep *value* under *name*."""


class Nft:
    """Reads and writes one table.

    nft lists a table in its own spelling, so what it lists just after writing is remembered as the listing of that
    text: a later listing that differs means that somebody changed the table. *memory* has both for the next process; it
    need not be trusted, for two texts that are listed alike are the same table. Without it a table found at start is
    of unknown text, and is replaced once; the transaction is atomic, so no packet sees a gap.

    A table is ours that has a chain which every one of ours has, or the handle of one that was written here: no two
    tables of a namespace have the same one after the other. Another's of the same name is not there for us, and is
    neither replaced nor removed.
    """

    def __init__(
        self, run: Run = run, clock: Callable[[], float] = time.monotonic, memory: Memory | None = None
    ) -> None:
        self._run = run
        self._clock = clock
        self._rests_until = -REST
        self._memory = memory
        self._known: dict[tuple[str, str], tuple[str, str]] = {}
        self._handles: set[int] = set()

    def read(self, family: str, name: str) -> NftTable | None:
        """The table as it is now; its text is the one written if it still is what was written. None: there is none of
        ours.

        Raises:
            KernelRefused, TryAgain: it cannot be read.
        """
        found = self._list(family, name)
        if found is None or not self._is_ours(found):
            return None
        listing = _comparable(found)
        text, as_listed = self._known.get((family, name)) or self._recalled(family, name)
        return NftTable(family, name, text if listing == as_listed else f"changed by others: {listing}")

    def write(self, table: NftTable) -> None:
        """Create the table or replace the whole of it.

        KernelRefused: it cannot be had, or there is another's of that name.
        """
        there = self._list(table.family, table.name)
        if there is not None and not self._is_ours(there):
            raise KernelRefused(
                f"the nft table {table.family} {table.name} is another program's: it was left alone",
                f"rename it there, or remove it: nft delete table {table.family} {table.name}",
                errno.EEXIST,
                "nft",
            )
        head = f"table {table.family} {table.name}"
        self._call(["-f", "-"], f"{head}\ndelete {head}\n{head} {{\n{table.text}\n}}\n", f"+ nft {head}")
        made = self._list(table.family, table.name) or []
        self._remember(table, _comparable(made))
        self._handles.update(_handle(made))

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
            done = self._done(["--check", "-f", "-"], text, f"check table {table.family} {table.name}")
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

    def _is_ours(self, listing: Listing) -> bool:
        chains = {one["chain"]["name"] for one in listing if "chain" in one}
        return OUR_CHAIN in chains or not self._handles.isdisjoint(_handle(listing))

    def _list(self, family: str, name: str) -> Listing | None:
        what = f"list table {family} {name}"
        done = self._done(["--json", "--terse", *what.split()], "", what)
        if done.code and _ABSENT in done.complained:
            return None
        if done.code:
            raise KernelRefused(f"nft refused: {what}", done.complained)
        try:
            listing: Listing = [dict(one) for one in json.loads(done.said)["nftables"][1:]]
            _comparable(listing), self._is_ours(listing)
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            why = f"it said {done.said[:_SHOWN]!r}: is the program nft on the agent's PATH the one of nftables?"
            raise KernelRefused(f"nft's answer cannot be read: {what}", why) from error
        return listing

    def _call(self, arguments: Sequence[str], text: str, what: str) -> None:
        done = self._done(arguments, text, what)
        if done.code:
            raise KernelRefused(f"nft refused: {what}", done.complained)

    def _done(self, arguments: Sequence[str], text: str, what: str) -> Done:
        """One call of nft that ended by itself."""
        if self._clock() < self._rests_until:
            raise TryAgain(f"nft is not asked for a while: {what}", _SLOW)
        try:
            done = self._run(arguments, text)
        except TimeoutError as error:
            self._rests_until = self._clock() + REST
            raise TryAgain(f"nft did not answer within {TIMEOUT:g} s: {what}", _SLOW) from error
        except FileNotFoundError as error:
            raise KernelRefused("the program nft is missing", "install the package nftables") from error
        except OSError as error:
            raise unable(f"call nft to {what}", error) from error
        if done.code < 0:
            raise TryAgain(f"nft was killed by signal {-done.code}: {what}", "see the machine's log: out of memory?")
        return done


_SLOW: Final = "the machine is very busy, or another program holds the nftables rules"
_SHOWN: Final = 80


def _handle(listing: Listing) -> set[int]:
    return {one["table"]["handle"] for one in listing if "table" in one}


def _comparable(listing: Listing) -> str:
    return json.dumps(_without_handles(listing), sort_keys=True)


def _without_handles(value: object) -> object:
    """Handles count up with every replacement; they are not content."""
    if isinstance(value, dict):
        return {key: _without_handles(inner) for key, inner in value.items() if key != "handle"}
    if isinstance(value, list):
        return [_without_handles(inner) for inner in value]
    return value
