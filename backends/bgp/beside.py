"""``routablectl bgp run``: BIRD in a container, or a unit, of its own, beside the agent that tells it everything.

A container's end ends what runs in it, however it was started, so an agent in one cannot have BIRD outlive it. What
always holds: BIRD is never told to end by a signal, which it would pass on to its neighbours, and they would leave its
routes at once; it is killed, so that they wait for the next one (RFC 4724). Who means to take a node away drains it.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from typing import Final, NoReturn

from backends.bgp.files import files
from backends.bgp.process import line
from backends.bgp.table import BgpTable
from dataplane.learned import learned

_LOOK: Final = 0.2


class _Told(BaseException):
    """Somebody wants this process to end."""


def run(table: BgpTable, sleep: Callable[[float], None] = time.sleep) -> int:
    """Wait for what the agent has BIRD do, and be that; the answer is BIRD's exit code, 0 where it was ended from
    here."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    try:
        while not files(table).configuration.exists():
            sleep(_LOOK)
        words = [*line(table), *(["-R"] if learned() else [])]
        with subprocess.Popen(words, stdin=subprocess.DEVNULL) as bird:
            try:
                return bird.wait()
            finally:
                bird.kill()
    except _Told:
        return 0


def _end(number: int, frame: object) -> NoReturn:
    raise _Told
