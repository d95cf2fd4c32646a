"""Asking EC2 at a pace that thousands of nodes can keep; a call that fails says whether it may have been done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from backends.aws.calls import Call, Lost, Refused, Steps, Throttled, about
from backends.aws.obstacles import Obstacles
from backends.aws.pacing import Pacer


class Later(Exception):
    """It may not be asked now, but in *seconds*."""

    def __init__(self, action: str, seconds: float) -> None:
        super().__init__(f"{action} may be called in {seconds:.1f} s")
        self.seconds = seconds


class Cloud:
    """*clock* answers seconds; *calls* counts what was asked, by action and outcome. What was refused stands in
    *obstacles*, and is not asked again before its time."""

    def __init__(self, pacer: Pacer, obstacles: Obstacles, clock: Callable[[], float]) -> None:
        self._pacer = pacer
        self._obstacles = obstacles
        self._clock = clock
        self.calls: Counter[tuple[str, str]] = Counter()

    @property
    def is_silent(self) -> bool:
        """Whether it gives no answers."""
        return self._pacer.is_open

    def ready(self, action: str, about: str = "") -> None:
        """Later: *action* may not be called now, on the object *about*."""
        seconds = max(self._pacer.delay(action, self._clock()), self._obstacles.pause(action, about))
        if seconds > 0:
            raise Later(action, seconds)

    def ask(self, action: str, on: str = "", /, **parameters: Any) -> Steps[dict[str, Any]]:
        """One call, once; *on* is the object that it is about, where its parameters do not name that. What fails is
        never asked again here: the caller knows whether it may have been done.

        Raises:
            Later: not now, and nothing was done. Refused: by EC2, and nothing was done. Lost: it is not known.
        """
        it = on or about(parameters)
        self.ready(action, it)
        self._pacer.spend(action, self._clock())
        try:
            answer: dict[str, Any] = yield Call(action, parameters)
        except Throttled as error:
            self.calls[action, error.code] += 1
            self._pacer.throttled(action, self._clock())
            raise Later(action, self._pacer.delay(action, self._clock())) from error
        except Lost as error:
            self.calls[action, error.code] += 1
            self._pacer.lost(self._clock())
            raise
        except Refused as error:
            self.calls[action, error.code] += 1
            self._pacer.answered(action)
            self._obstacles.noticed(error, it)
            raise
        self.calls[action, ""] += 1
        self._pacer.answered(action)
        self._obstacles.passed(action, it)
        return answer

    def all(self, action: str, key: str, **parameters: Any) -> Steps[list[dict[str, Any]]]:
        """What every page of a Describe has under *key*."""
        found: list[dict[str, Any]] = []
        token: str | None = None
        while True:
            more = {"NextToken": token} if token else {}
            answer = yield from self.ask(action, **parameters, **more)
            found += answer[key]
            token = answer.get("NextToken")
            if not token:
                return found
