"""What goes wrong with a call whatever it asks: planned by a test, or drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.cloud.fate import Fate, Switches
from tests.cloud.refusals import Refusal
from tests.cloud.throttling import throttled

HTML = "<html>\r\n<head><title>503 Service Temporarily Unavailable</title></head>\r\n<body></body>\r\n</html>\r\n"

ERRORS: Mapping[str, Refusal] = {
    "throttle": throttled(),
    "error500": Refusal("InternalError", "An internal error has occurred", 500),
    "error503": Refusal("Unavailable", "The service is unavailable. Please try again shortly.", 503),
    "html503": Refusal("503", "Service Unavailable", 503, page=("text/html", HTML)),
    "text500": Refusal("500", "Internal Server Error", 500, page=("text/plain", "Internal Server Error")),
    "empty502": Refusal("502", "Bad Gateway", 502, page=("text/plain", "")),
    "html200": Refusal("200", "OK", 200, page=("text/html", HTML)),
    "text200": Refusal("200", "OK", 200, page=("text/plain", "OK")),
    "empty200": Refusal("200", "OK", 200, page=("text/plain", "")),
    "expired": Refusal("RequestExpired", "Request has expired.", 400),
    "token": Refusal("ExpiredToken", "The security token included in the request is expired", 400),
    "auth": Refusal("AuthFailure", "AWS was not able to validate the provided access credentials", 401),
    "unsigned": Refusal("MissingAuthenticationToken", "Request is missing Authentication Token", 403),
    "denied": Refusal("UnauthorizedOperation", "You are not authorized to perform this operation.", 403),
}
"""By kind: the service's own, pages of what stands before it, and of credentials. "Error codes for the Amazon EC2 API"
(API Reference): common client errors and server errors."""

SERVER = ("error500", "error503", "html503", "text500", "empty502")
LOST = ("lost_before", "lost_after")


@dataclass(slots=True)
class Fault:
    """The *nth* call of *action* from now ('*': of any) fails.

    *kind* is one of `ERRORS` or such a one with "_after": it was done nevertheless; lost_before and lost_after: the
    connection breaks before the call comes or after it was done; or twice: it comes twice, and the second is answered.
    """

    action: str
    nth: int
    kind: str
    is_consumed: bool = False


Kinds = Sequence[tuple[float, Sequence[str]]]
"""Chances, and the kinds of fault of which one is drawn then."""


def kinds(unkind: Switches, server: Sequence[str], throttled: Sequence[str]) -> Kinds:
    """Those of every cloud, in the words of one."""
    after = [f"{one}_after" for one in server]
    return (
        (unkind.losing, LOST),
        (unkind.failing, (*server, *after)),
        (unkind.throttling, throttled),
        (unkind.doubling, ("twice",)),
    )


class Faults:
    """*planned* are a test's; *drawn* are those that the cloud's switches add."""

    def __init__(self, fate: Fate[Any], drawn: Callable[[], Kinds]) -> None:
        self._fate = fate
        self._kinds = drawn
        self.planned: list[Fault] = []

    def next(self, action: str) -> str:
        """The kind of fault that befalls this call; '': none."""
        found = ""
        for fault in self.planned:
            if not fault.is_consumed and fault.action in ("*", action):
                fault.nth -= 1
                if fault.nth <= 0:
                    fault.is_consumed = True
                    found = fault.kind
        return found or self._drawn()

    def _drawn(self) -> str:
        for chance, kinds in self._kinds():
            if chance and self._fate.chance() < chance:
                return kinds[int(self._fate.chance() * len(kinds))]
        return ""
