"""What is asked of the cloud, as values, and how it can fail: by what is known afterwards.

Names, parameters and answers are those of the EC2 API, in boto3's shapes.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from backends.steps import Settle, Wait

T = TypeVar("T")


class Call(NamedTuple):
    """One call of the EC2 API; its answer is what boto3 would answer."""

    action: str
    parameters: Mapping[str, Any]


class Look(NamedTuple):
    """Read the instance metadata; the answer is a `backends.aws.model.Seen`."""


Step: TypeAlias = Call | Look | Settle | Wait
Steps: TypeAlias = Generator[Step, Any, T]
"""What yields steps, is sent their answers, or thrown their failures, and returns a T."""


class CloudError(Exception):
    """A call that did not succeed: *action* and *code* as the API names them, *message* its own words."""

    def __init__(self, action: str, code: str, message: str) -> None:
        super().__init__(action, code, message)
        self.action = action
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.action}: {self.code}: {self.message}"


class Refused(CloudError):
    """It was refused, and nothing was done."""


class Throttled(CloudError):
    """Too many calls, of this node or others of the account; nothing was done."""


class Lost(CloudError):
    """There was no answer, or an internal error: it may have been done, now or later, or not."""


_THROTTLES: Final = frozenset(("RequestLimitExceeded", "Throttling", "ThrottlingException", "TooManyRequestsException"))


def failed(action: str, code: str, message: str, status: int) -> CloudError:
    """What an error of the API means; *status* is the HTTP status of the answer."""
    if code in _THROTTLES:
        return Throttled(action, code, message)
    return (Lost if status >= 500 else Refused)(action, code, message)
