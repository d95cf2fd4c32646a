"""The network configuration that the agent writes: the default, an operator's, and which are ours."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.announce.conflist import MARK, conflist, is_ours
from cni.errors import ConfigInvalid

CONF = Path(__file__).parents[2] / "conf"
OWN = {"type": "routable"}


def made(**changes: Any) -> Any:
    """What an operator's template with these *changes* makes."""
    template = {"name": "pods", "plugins": [OWN], **changes}
    return json.loads(conflist(json.dumps(template).encode(), "t").content)


def test_the_default_is_the_sample() -> None:
    """What is written where nothing is wished is conf/10-routable.conflist, with our mark."""
    made = conflist()
    found = json.loads(made.content)
    assert found.pop(MARK)
    assert found == json.loads((CONF / "10-routable.conflist").read_text())
    assert made.types == ("routable", "portmap")


@pytest.mark.parametrize("path", sorted(CONF.glob("*.conflist")), ids=lambda path: path.name)
def test_the_samples_are_templates(path: Path) -> None:
    """Each can be given as the template, and comes out as it is."""
    found = json.loads(conflist(path.read_bytes(), path.name).content)
    assert found.pop(MARK)
    assert found == json.loads(path.read_text())


def test_versions_that_old_and_new_runtimes_take_are_added() -> None:
    """Where the operator says nothing of versions; what the operator says of them stays."""
    assert made()["cniVersion"] == "1.0.0"
    assert made()["cniVersions"] == ["0.4.0", "1.0.0", "1.1.0"]
    assert "cniVersions" not in made(cniVersion="0.4.0")
    assert made(cniVersion="0.4.0")["cniVersion"] == "0.4.0"


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        (b"{", "t: is not JSON"),
        (b"[" * 100_000, "t: is not JSON"),
        (b"\xff", "t: is not JSON"),
        (b"[]", "t: is not a JSON object"),
        (b'{"plugins": [{"type": "routable"}]}', "t: name: is needed"),
        (b'{"name": "a b", "plugins": [{"type": "routable"}]}', "t: name: is needed"),
        (b'{"name": "a"}', "t: plugins: is needed: a list of objects"),
        (b'{"name": "a", "plugins": [{"type": "../x"}]}', "t: plugins: is needed: a list of objects, each with a type"),
        (b'{"name": "a", "plugins": [{"type": "ptp"}]}', 't: plugins: has 0 of type "routable"; allowed: one'),
        (b'{"name": "a", "plugins": [{"type": "routable", "mtu": 1400}]}', "t: mtu is 1400, which this plugin"),
        (b'{"name": "a", "cniVersion": "2", "plugins": []}', "t: cniVersion(s) '2': allowed: 0.3.0"),
        (b'{"name": "a", "cniVersions": "1", "plugins": []}', "t: cniVersions: is not a list"),
        (b'{"name": "a", "cniVersions": [{}], "plugins": []}', "t: cniVersion(s) {}: allowed: 0.3.0"),
    ],
)
def test_a_template_that_makes_none_is_refused(template: bytes, complaint: str) -> None:
    """With its file, what is wrong and what is allowed."""
    with pytest.raises(ConfigInvalid, match=re.escape(complaint)):
        conflist(template, "t")


@given(st.binary(max_size=200))
def test_what_is_not_marked_is_not_ours(raw: bytes) -> None:
    """Any bytes are judged; what the agent writes is ours, what has the words elsewhere is not."""
    assert not is_ours(raw)
    assert not is_ours(json.dumps({"name": MARK, "plugins": [{MARK: 1}]}).encode())
    assert is_ours(conflist().content)
