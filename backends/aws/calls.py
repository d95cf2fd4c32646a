"""What is asked of the cloud, as values, and how it can fail: by what is known afterwards.

Names, parameters and answers are those of the EC2 API, in boto3's shapes.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from backends.steps import Settle, Wait

T = TypeVar("T")

ASSIGN: Final = "AssignPrivateIpAddresses"
ASSIGN6: Final = "AssignIpv6Addresses"
UNASSIGN: Final = "UnassignPrivateIpAddresses"
CREATE: Final = "CreateNetworkInterface"
ATTACH: Final = "AttachNetworkInterface"
DETACH: Final = "DetachNetworkInterface"
DELETE: Final = "DeleteNetworkInterface"
MODIFY: Final = "ModifyNetworkInterfaceAttribute"
CREDENTIALS: Final = "credentials"
"""Stands for every action: without good ones nothing can be asked."""


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

    @property
    def is_credentials(self) -> bool:
        """Whether it is not about what was asked, but about who did."""
        return self.code in _CREDENTIALS


class Throttled(CloudError):
    """Too many calls, of this node or others of the account; nothing was done."""


class Lost(CloudError):
    """There was no answer, or an internal error: it may have been done, now or later, or not."""


_CREDENTIALS: Final = frozenset(
    (
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidClientTokenId",
        "NoCredentialsError",
        "RequestExpired",
        "UnrecognizedClientException",
    )
)
"""What is said of credentials that are not there, or not, or no longer, good."""
_THROTTLES: Final = frozenset(
    (
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "LimitExceededException",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionInProgressException",
    )
)
"""What the AWS SDKs take for throttling, in whatever service: botocore's tables of what it tries again."""
_TOO_MANY: Final = 429
"""The status that says so without a code (RFC 6585)."""
_UNKNOWN: Final = frozenset(("RequestTimeout", "RequestTimeoutException"))
"""What says that EC2 did not hear all of a request, with the status of an error of ours."""


def failed(action: str, code: str, message: str, status: int) -> CloudError:
    """What an error of the API means; *status* is the HTTP status of the answer."""
    if code in _THROTTLES or status == _TOO_MANY:
        return Throttled(action, code, message)
    return (Lost if status >= 500 or code in _UNKNOWN else Refused)(action, code, message)


def about(parameters: Mapping[str, Any]) -> str:
    """The id of what a call is about; '' where that is this instance, or nothing by itself."""
    if "InstanceId" in parameters:
        return ""
    for name in ("NetworkInterfaceId", "AttachmentId", "SubnetId", "InstanceTypes", "NetworkInterfaceIds", "SubnetIds"):
        if name in parameters:
            found = parameters[name]
            return found if isinstance(found, str) else " ".join(found)
    return ""
