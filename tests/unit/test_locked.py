"""What an image has of Python's registry is written down by hash, and is what setup.cfg asks for."""

from __future__ import annotations

import re
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.lock import PROCESSORS, REQUIREMENTS, ROOT, asked

ASKED = asked((ROOT / "setup.cfg").read_text())
REMEDY = "setup.cfg asks for something else: run python -m deploy.lock"


def locked(name: str) -> dict[str, tuple[str, list[str]]]:
    """What the file says: of each package its version and hashes."""
    text = (REQUIREMENTS / f"{name}.txt").read_text()
    found = re.findall(r"^([a-z0-9-]+)==(\S+)((?: \\\n {4}--hash=sha256:[0-9a-f]{64})+)$", text, re.MULTILINE)
    assert len(found) == text.count("=="), "every line is a package with its hashes"
    return {package: (version, re.findall(r"sha256:\w+", hashes)) for package, version, hashes in found}


def needed(requirements: list[str]) -> set[str]:
    """All that *requirements* need, by what the packages that are installed here say of themselves."""
    found: set[tuple[str, str]] = set()
    waiting = [(Requirement(one), "") for one in requirements]
    while waiting:
        one, extra = waiting.pop()
        if one.marker is not None and not one.marker.evaluate({"extra": extra}):
            continue
        for wanted in ("", *one.extras):
            if (canonicalize_name(one.name), wanted) not in found:
                found.add((canonicalize_name(one.name), wanted))
                waiting += [(Requirement(text), wanted) for text in metadata.requires(one.name) or ()]
    return {name for name, _ in found}


def test_there_is_a_file_for_what_every_image_needs_and_for_each_extra() -> None:
    """And for what builds it; none for tests."""
    assert {one.stem for one in REQUIREMENTS.iterdir()} == set(ASKED), REMEDY
    assert "test" not in ASKED


@pytest.mark.parametrize("name", sorted(ASKED))
def test_what_setup_cfg_asks_for_is_locked_in_a_version_that_it_allows(name: str) -> None:
    """With a hash for every processor, or one for all."""
    found = locked(name)
    for one in map(Requirement, ASKED[name]):
        assert one.specifier.contains(found[canonicalize_name(one.name)][0]), REMEDY
    assert all(1 <= len(hashes) <= len(PROCESSORS) for _, hashes in found.values())


@pytest.mark.parametrize("name", sorted(ASKED.keys() - {"build"}))
def test_nothing_is_locked_but_what_is_needed(name: str) -> None:
    """No library of a cloud is in the image that is for none, and nothing that a package needs is missing."""
    assert set(locked(name)) == needed(ASKED[name]), REMEDY
