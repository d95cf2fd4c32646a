"""What is installed: exactly our floors, and the source of the executable with them."""

from __future__ import annotations

from configparser import ConfigParser
from importlib import import_module, resources
from pathlib import Path

ROOT = Path(__file__).parents[2]
FLOORS = {"cni", "ipam", "dataplane", "cluster", "backends", "agent"}


def config() -> ConfigParser:
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def names(text: str) -> set[str]:
    return {word for line in text.splitlines() for word in line.replace(",", " ").split()}


def test_the_packages_are_our_floors_and_nothing_else() -> None:
    """Plain top-level names: the lab, tests and benchmarks are not installed."""
    listed = names(config()["options"]["packages"])
    assert {name.partition(".")[0] for name in listed} == FLOORS
    inits = [path for one in FLOORS for path in (ROOT / one).rglob("__init__.py")]
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in inits}
    assert found == listed


def test_the_commands_can_be_imported() -> None:
    """A console script names a function that exists."""
    scripts = config()["options.entry_points"]["console_scripts"].strip().splitlines()
    assert {line.partition("=")[0].strip() for line in scripts} == {"routable-agent", "routablectl"}
    for line in scripts:
        module, _, function = line.partition("=")[2].strip().partition(":")
        assert callable(getattr(import_module(module), function))


def test_the_executables_source_is_installed_with_the_package() -> None:
    """routablectl install compiles it on the node."""
    assert "relay.c" in names(config()["options.package_data"]["cni"])
    assert resources.files("cni").joinpath("relay.c").is_file()


def test_no_two_files_of_tests_have_one_name() -> None:
    """pytest imports them by that alone: two of one name keep the whole suite from being collected."""
    found = sorted(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert found == sorted(set(found))
