"""Asking a cloud at a pace that thousands of nodes can keep; a call that fails says whether it may have been done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from backends.cloud.failures import Lost, Refused, Throttled
from backends.cloud.pacing import Pacer
from backends.cloud.steps import Call, Steps


class Later(Exception):
    """It may not be asked now, but in *seconds*."""

    def __init__(self, action: str, seconds: float) -> None:
        super().__init__(f"{action} may be called in {seconds:.1f} s")
        self.seconds = seconds


class RefusalLog(Protocol):
    """Who remembers what was refused: `backends.cloud.obstacles`, with a cloud's own words."""

    def noticed(self, error: Refused, about: str) -> None:
        """A call on the object *about* was refused."""

    def passed(self, action: str, about: str) -> None:
        """A call was done."""

    def pause(self, action: str, *about: str) -> float:
        """Seconds until it may be tried again."""


class Cloud:
    """*clock* answers seconds, *about* the object that the parameters of a call name; *calls* counts what was asked, by
    action and outcome, *throttled* those that were too many, by action. What was refused is kept in *memory*, and is
    not asked again before its time."""

    def __init__(
        self,
        pacer: Pacer,
        memory: RefusalLog,
        clock: Callable[[], float],
        about: Callable[[Mapping[str, Any]], str],
    ) -> None:
        self._pacer = pacer
        self._memory = memory
        self._clock = clock
        self._about = about
        self._lost = ""
        self.calls: Counter[tuple[str, str]] = Counter()
        self.throttled: Counter[str] = Counter()

    @property
    def is_silent(self) -> bool:
        """Whether it gives no answers."""
        return self._pacer.is_open

    @property
    def silence(self) -> str:
        """What came instead of the last answer, if it *is_silent*; '' if not."""
        return self._lost if self.is_silent else ""

    def ready(self, action: str, about: str = "") -> None:
        """Later: *action* may not be called now, on the object *about*."""
        seconds = max(self._pacer.delay(action, self._clock()), self._memory.pause(action, about))
        if seconds > 0:
            raise Later(action, seconds)

    def ask(self, action: str, on: str = "", /, **parameters: Any) -> Steps[dict[str, Any]]:
        """One call, once; *on* is the object that it is about, where its parameters do not name that. What fails is
        never asked again here: the caller knows whether it may have been done.

        Raises:
            Later: not now, and nothing was done. Refused: by the cloud, and nothing was done. Lost: it is not known.
        """
        it = on or self._about(parameters)
        self.ready(action, it)
        self._pacer.spend(action, self._clock())
        try:
            answer: dict[str, Any] = yield Call(action, parameters)
        except Throttled as error:
            self.calls[action, error.code] += 1
            self.throttled[action] += 1
            self._pacer.throttled(action, self._clock())
            raise Later(action, self._pacer.delay(action, self._clock())) from error
        except Lost as error:
            self.calls[action, error.code] += 1
            self._pacer.lost(self._clock())
            self._lost = str(error)
            raise
        except Refused as error:
            self.calls[action, error.code] += 1
            self._pacer.answered(action)
            self._memory.noticed(error, it)
            raise
        self.calls[action, ""] += 1
        self._pacer.answered(action)
        self._memory.passed(action, it)
        return answer
