"""Makes ``types.tsv``, the table of what instance types can have, from what DescribeInstanceTypes answers.

``python -m backends.aws.typetable ANSWER.json > backends/aws/types.tsv``. The file is what ``aws ec2
describe-instance-types`` prints, or the same as an object by type, as the PyPI package moto ships it for all types
(``moto/ec2/resources/instance_types.json.gz``); it may be compressed. Only facts are kept, one type a line.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from backends.aws.limits import COLUMNS, described

_GZIP: Final = b"\x1f\x8b"


def main() -> int:
    """Print the table."""
    raw = Path(sys.argv[1]).read_bytes()
    found = json.loads(gzip.decompress(raw) if raw.startswith(_GZIP) else raw)
    sys.stdout.write(table(found["InstanceTypes"] if "InstanceTypes" in found else found.values()))
    return 0


def table(types: Iterable[Mapping[str, Any]]) -> str:
    """One line for each of *types*, by name; those without a network are left out."""
    lines = ["\t".join(COLUMNS)]
    for one in sorted(types, key=lambda one: str(one["InstanceType"])):
        limits = described({"InstanceTypes": [one]})
        words = (one["InstanceType"], *limits[:3], "yes" if limits.has_prefixes else "no", limits.processors)
        lines.append("\t".join(map(str, words)))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
