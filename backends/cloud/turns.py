"""The turns of a cloud's fabric: everything once, until something was done.

A part that may not go on now (the cloud throttles, refuses, or gives no answer) does not keep the others from it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final

from backends.cloud.asking import Later
from backends.cloud.failures import Lost, Refused
from backends.cloud.steps import Steps

log = logging.getLogger(__name__)

TICK: Final = 1.0
"""Seconds between looks at the pool, unless a pod waits."""
IDLE: Final = 10.0
"""Seconds between looks of one who is told of every change of the pool: time passes for what cools down and idles."""
SOONEST: Final = 0.05
"""Seconds between looks at least."""


def turn(parts: Iterable[Callable[[], Steps[bool]]], cloud: str, on_lost: Callable[[], None]) -> Steps[float]:
    """Each of *parts* says whether it did something; the answer is the seconds until there may be more to do. *on_lost*
    is told that the *cloud* gave no answer."""
    pause = IDLE
    for part in parts:
        try:
            if (yield from part()):
                return 0.0
        except Later as later:
            pause = max(SOONEST, min(pause, later.seconds))
        except Lost as error:
            log.warning("%s gave no answer", cloud, extra={"error": str(error)})
            on_lost()
        except Refused as error:
            log.error("%s refused", cloud, extra={"error": str(error)})
    return pause
