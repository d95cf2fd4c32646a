"""One nftables table of ours, replaced as a whole in one transaction by nft(8).

``nft`` is the interface that nftables promises to keep; it costs some milliseconds, and the table changes with the
configuration alone, never with a pod.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from typing import Final

from cni.errors import KernelRefused
from dataplane.items import NftTable

_TIMEOUT: Final = 10.0
Run = Callable[[Sequence[str], str], "subprocess.CompletedProcess[str]"]


def run(arguments: Sequence[str], text: str) -> subprocess.CompletedProcess[str]:
    """Call nft with *text* on its standard input."""
    return subprocess.run(
        ["nft", *arguments], input=text, capture_output=True, text=True, timeout=_TIMEOUT, check=False
    )


class Nft:
    """Reads and writes one table.

    nft lists a table in its own spelling, so what it lists just after writing is remembered as the listing of that
    text: a later listing that differs means that somebody changed the table. A table found at start is of unknown
    text and is replaced once; the transaction is atomic, so no packet sees the gap.
    """

    def __init__(self, run: Run = run) -> None:
        self._run = run
        self._known: dict[tuple[str, str], tuple[str, str]] = {}

    def read(self, family: str, name: str) -> NftTable | None:
        """The table as it is now; its text is the one written if it still is what was written."""
        listing = self._list(family, name)
        if listing is None:
            return None
        text, as_listed = self._known.get((family, name), ("", ""))
        return NftTable(family, name, text if listing == as_listed else f"changed by others: {listing}")

    def write(self, table: NftTable) -> None:
        """Create the table or replace the whole of it."""
        head = f"table {table.family} {table.name}"
        self._call(["-f", "-"], f"{head}\ndelete {head}\n{head} {{\n{table.text}\n}}\n", f"+ nft {head}")
        self._known[table.family, table.name] = table.text, self._list(table.family, table.name) or ""

    def delete(self, table: NftTable) -> None:
        """Remove the table; a table that is not there is no error."""
        head = f"table {table.family} {table.name}"
        self._call(["-f", "-"], f"{head}\ndelete {head}\n", f"- nft {head}")
        self._known.pop((table.family, table.name), None)

    def check(self, table: NftTable) -> str:
        """Why this machine could not hold *table*, or '' if it could: nothing is changed (``nft --check``)."""
        try:
            done = self._run(["--check", "-f", "-"], f"table {table.family} {table.name} {{\n{table.text}\n}}\n")
        except FileNotFoundError:
            return "the program nft is missing"
        return done.stderr.strip() if done.returncode else ""

    def _list(self, family: str, name: str) -> str | None:
        done = self._run(["--json", "--terse", "list", "table", family, name], "")
        if done.returncode:
            return None
        return json.dumps(_without_handles(json.loads(done.stdout)["nftables"][1:]), sort_keys=True)

    def _call(self, arguments: Sequence[str], text: str, what: str) -> None:
        done = self._run(arguments, text)
        if done.returncode:
            raise KernelRefused(f"nft refused: {what}", done.stderr.strip())


def _without_handles(value: object) -> object:
    """Handles count up with every replacement; they are not content."""
    if isinstance(value, dict):
        return {key: _without_handles(inner) for key, inner in value.items() if key != "handle"}
    if isinstance(value, list):
        return [_without_handles(inner) for inner in value]
    return value
