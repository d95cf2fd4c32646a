"""``routablectl``: what a person asks an agent, or does to a node without one."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import backends
from agent import commands, tables
from agent import config as configuration
from agent.machine import DEFAULT_CONFIG, exclusive, version
from agent.schema import Config, Paths
from cni.errors import Failure


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the answer is the process's exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except Failure as failure:
        print(f"routablectl: {failure}", file=sys.stderr)  # noqa: T201
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="routablectl", description="Asks the agent of this node.")
    parser.add_argument("--config", metavar="FILE", default=DEFAULT_CONFIG, help="the agent's; default: %(default)s")
    parser.add_argument("--version", action="version", version=version())
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    status = commands.add_parser("status", help="backend, pool, leases, peers, problems and what was mended")
    status.add_argument("--json", action="store_true", help="everything, for programs")
    status.set_defaults(run=_status)
    ip = commands.add_parser("ip", help="who has an address, and who had it")
    ip.add_argument("address", metavar="ADDRESS")
    ip.add_argument("--json", action="store_true", help="for programs")
    ip.set_defaults(run=_ip)
    install = commands.add_parser("install", help="put the CNI executable into a runtime's directory")
    install.add_argument("directory", metavar="DIRECTORY", type=Path, help="such as /opt/cni/bin")
    install.set_defaults(run=_install)
    uninstall = commands.add_parser(
        "uninstall", help="remove all that is ours from the kernel; the agent must be stopped"
    )
    uninstall.add_argument("--yes", action="store_true", help="also while pods have addresses: they lose them")
    uninstall.set_defaults(run=_uninstall)
    return parser


def _status(options: argparse.Namespace) -> int:
    document = _asked(options, commands.STATUS, {})
    print(json.dumps(document, indent=2) if options.json else tables.status(document, time.time()))  # noqa: T201
    return 0


def _ip(options: argparse.Namespace) -> int:
    tenures = _asked(options, commands.IP, {"address": options.address})
    print(json.dumps(tenures, indent=2) if options.json else tables.history(options.address, tenures))  # noqa: T201
    return 0 if tenures else 1


def _install(options: argparse.Namespace) -> int:
    from cni.install import install

    python = Path(getattr(sys, "_base_executable", sys.executable))
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    done = install(options.directory, python, compiler)
    print(f"{done.path}: {done.form} ({done.reason})")  # noqa: T201
    return 0


def _uninstall(options: argparse.Namespace) -> int:
    # Imported here: asking an agent needs none of it.
    from agent import uninstall

    config = _config(options)
    descriptor = exclusive(Path(config.paths.state))
    try:
        for line in uninstall.uninstall(config, time.time(), is_sure=options.yes):
            print(line)  # noqa: T201
    finally:
        os.close(descriptor)
    return 0


def _config(options: argparse.Namespace) -> Config:
    return configuration.load(options.config, backends=backends.BACKENDS, hostname=socket.gethostname())


def _socket(options: argparse.Namespace) -> str:
    """The configuration's socket; the usual one on a node whose configuration is where the agent found none either."""
    if options.config == DEFAULT_CONFIG and not Path(DEFAULT_CONFIG).exists():
        return Paths().socket
    return _config(options).paths.socket


def _asked(options: argparse.Namespace, command: str, arguments: dict[str, Any]) -> Any:
    return commands.ask(_socket(options), command, arguments)


if __name__ == "__main__":
    sys.exit(main())
