"""What the documents point at is there: files, and the tests that are said to show something."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "conf/README.md", *sorted((ROOT / "docs").rglob("*.md"))]


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
