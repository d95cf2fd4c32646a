"""What expressions of PromQL name: metrics, and the labels that are asked of them; as far as ours use the language."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

TARGET: Final = frozenset(("job", "instance", "node", "cluster"))
"""Labels that a scrape configuration gives to all that it brings."""
_WORDS: Final = frozenset(("and", "or", "unless", "bool", "offset"))
_GROUPING: Final = r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)"


class Named(NamedTuple):
    """The metrics by name, each with the labels that select of it; and the labels that results are grouped by."""

    metrics: Mapping[str, frozenset[str]]
    groups: frozenset[str]


def named(expression: str) -> Named:
    """What *expression* names."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)
    groups = {label for found in re.findall(_GROUPING, bare) for label in _words(found)}
    bare = re.sub(_GROUPING, " ", re.sub(r"\[[^\]]*\]", "", bare))
    metrics: dict[str, frozenset[str]] = {}
    for name, braces in re.findall(r"([a-zA-Z_:][\w:]*)\b(?!\s*\()\s*(\{[^}]*\})?", re.sub(r"\b\d\w*", "", bare)):
        if name not in _WORDS:
            metrics[name] = metrics.get(name, frozenset()) | set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", braces))
    return Named(metrics, frozenset(groups))


def wrong(expression: str, said: Mapping[str, frozenset[str]], further: Iterable[str] = ()) -> Iterator[str]:
    """What *expression* names that does not exist, if the metrics that there are have the labels *said*, and the
    *further* labels that are asked of the result."""
    metrics, groups = named(expression)
    there: set[str] = set(TARGET)
    for name, labels in metrics.items():
        if name not in said:
            yield f"no metric {name}"
        there |= said.get(name, frozenset())
        yield from (f"{name} has no label {one}" for one in sorted(labels - TARGET - said.get(name, frozenset())))
    yield from (f"no label {one}" for one in sorted({*groups, *further} - there - {"le"}))


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[\s,]+", text) if word]
