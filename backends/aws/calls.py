"""The calls of the EC2 API by name, what each is about, and what the codes of its errors mean. Pure.

Names, parameters and answers are those of the API, in boto3's shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from backends.cloud.asking import Cloud
from backends.cloud.failures import CloudError, Lost, Refused, Throttled
from backends.cloud.steps import Steps

ASSIGN: Final = "AssignPrivateIpAddresses"
ASSIGN6: Final = "AssignIpv6Addresses"
UNASSIGN: Final = "UnassignPrivateIpAddresses"
CREATE: Final = "CreateNetworkInterface"
ATTACH: Final = "AttachNetworkInterface"
DETACH: Final = "DetachNetworkInterface"
DELETE: Final = "DeleteNetworkInterface"
MODIFY: Final = "ModifyNetworkInterfaceAttribute"

CAPACITY: Final = 10.0
"""Calls of one action that a node makes at once: EC2's own buckets are shared by all that use the account there."""
REFILL: Final = 0.5
"""Calls of one action per second, in the long run."""
NO_CREDENTIALS: Final = "NoCredentialsError"
"""boto3's word for it, and what we say for whatever keeps it from having any."""
_CREDENTIALS: Final = frozenset(
    (
        NO_CREDENTIALS,
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    )
)
"""What is said of credentials that are not there, or not, or no longer, good; or by a machine whose clock is wrong."""
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


def is_about_credentials(error: CloudError) -> bool:
    """Whether what was refused is not what was asked, but who did."""
    return isinstance(error, Refused) and error.code in _CREDENTIALS


def about(parameters: Mapping[str, Any]) -> str:
    """The id of what a call is about; '' where that is this instance, or nothing by itself."""
    if "InstanceId" in parameters:
        return ""
    for name in ("NetworkInterfaceId", "AttachmentId", "SubnetId", "InstanceTypes", "NetworkInterfaceIds", "SubnetIds"):
        if name in parameters:
            found = parameters[name]
            return found if isinstance(found, str) else " ".join(found)
    return ""


def pages(cloud: Cloud, action: str, key: str, **parameters: Any) -> Steps[list[dict[str, Any]]]:
    """What every page of a Describe has under *key*."""
    found: list[dict[str, Any]] = []
    token: str | None = None
    while True:
        more = {"NextToken": token} if token else {}
        answer = yield from cloud.ask(action, **parameters, **more)
        found += answer[key]
        token = answer.get("NextToken")
        if not token:
            return found
