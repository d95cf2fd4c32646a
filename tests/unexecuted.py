"""Which lines of the product no test executed, less those that docs/coverage.md names with a reason: what
``make coverage`` prints.

Lines that follow each other are one place. It is known by its file and the text of its first line, or where that is
there several times, of the line before it, too: line numbers move.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[1]
NAMED: Final = ROOT / "docs/coverage.md"
_ROW: Final = re.compile(r"^\| `(?P<file>[^`]+)` \| `(?P<text>.+?)` \|", re.MULTILINE)
_COUNTED: Final = re.compile(r"^ *(?P<count>[^: ]+): *(?P<line>[1-9][0-9]*):", re.MULTILINE)


class Place(NamedTuple):
    """Lines that no test executed, one after the other."""

    file: str
    first: int
    last: int
    text: str

    def __str__(self) -> str:
        lines = f"{self.first}-{self.last}" if self.last > self.first else f"{self.first}"
        return f"{self.file}:{lines}: {self.text}"


def texts(source: str) -> list[str]:
    """What each line of *source* is known by."""
    lines = [line.strip() for line in source.splitlines()]
    often = Counter(lines)
    return [
        line if often[line] == 1 else f"{before} {line}" for before, line in zip(["", *lines], lines, strict=False)
    ]


def places(file: str, source: str, missing: Collection[int], executed: Collection[int]) -> Iterator[Place]:
    """The places in *file*, of which these lines are code."""
    known, first, last = texts(source), 0, 0
    for line in [*sorted({*missing, *executed}), 0]:
        if line in missing:
            first, last = first or line, line
        elif first:
            yield Place(file, first, last, known[first - 1])
            first = 0


def of_python(report: Mapping[str, Mapping[str, Mapping[str, list[int]]]]) -> Iterator[Place]:
    """What coverage's report in JSON says."""
    for file, found in report["files"].items():
        source = (ROOT / file).read_text("utf-8")
        yield from places(file, source, found["missing_lines"], found["executed_lines"])


def of_c(file: str, outputs: Iterable[str]) -> Iterator[Place]:
    """What several outputs of ``gcov --stdout`` say of one file: executed is what is in any of them."""
    code: set[int] = set()
    executed: set[int] = set()
    for counted in (one for output in outputs for one in _COUNTED.finditer(output) if one["count"] != "-"):
        code.add(int(counted["line"]))
        if counted["count"] != "#####":
            executed.add(int(counted["line"]))
    yield from places(file, (ROOT / file).read_text("utf-8"), code - executed, executed)


def named(document: str) -> set[tuple[str, str]]:
    """File and first line of each place that has a reason."""
    return {(row["file"], row["text"].replace("\\|", "|")) for row in _ROW.finditer(document)}


def main(directory: Path) -> None:
    """Print what is in *directory*, where all.json is coverage's report and c/ has the counts of gcc's."""
    report = json.loads((directory / "all.json").read_text())
    counts = sorted(map(str, directory.glob("c/*.gcda")))
    outputs = [subprocess.run(["gcov", "--stdout", one], capture_output=True, text=True).stdout for one in counts]
    found = [*of_python(report), *(of_c("cni/relay.c", outputs) if outputs else ())]
    known = named(NAMED.read_text("utf-8"))
    news = [one for one in found if (one.file, one.text) not in known]
    print(*news, sep="\n")  # noqa: T201
    percent = report["totals"]["percent_covered_display"]
    print(  # noqa: T201
        f"{percent} % executed; {len(news)} places above that were not, and {len(found) - len(news)} that were not, "
        f"with a reason: see {NAMED.relative_to(ROOT)}"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
