"""Asking EC2 at a pace that thousands of nodes can keep; a call that fails says whether it may have been done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from backends.aws.calls import Call, Lost, Refused, Steps, Throttled
from backends.aws.pacing import Pacer


class Later(Exception):
    """It may not be asked now, but in *seconds*."""

    def __init__(self, action: str, seconds: float) -> None:
        super().__init__(f"{action} may be called in {seconds:.1f} s")
        self.seconds = seconds


class Cloud:
    """*clock* answers seconds; *calls* counts what was asked, by action and outcome."""

    def __init__(self, pacer: Pacer, clock: Callable[[], float]) -> None:
        self._pacer = pacer
        self._clock = clock
        self.calls: Counter[tuple[str, str]] = Counter()

    @property
    def is_silent(self) -> bool:
        """Whether it gives no answers."""
        return self._pacer.is_open

    def ready(self, action: str) -> None:
        """Later: *action* may not be called now."""
        seconds = self._pacer.delay(action, self._clock())
        if seconds > 0:
            raise Later(action, seconds)

    def ask(self, action: str, **parameters: Any) -> Steps[dict[str, Any]]:
        """One call, once. What fails is never asked again here: the caller knows whether it may have been done.

        Raises:
            Later: not now, and nothing was done. Refused: by EC2, and nothing was done. Lost: it is not known.
        """
        self.ready(action)
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
            raise
        self.calls[action, ""] += 1
        self._pacer.answered(action)
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
