"""``routablectl``: what a person asks an agent, or does to a node without one."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import backends
from agent import commands
from agent.config import load as configuration
from agent.config.schema import Config, IpamTable, PathsTable
from agent.ctl import tables
from agent.process import terminal
from agent.process.machine import DEFAULT_CONFIG, exclusive, hostname, version
from backends.descriptor import Backend, Command
from cni.errors import Failure

INTERRUPTED: Final = 128 + signal.SIGINT
"""The exit code after Ctrl-C, as a shell has it."""
_LOOK: Final = 0.1
"""Seconds between looks at how far a change of backend is."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the answer is the process's exit code."""
    try:
        with terminal.forgiving():
            options = _parser().parse_args(arguments)
            return int(options.run(options))
    except Failure as failure:
        print(f"routablectl: {failure}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:  # what was asked of the agent goes on there
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="routablectl", description="Asks the agent of this node.")
    parser.add_argument("--config", metavar="FILE", default=DEFAULT_CONFIG, help="the agent's; default: %(default)s")
    parser.add_argument("--version", action="version", version=version())
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    status = commands.add_parser("status", help="backend, pool, leases, peers, problems and what was mended")
    status.add_argument("--json", action="store_true", help="everything, for programs")
    status.set_defaults(run=_status)
    ip = commands.add_parser("ip", help="who has an address, and who had it; or which a pod has and had")
    ip.add_argument("address", metavar="ADDRESS", help="an IP address, or a pod: NAMESPACE/NAME")
    ip.add_argument("--json", action="store_true", help="for programs")
    ip.set_defaults(run=_ip)
    switch = commands.add_parser(
        "switch",
        help="change the backend of this node under its running pods, and show how far that is",
        description="Programs the new way beside the old one, moves peer after peer, each probed before and after, and "
        "takes the old way away when all peers have moved here and there. No packet is lost, no pod is touched. Peers "
        "that are not ready stay on the old way and are tried again: switch them too, in any order. Set backend in "
        "the agent's configuration to the same afterwards.",
    )
    switch.add_argument("backend", metavar="BACKEND", choices=sorted(backends.BACKENDS), help="%(choices)s")
    switch.add_argument("--dry-run", action="store_true", help="show what would change, and change nothing")
    switch.add_argument("--force", action="store_true", help="move peers that do not answer, too: packets may be lost")
    switch.add_argument("--wait", type=float, metavar="SECONDS", default=0.0, help="for peers that are not ready")
    switch.add_argument("--json", action="store_true", help="for programs")
    switch.set_defaults(run=_switch)
    install = commands.add_parser("install", help="put the CNI executable into a runtime's directory")
    install.add_argument("directory", metavar="DIRECTORY", type=Path, help="such as /opt/cni/bin")
    install.set_defaults(run=_install)
    uninstall = commands.add_parser(
        "uninstall", help="remove all that is ours from the kernel; the agent must be stopped"
    )
    uninstall.add_argument("--yes", action="store_true", help="also while pods have addresses: they lose them")
    uninstall.set_defaults(run=_uninstall)
    for name in backends.BACKENDS:
        for command in backends.load(name).commands:
            one = commands.add_parser(command.name, help=command.help, description=command.description)
            command.arguments(one)
            one.set_defaults(run=partial(_command, backends.load(name), command))
    return parser


def _status(options: argparse.Namespace) -> int:
    document = _asked(options, commands.STATUS, {})
    print(json.dumps(document, indent=2) if options.json else _shown(document))  # noqa: T201
    return 0


def _shown(document: dict[str, Any]) -> str:
    """The *document* of an agent for people, with what the backends show of themselves: the one in use, or both on the
    way, and one that tells something, though it was left."""
    used = (document["backend"], document["switch"]["to"])
    telling = (name for name, table in backends.BACKENDS.items() if name in used or table in document)
    shown = [backends.load(name).show(document) for name in telling]
    return tables.status(document, time.time(), shown)


def _ip(options: argparse.Namespace) -> int:
    tenures = _asked(options, commands.IP, {"address": options.address})
    print(json.dumps(tenures, indent=2) if options.json else tables.history(options.address, tenures))  # noqa: T201
    return 0 if tenures else 1


def _switch(options: argparse.Namespace) -> int:
    """0: done; 3: some peers are not ready yet, and are tried again."""
    asked = {"backend": options.backend, "dry_run": options.dry_run, "force": options.force}
    document = _asked(options, commands.SWITCH, asked)
    if options.dry_run:
        print(json.dumps(document, indent=2) if options.json else tables.dry_run(document))  # noqa: T201
        return 0
    deadline = time.monotonic() + options.wait
    shown = ""
    while True:
        document = _asked(options, commands.PROGRESS, {})
        text = json.dumps(document) if options.json else tables.progress(document)
        if text != shown:
            print(text, flush=True)  # noqa: T201
            shown = text
        if document["phase"] == commands.AT_REST:
            return 0
        if document["rounds"] and time.monotonic() >= deadline:
            if not options.json:
                print(tables.left(document))  # noqa: T201
            return commands.NOT_READY
        time.sleep(_LOOK)


def _install(options: argparse.Namespace) -> int:
    from cni.install import install_with_what_is_here

    done = install_with_what_is_here(options.directory)
    print(f"{done.path}: {done.form} ({done.reason})")  # noqa: T201
    return 0


def _uninstall(options: argparse.Namespace) -> int:
    # Imported here: asking an agent needs none of it.
    from agent.ctl import uninstall

    config = _config(options)
    with exclusive(Path(config.paths.state)):
        for line in uninstall.uninstall(config, is_sure=options.yes):
            print(line)  # noqa: T201
    return 0


def _command(backend: Backend[Any], command: Command, options: argparse.Namespace) -> int:
    """A command of *backend*'s, with what the agent's configuration says of that, if there is one."""
    config = _config(options) if _has_config(options) else None
    table = config.of(backend) if config is not None else backend.table()
    return command.run(options, table, (config.ipam if config is not None else IpamTable()).cooldown)


def _config(options: argparse.Namespace) -> Config:
    return configuration.load(options.config, hostname=hostname(os.environ))


def _has_config(options: argparse.Namespace) -> bool:
    """Whether there is one to read: the usual one may be missing, one that was named may not."""
    return bool(options.config != DEFAULT_CONFIG or Path(DEFAULT_CONFIG).exists())


def _socket(options: argparse.Namespace) -> str:
    """The configuration's socket; the usual one on a node whose configuration is where the agent found none either."""
    return (_config(options).paths if _has_config(options) else PathsTable()).socket


def _asked(options: argparse.Namespace, command: str, arguments: dict[str, Any]) -> Any:
    return commands.ask(_socket(options), command, arguments)


if __name__ == "__main__":
    sys.exit(main())
