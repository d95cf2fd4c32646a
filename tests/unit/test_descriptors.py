"""A backend is one folder behind one descriptor, and the agent knows none by its name."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

import backends
from agent.config import load as config
from agent.ctl import main as ctl
from backends.descriptor import Backend, Wrong
from cni.errors import ConfigInvalid

ROOT = Path(__file__).parents[2]
SAMPLES = {name: [*(ROOT / "conf").glob(f"agent-*-{name}.toml")] for name in backends.BACKENDS}
NAMES = re.compile(r"(?<!fl)aws|gcp|google|vxlan|bird|bgp|boto|ec2|(?<![a-z])enis?(?![a-z])", re.IGNORECASE)
IMPORTED = """
import json, sys
from agent import main
from agent.config import chosen, load as config
from agent.ctl import main as ctl
from agent.start import restore
from agent.switch import switch
import backends
chosen.wirings(config.load({path!r}, hostname="node-a"))
names = [name for name in sys.modules if name.startswith(("backends.", "boto", "google"))]
print(json.dumps(sorted({{".".join(name.split(".")[:2]) for name in names}})))
"""


@pytest.mark.parametrize("path", sorted((ROOT / "agent").rglob("*.py")), ids=lambda path: path.name)
def test_the_agent_names_no_backend(path: Path) -> None:
    """Neither in code nor in words: what a backend is, its descriptor says."""
    lines = enumerate(path.read_text().splitlines(), 1)
    assert [f"{number}: {line}" for number, line in lines if NAMES.search(line)] == []


@pytest.mark.parametrize("name", backends.BACKENDS)
def test_only_the_chosen_backend_is_imported(name: str) -> None:
    """No node pays for another's: the whole agent with the sample of one backend has not even looked at the others."""
    (sample,) = SAMPLES[name]
    code = IMPORTED.format(path=str(sample))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    folders = {f"backends.{folder}" for folder in backends.BACKENDS.values()}
    assert {one for one in json.loads(done.stdout) if one in folders or one.startswith(("boto", "google"))} == {
        f"backends.{backends.BACKENDS[name]}"
    }


def test_a_table_of_a_backend_that_is_not_chosen_is_checked_too(tmp_path: Path) -> None:
    """What is wrong there would only be told at the change to it."""
    path = tmp_path / "agent.toml"
    path.write_text('backend = "static"\n[nodes]\nfile = "/n"\n[aws]\nmax_enis = 2\n[vxlan]\nvni = 7\n')
    found = config.load(str(path), hostname="host-1")
    assert found.of(backends.load("aws-eni")).max_enis == 2
    assert found.of(backends.load("vxlan")).vni == 7
    path.write_text(path.read_text().replace("vni = 7", "vni = 0"))
    with pytest.raises(ConfigInvalid, match=r"line 7: vxlan\.vni is 0: allowed: a number from 1 to 16777215"):
        config.load(str(path), hostname="host-1")


@pytest.mark.parametrize("name", backends.BACKENDS)
def test_a_descriptor_is_of_its_name_and_has_a_page_and_a_sample(name: str) -> None:
    """The table of names, the folder, the page, the sample, and the lists of what there is agree."""
    backend: Backend[object] = backends.load(name)  # type: ignore[type-var]
    assert backend.name == name
    assert (ROOT / "docs" / "backends" / f"{name}.md").is_file()
    (sample,) = SAMPLES[name]
    assert f"| `{sample.name}` |" in (ROOT / "conf/README.md").read_text()
    assert re.search(rf"^\| \[?`{name}`", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert (ROOT / "deploy/overlays" / name).is_dir()
    for other in (path for samples in SAMPLES.values() for path in samples):
        (listed,) = re.findall(r"^# How packets reach other nodes: (.*)\.", other.read_text(), re.MULTILINE)
        assert f'"{name}"' in listed


def test_the_contracts_name_every_backend() -> None:
    """One that is in no list could be imported by anybody."""
    contracts = ConfigParser()
    contracts.read(ROOT / "setup.cfg")
    folders = {f"backends.{folder}" for folder in backends.BACKENDS.values()}
    assert {*contracts["importlinter:contract:backends"]["forbidden_modules"].split()} == folders
    assert {*contracts["importlinter:contract:apart"]["modules"].split()} == folders
    assert folders <= {*contracts["options"]["packages"].split()}


def test_nodes_can_go_between_backends_that_share_the_list_of_nodes() -> None:
    """And to no other."""
    names = tuple(backends.BACKENDS)
    alike = {(one, other) for one in names for other in names if one != other and backends.are_alike(one, other)}
    assert alike == set(itertools.permutations(("static", "vxlan", "bgp"), 2))


def test_what_a_backend_refuses_names_a_key_of_its_own_table() -> None:
    """A complaint leads to a line of the file."""
    backend = backends.load("aws-eni")
    (found,) = backend.contradictions(backend.table(max_enis=1, reserved_enis=1))
    assert found == Wrong("aws.reserved_enis", "allowed: fewer than aws.max_enis, 1, or none is left for pods", 1)


def test_a_backends_commands_are_routablectls(capsys: pytest.CaptureFixture[str]) -> None:
    """They stand in its help, and tell what they take."""
    with pytest.raises(SystemExit):
        ctl.main(["--help"])
    text = capsys.readouterr().out
    for name in backends.BACKENDS:
        for command in backends.load(name).commands:
            assert command.name in text
            with pytest.raises(SystemExit):
                ctl.main([command.name, "--help"])
            assert f"routablectl {command.name}" in capsys.readouterr().out
