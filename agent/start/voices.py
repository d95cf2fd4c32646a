"""What the agent says to others by itself, as the tables [cni] and [kubernetes] have it: the parts that say it."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from agent.announce.directories import Directories
from agent.config.schema import Config
from agent.node.ledger import Ledger
from agent.process.life import Living
from agent.tell.status import Status
from agent.tell.trouble import Kind, Trouble
from cni import install
from cni.errors import Failure, Limited


@dataclass(frozen=True, slots=True)
class Voices:
    """The *parts* that speak, and of each kind what keeps it from that."""

    parts: Sequence[Living]
    problems: Sequence[tuple[Kind, Callable[[], Sequence[Failure]]]]

    def troubles(self) -> list[Trouble]:
        """What could not be said."""
        return [
            Trouble(kind, Limited(one.message, one.details)) for kind, found in self.problems for one in found()
        ]


def voices(
    config: Config,
    ledger: Ledger,
    status: Callable[[], Status],
    tell: Callable[[str], None],
    on_death: Callable[[str, BaseException], None],
) -> Voices:
    """What *config* wants said. *status* is asked when that is there, *tell* is told what was put right."""
    parts: list[Living] = []
    problems: list[tuple[Kind, Callable[[], Sequence[Failure]]]] = []
    if config.cni.conflist or config.cni.executables:
        directories = Directories(
            config.cni,
            can_serve=lambda: status().unable() is None,
            source=cache(partial(executable, Path(config.paths.state).parent / "bin")),
            journal=ledger,
            tell=tell,
            on_death=on_death,
            clock=time.monotonic,
        )
        parts.append(directories)
        problems.append((Kind.RUNTIME, lambda: directories.problems))
    return Voices(parts, problems)


def executable(scratch: Path) -> Path:
    """An executable of this version: the one that lies beside the agent, as in an image; else it is made in *scratch*.

    ConfigInvalid: it cannot be made."""
    beside = Path(sys.executable).parent / install.NAME
    if beside.is_file():
        return beside
    python = Path(getattr(sys, "_base_executable", sys.executable))
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    return install.install(scratch, python, compiler).path
