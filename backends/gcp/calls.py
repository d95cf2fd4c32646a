"""The calls of the Compute Engine API by name, and what the codes of its errors mean. Pure.

Names are the API's; parameters are those of the client's requests, answers the API's JSON, as far as it is read.

Where the API has not said by the HTTP status what is wrong, it does in the operation, by codes of another spelling; so
all are compared as `word` makes them. Which codes there are was read in its documentation and its clients, and not
measured: what is not known here is a refusal like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from backends.cloud.failures import CloudError, Lost, Refused, Throttled

GET: Final = "instances.get"
UPDATE: Final = "instances.updateNetworkInterface"
OPERATION: Final = "zoneOperations.get"
SUBNET: Final = "subnetworks.get"

CAPACITY: Final = 5.0
"""Calls of one action that a node makes at once: the project's quota is shared by all nodes of a region."""
REFILL: Final = 0.5
"""Calls of one action per second, in the long run."""

NO_ANSWER: Final = "NoAnswer"
"""What is said where something else than the API answered, or nothing."""
_TOO_MANY: Final = 429
_GONE_BY: Final = 412
"""The status that says that what was named by its fingerprint is not so any more (RFC 9110)."""
_UNAUTHENTICATED: Final = 401

_STALE: Final = frozenset(("conditionnotmet",))
_THROTTLES: Final = frozenset(
    (
        "concurrentoperationsquotaexceeded",
        "operationquotaexceeded",
        "ratelimitexceeded",
        "resourceoperationrateexceeded",
        "toomanyrequests",
        "userratelimitexceeded",
    )
)
_FULL: Final = frozenset(("ipspaceexhausted", "ipspaceexhaustedwithdetails", "ipresourceexhausted"))
_TAKEN: Final = frozenset(("ipinusebyanotherresource", "resourceinusebyanotherresource", "resourcenotready"))
_INTERNAL: Final = frozenset(("500", "502", "503", "504", "backenderror", "internalerror"))
_TOO_MANY_RANGES: Final = "too many alias ip ranges"
_INVALID: Final = frozenset(("badrequest", "invalid", "invalidfieldvalue", "invalidusage"))
_LIMITED: Final = frozenset(("limitexceeded", "aliasiprangelimitexceeded"))
_QUOTA: Final = "quotaexceeded"
_CREDENTIALS: Final = frozenset(
    (
        "autherror",
        "defaultcredentialserror",
        "invalidcredentials",
        "malformederror",
        "oautherror",
        "refresherror",
        "transporterror",
        "unauthenticated",
    )
)


def word(code: str) -> str:
    """*code* as it is compared: conditionNotMet and CONDITION_NOT_MET are one."""
    return "".join(one for one in code.lower() if one.isalnum())


def failed(action: str, code: str, message: str, status: int = 0) -> CloudError:
    """What an error of the API means; *status* is the HTTP status of the answer, 0 where it is an operation's."""
    if word(code) in _THROTTLES or status == _TOO_MANY:
        return Throttled(action, code, message)
    return (Lost if status >= 500 else Refused)(action, code, message)


def is_stale(error: CloudError) -> bool:
    """Whether the interface is not as it was when it was looked at."""
    return word(error.code) in _STALE or error.code == str(_GONE_BY)


def is_full(error: CloudError) -> bool:
    """Whether the range has not as many addresses as were asked for."""
    return word(error.code) in _FULL


def is_invalid(error: CloudError) -> bool:
    """Whether this very call cannot be: another may."""
    return word(error.code) in _INVALID


def is_limited(error: CloudError) -> bool:
    """Whether the interface takes no more ranges."""
    return word(error.code) in _LIMITED or (word(error.code) == "invalid" and _TOO_MANY_RANGES in error.message.lower())


def is_over_quota(error: CloudError) -> bool:
    """Whether all the VPC network's interfaces together take no more ranges."""
    return word(error.code) == _QUOTA


def is_taken(error: CloudError) -> bool:
    """Whether somebody else was faster: the API chose what another was given meanwhile, or the machine is busy."""
    return word(error.code) in _TAKEN


def is_internal(error: CloudError) -> bool:
    """Whether it was Google's own trouble: the same may do in a while."""
    return word(error.code) in _INTERNAL


def is_plain(error: CloudError) -> bool:
    """Whether an operation that failed by it has done nothing: any other error may be of after the change."""
    return any(says(error) for says in (is_stale, is_full, is_limited, is_over_quota, is_taken))


def is_about_credentials(error: CloudError) -> bool:
    """Whether what was refused is not what was asked, but who did."""
    return isinstance(error, Refused) and (word(error.code) in _CREDENTIALS or error.code == str(_UNAUTHENTICATED))


def is_missing(error: CloudError) -> bool:
    """Whether what was asked about is not there."""
    return word(error.code) in ("notfound", "404")


def about(parameters: Mapping[str, Any]) -> str:
    """What a call is about, where that is not this machine; '' where it is."""
    return str(parameters.get("operation") or parameters.get("subnetwork") or "")
