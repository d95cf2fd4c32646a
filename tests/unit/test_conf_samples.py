"""Every sample under conf/ is what the agent and a runtime accept, and shows every key with its true default."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import msgspec
import pytest

import backends
from agent.config import load as config
from agent.config import schema
from agent.config.load import Config
from cluster.nodesfile import NodesFile
from cni.spec import NAME, VERSIONS

CONF = Path(__file__).parents[2] / "conf"
AGENTS = sorted(CONF.glob("agent-*.toml"))
CONFLISTS = sorted(CONF.glob("*.conflist"))
WHOLE = schema.whole(frozenset(backends.BACKENDS))


def load(path: Path) -> Config:
    """The sample as an agent on a machine called "node-a" loads it."""
    return config.load(str(path), hostname="node-a")


def keys_of(text: str) -> dict[str, object]:
    """The keys of a TOML text, dotted."""
    found: dict[str, object] = {}
    for name, value in tomllib.loads(text).items():
        if isinstance(value, dict):
            found.update({f"{name}.{inner}": one for inner, one in value.items()})
        else:
            found[name] = value
    for name, value in list(found.items()):
        if isinstance(value, list) and value and isinstance(value[0], dict):
            found.update({f"{name}.{inner}": one for inner, one in value[0].items()})
            del found[name]
    return found


def uncommented(text: str) -> str:
    """The text with its commented-out keys made real and the others taken away."""
    lines = (line for line in text.splitlines() if line.startswith(("#", "[")) or not line)
    return "\n".join(re.sub(r"^#(\w+ = )", r"\1", line) for line in lines)


def test_every_file_is_covered_here() -> None:
    """No file lies under conf/ that no test of this module loads."""
    assert {path.name for path in CONF.iterdir()} == {
        *(path.name for path in (*AGENTS, *CONFLISTS)),
        "nodes.toml",
        "README.md",
    }
    assert {path.name for path in (*AGENTS, *CONFLISTS)} == {
        "agent-small-static.toml",
        "agent-medium-vxlan.toml",
        "agent-large-bgp.toml",
        "agent-large-aws-eni.toml",
        "agent-large-gcp-alias.toml",
        "10-routable.conflist",
        "10-routable-chained.conflist",
    }


@pytest.mark.parametrize("path", AGENTS, ids=lambda path: path.name)
def test_every_agent_sample_is_accepted(path: Path) -> None:
    """An agent starts with the sample as it is, with the backend that the file's name says."""
    assert path.stem.endswith(f"-{load(path).backend}")


@pytest.mark.parametrize("path", AGENTS, ids=lambda path: path.name)
def test_commented_keys_show_the_true_default(path: Path, tmp_path: Path) -> None:
    """A key that is commented out shows exactly its default: taking the comment away changes nothing."""
    text = path.read_text()
    shown = keys_of(uncommented(text))
    assert len(shown) >= 8
    assert shown == {key: _toml(schema.keys(WHOLE)[key].default) for key in shown}
    whole = tmp_path / "agent.toml"
    whole.write_text(re.sub(r"^#(\w+ = )", r"\1", text, flags=re.MULTILINE))
    assert load(whole) == load(path)


def _toml(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("path", AGENTS, ids=lambda path: path.name)
def test_every_key_is_explained(path: Path) -> None:
    """Above every key stands a comment that says its default, or that it is required."""
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines):
        if re.match(r"#?\w+ = ", line):
            above = []
            while number and lines[number - 1].startswith("# "):
                number -= 1  # noqa: PLW2901 (walking up from the key)
                above.append(lines[number])
            assert re.search(r"Default:|Required\.", " ".join(above)), line


def test_every_key_of_the_schema_is_shown() -> None:
    """The samples together show every key that there is; only what is another backend's is missing from one."""
    everything = set(schema.keys(WHOLE))
    shown = {path.name: {*keys_of(path.read_text()), *keys_of(uncommented(path.read_text()))} for path in AGENTS}
    others = {
        "agent-small-static.toml": ("vxlan.", "bgp.", "aws.", "gcp."),
        "agent-medium-vxlan.toml": ("bgp.", "aws.", "gcp."),
        "agent-large-bgp.toml": ("vxlan.", "aws.", "gcp."),
        "agent-large-aws-eni.toml": ("vxlan.", "bgp.", "gcp.", "nodes.", "masquerade."),
        "agent-large-gcp-alias.toml": ("vxlan.", "bgp.", "aws.", "nodes."),
    }
    for name, tables in others.items():
        assert shown[name] == {key for key in everything if not key.startswith(tables)}


def test_the_nodes_sample_is_accepted() -> None:
    """The nodes file is a good one, dual stack, and explains each of its keys."""
    source = NodesFile(str(CONF / "nodes.toml"))
    assert source.refresh()
    assert source.error is None
    assert {(node.name, len(node.addresses), len(node.pod_cidrs)) for node in source.nodes} == {
        ("node-a", 2, 2),
        ("node-b", 2, 2),
        ("node-c", 2, 2),
    }


@pytest.mark.parametrize("path", CONFLISTS, ids=lambda path: path.name)
def test_every_conflist_suits_old_and_new_runtimes(path: Path) -> None:
    """A conflist has a valid name, versions that we speak, this plugin first, and capabilities that are all true."""
    found = json.loads(path.read_text())
    assert set(found) == {"cniVersion", "cniVersions", "name", "plugins"}
    assert found["cniVersion"] == "1.0.0"  # runtimes that know no cniVersions refuse 1.1.0
    assert found["cniVersion"] in found["cniVersions"]
    assert set(found["cniVersions"]) <= set(VERSIONS)
    assert NAME.fullmatch(found["name"])
    types = [plugin["type"] for plugin in found["plugins"]]
    assert types[0] == "routable"
    assert len(set(types)) == len(types)
    assert all(value is True for plugin in found["plugins"] for value in plugin.get("capabilities", {}).values())


def test_defaults_are_what_an_empty_table_gives() -> None:
    """The schema's own list of defaults agrees with the configuration that a minimal file gives."""
    router = {"address": "192.0.2.1", "asn": 1}
    wanted = {"backend": "static", "nodes": {"file": "/n"}, "bgp": {"router": [router]}}
    least = msgspec.convert(wanted, WHOLE, dec_hook=lambda kind, text: kind(text))
    for key, one in schema.keys(WHOLE).items():
        if one.default is not msgspec.NODEFAULT and key != "nodes.file":
            value: object = least
            for step in key.split("."):
                value = getattr(value[0] if isinstance(value, tuple) else value, step)
            assert value == one.default, key
