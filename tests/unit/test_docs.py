"""What the documents name is there: files, tests, commands, keys, metrics, variables; and what there is they name."""

from __future__ import annotations

import argparse
import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import backends
from agent.config import schema
from agent.ctl.main import _parser
from tests.unit.test_monitoring import AGENTS

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "conf/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EVERYTHING = "\n".join(document.read_text() for document in DOCUMENTS)
FLOORS = ("agent", "backends", "ipam", "dataplane", "cluster", "cni")
PRODUCT = [path for floor in FLOORS for path in sorted((ROOT / floor).rglob("*.py"))]
KEYS = schema.keys(schema.whole(frozenset(backends.BACKENDS)))
NO_KEYS = ("bgp.router", "nodes.toml", "cni.call.parse", "vxlan.calico")
"""A list of tables, a file, a function, a device of another plugin's."""
TABLES = sorted({key.split(".")[0] for key in KEYS if "." in key})


def commands() -> dict[str, set[str]]:
    """Those of ``routablectl``, and the options of each."""
    (found,) = [one for one in _parser()._actions if isinstance(one, argparse._SubParsersAction)]
    return {name: {*one._option_string_actions} for name, one in found.choices.items()}


def missing_commands(text: str) -> Iterator[str]:
    """What the *text* has ``routablectl`` do that it cannot."""
    known = commands()
    for line in re.findall(r"`routablectl ([^`\n]+)|^(?:\S*/)?routablectl (.+)", text, re.MULTILINE):
        name, *words = "".join(line).split("#")[0].split()
        options = [word.split("=")[0] for word in words if word.startswith("--")]
        if name != "…" and not {name, *options} <= {*known, *known.get(name, ())}:
            yield " ".join((name, *options))


def missing_keys(text: str) -> Iterator[str]:
    """Keys of the configuration that the *text* names, in backquotes or in a block of TOML, and that there are not."""
    named = re.findall(rf"`((?:{'|'.join(TABLES)})\.[a-z_.]+)`", text)
    for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL):
        document = tomllib.loads(re.sub(r"^#(\w+ = )", r"\1", block, flags=re.MULTILINE))
        for table, keys in document.items():
            named += [f"{table}.{key}" for key in keys] if isinstance(keys, dict) else [table]
    yield from (one for one in named if one not in KEYS and one not in NO_KEYS)


def missing_paths(text: str) -> Iterator[str]:
    """Files and folders of the project that are not there; words in capitals, and * and …, stand for others."""
    for path in re.findall(rf"`((?:{'|'.join((*FLOORS, 'conf', 'demo', 'deploy', 'docs', 'bench'))})/[\w./-]+)`", text):
        is_there = (ROOT / path).exists() or (ROOT / "tests" / path).exists()
        if not is_there and not re.search(r"\b[A-Z]{4,}\b", path):
            yield path


def missing_words(text: str) -> Iterator[str]:
    """Metrics that no agent has, variables that nobody reads, and what ``make`` cannot make."""
    metrics = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in AGENTS} | set(AGENTS)
    metrics |= {name.removesuffix("_total") for name in metrics}
    yield from (one for one in re.findall(r"`(routable_[a-z_]+)", text) if one not in metrics)
    code = "\n".join(path.read_text() for path in (*PRODUCT, ROOT / "cni/relay.c"))
    yield from (one for one in re.findall(r"\bROUTABLE_[A-Z]+", text) if one not in code)
    makefile = (ROOT / "Makefile").read_text()
    targets = {*re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)}
    yield from (one for one in re.findall(r"`make ([a-z-]+)", text) if one not in targets)


MISSING = (missing_commands, missing_keys, missing_paths, missing_words)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_named_is_there(document: Path) -> None:
    """Commands and options, keys, files, metrics, variables, targets."""
    text = document.read_text()
    assert [one for missing in MISSING for one in missing(text)] == []


def test_what_there_is_is_named() -> None:
    """Every command of ``routablectl``, every variable of the executable."""
    said = {*re.findall(r"routablectl ([a-z-]+)", EVERYTHING)}
    assert commands().keys() <= said
    variables = {*re.findall(r"\bROUTABLE_[A-Z]+", (ROOT / "cni/relay.c").read_text())}
    assert [one for one in sorted(variables) if one not in EVERYTHING] == []


def test_the_map_has_every_module() -> None:
    """What is within a backend's folder is that folder's."""
    text = (ROOT / "docs/architecture.md").read_text()
    (floors,) = re.findall(r"^## Floors\n\n```\n(.*?)```", text, re.MULTILINE | re.DOTALL)
    named = {*re.findall(r"\w+", floors)}
    folders = [ROOT / "backends" / folder for folder in backends.BACKENDS.values()]
    modules = [path for path in PRODUCT if path.parent not in folders and not path.name.startswith("__")]
    assert [str(path.relative_to(ROOT)) for path in modules if path.stem not in named] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("`routablectl ip ADDRESS`, `routablectl stauts`", ["stauts"]),
        ("`routablectl switch vxlan --dry-run`, `routablectl switch vxlan --dry`", ["switch --dry"]),
        ("/opt/routable/bin/routablectl instal /opt/cni/bin  # first", ["instal"]),
        ("`vxlan.vni`, `vxlan.vnis`, `nodes.toml`\n```toml\n[cni]\n#confist = 1\n```", ["vxlan.vnis", "cni.confist"]),
        ("`agent/main.py`, `agent/man.py`, `deploy/overlays/NAME`, `cluster/test_kubernetes.py`", ["agent/man.py"]),
        ("`routable_leases`, `routable_lease`, ROUTABLE_SOCKETS", ["routable_lease", "ROUTABLE_SOCKETS"]),
        ("`make demo`, `make dem`", ["dem"]),
    ],
)
def test_what_is_not_there_is_seen(text: str, found: Sequence[str]) -> None:
    """A wrong word beside right ones."""
    assert [one for missing in MISSING for one in missing(text)] == found


def missing_tests(text: str) -> list[str]:
    """The tests that *text* names in backquotes and that are not there; of "…::NAME" the name alone is looked for."""
    texts = {str(path.relative_to(ROOT / "tests")): path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    found = []
    for file, name in re.findall(r"`((?:[a-z]+/)?test_\w+\.py|…)(?:::(\w+))?`", text):
        places = list(texts.values()) if file == "…" else [texts[file]] if file in texts else []
        if not any(f"\ndef {name}(" in one if name else True for one in places):
            found.append(f"{file}::{name}")
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_tests_that_are_named_are_there(document: Path) -> None:
    """By file and name."""
    assert missing_tests(document.read_text()) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    """Those to files of the project."""
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", document.read_text())
    assert [one for one in links if not (document.parent / one).exists()] == []


def test_a_test_that_is_not_there_is_found() -> None:
    """A wrong name, a name in another file, a wrong file, and a wrong name after "…"."""
    good = ["unit/test_docs.py::test_links_lead_somewhere", "…::test_links_lead_somewhere", "unit/test_docs.py"]
    wrong = ["unit/test_docs.py::test_none", "unit/test_life.py::test_links_lead_somewhere"]
    wrong += ["unit/test_none.py::", "…::test_none"]
    text = ", ".join(f"`{one.removesuffix('::')}`" for one in (*good, *wrong))
    assert missing_tests(text) == wrong
