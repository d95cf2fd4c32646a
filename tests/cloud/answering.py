"""A call to an emulated cloud, and what goes wrong with it whatever it asks."""

from __future__ import annotations

import copy
import threading
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from tests.cloud.fate import Fate, U
from tests.cloud.faults import Fault, Faults, Kinds
from tests.cloud.refusals import NoAnswer, Refusal

Parameters = dict[str, Any]


class Answering(Fate[U]):
    """Has every call answered by `answered`, or by a fault."""

    def __init__(self, clock: Callable[[], float], unkind: U) -> None:
        super().__init__(clock, unkind)
        self._lock = threading.RLock()
        self.took = 0.0
        """How long the last call's answer takes to come (seconds)."""
        self._faults = Faults(self, self.kinds)
        self.faults = self._faults.planned
        self.on_call: Callable[[bool], None] = lambda is_after: None
        """Called before each call is done, and after; it may raise NoAnswer."""
        self.calls: Counter[tuple[str, str]] = Counter()
        """By action and error code, '' for success."""

    def fail(self, action: str, nth: int, kind: str) -> Fault:
        """Have a call fail; see `Fault`."""
        fault = Fault(action, nth, kind)
        self.faults.append(fault)
        return fault

    def call(self, action: str, parameters: Mapping[str, Any], who: str = "an agent") -> dict[str, Any]:
        """One call of *who*'s. Refusal: an error of the API; NoAnswer: by a fault, and it may have been done.

        Any thread may.
        """
        with self._lock, self.by(who, action):
            return self._called(action, parameters)

    def _called(self, action: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        fault, self.took = self._faults.next(action), self.drawn(self.taking())
        errors = self.errors()
        try:
            self.on_call(False)
            if fault == "lost_before":
                raise NoAnswer
            if fault in errors:
                raise errors[fault]
            for _ in range(2 if fault == "twice" else 1):
                answer = self.answered(action, copy.deepcopy(dict(parameters)))
            if fault.removesuffix("_after") in errors:
                raise errors[fault.removesuffix("_after")]
        except Refusal as error:
            self.calls[action, error.code] += 1
            raise
        except NoAnswer:
            self.calls[action, "lost"] += 1
            raise
        self.calls[action, ""] += 1
        self.on_call(True)
        self.spoil(fault, answer)
        return answer

    def spoil(self, fault: str, answer: dict[str, Any]) -> None:
        """The call was done: NoAnswer, if the *answer* does not come."""
        if fault == "lost_after":
            raise NoAnswer

    @abstractmethod
    def answered(self, action: str, parameters: Parameters) -> dict[str, Any]:
        """What the cloud does and says."""

    @abstractmethod
    def errors(self) -> Mapping[str, Refusal]:
        """What a call may have for an answer whatever it asks, by kind."""

    @abstractmethod
    def kinds(self) -> Kinds:
        """What is drawn for a call, and with which chance."""

    @abstractmethod
    def taking(self) -> tuple[float, float]:
        """How long an answer takes."""
