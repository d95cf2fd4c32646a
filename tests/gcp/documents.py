"""Errors as Google's APIs write them (cloud.google.com/apis/design/errors, and "Compute Engine errors")."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.cloud.refusals import NoAnswer, Refusal
from tests.gcp import unverified

STATUS: Mapping[int, str] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}
SERVICE = "compute.googleapis.com"


class Cut(NoAnswer):
    """All was done, and the *answer* does not come whole: half of it, or as no JSON."""

    def __init__(self, answer: Mapping[str, Any], is_half: bool) -> None:
        super().__init__()
        self.answer, self.is_half = answer, is_half


def refusal(
    status: int, reason: str, message: str, domain: str = "global", details: list[dict[str, Any]] | None = None
) -> Refusal:
    """An error of the API: its *reason* is the code."""
    error: dict[str, Any] = {"code": status, "message": message}
    error["errors"] = [{"message": message, "domain": domain, "reason": reason}]
    if status == 401:
        error["errors"][0] |= {"location": "Authorization", "locationType": "header"}
    if status == 412:
        error["errors"][0] |= {"location": "If-Match", "locationType": "header"}
    if status in STATUS:
        error["status"] = STATUS[status]
    if details:
        error["details"] = details
    text = json.dumps({"error": error}, indent=2)
    return Refusal(reason, message, status, page=("application/json; charset=UTF-8", text))


def page(status: int, kind: str, text: str) -> Refusal:
    """What somebody before the API says."""
    return Refusal(str(status), text[:40], status, page=(kind, text))


def invalid(field: str, value: str, why: str) -> Refusal:
    """A value that cannot be."""
    return refusal(400, "invalid", f"Invalid value for field 'resource.{field}': '{value}'. {why}")


def not_found(resource: str) -> Refusal:
    """There is none."""
    return refusal(404, "notFound", f"The resource '{resource}' was not found")


def stale() -> Refusal:
    """The fingerprint is an old one."""
    return refusal(412, "conditionNotMet", "Supplied fingerprint does not match current fingerprint.")


def not_ready(resource: str) -> Refusal:
    """Something else is under way there."""
    return refusal(400, "resourceNotReady", f"The resource '{resource}' is not ready")


def over_rate(metric: str = "Queries", project: str = "") -> Refusal:
    """More calls in this minute than the quota has ("Compute Engine rate quotas": 403, rateLimitExceeded)."""
    message = (
        f"Quota exceeded for quota metric '{metric}' and limit '{metric} per minute per region' of service "
        f"'{SERVICE}' for consumer 'project_number:{project}'."
    )
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "RATE_LIMIT_EXCEEDED"}]
    return refusal(403, "rateLimitExceeded", message, "usageLimits", details)


def over_operations() -> Refusal:
    """Too many operations at once ("Concurrent operation quotas")."""
    info = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "CONCURRENT_OPERATIONS_QUOTA_EXCEEDED",
        "domain": SERVICE,
        "metadatas": {"containerType": "PROJECT"},
    }
    return refusal(403, "rateLimitExceeded", "Rate Limit Exceeded", "usageLimits", [info])


def too_often() -> Refusal:
    """The same resource is changed too often."""
    code, status = unverified.TOO_OFTEN
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": code, "domain": SERVICE}
    return refusal(status, "rateLimitExceeded", "Operation rate exceeded for resource.", "usageLimits", [info])


def forbidden(permission: str, resource: str) -> Refusal:
    """Not allowed by IAM."""
    return refusal(403, "forbidden", f"Required '{permission}' permission for '{resource}'")


def narrow() -> Refusal:
    """The token has not the scope: a machine's access scopes are narrower than its account's roles ("Service accounts",
    Access scopes)."""
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "ACCESS_TOKEN_SCOPE_INSUFFICIENT"}
    message = "Request had insufficient authentication scopes."
    return refusal(403, "insufficientPermissions", message, details=[info])


def disabled(project: str) -> Refusal:
    """Nobody has switched the API on in the project."""
    message = f"Compute Engine API has not been used in project {project} before or it is disabled."
    return refusal(403, "accessNotConfigured", message, "usageLimits")


def unauthenticated() -> Refusal:
    """No token, or none that is (still) good."""
    message = (
        "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid "
        "authentication credential."
    )
    return refusal(401, "authError", message)


HTML = "<!DOCTYPE html>\n<html lang=en>\n<title>Error 502 (Server Error)!!1</title>\n<p><b>502.</b> That’s an error.\n"
ERRORS: Mapping[str, Refusal] = {
    "throttle": over_rate(),
    "operations": over_operations(),
    "often": too_often(),
    "error500": refusal(500, "backendError", "Internal error encountered."),
    "error503": refusal(503, "backendError", "Service is currently unavailable."),
    "html502": page(502, "text/html; charset=UTF-8", HTML),
    "text500": page(500, "text/plain", "Internal Server Error"),
    "empty502": page(502, "text/plain", ""),
    "html200": page(200, "text/html; charset=UTF-8", HTML),
    "empty200": page(200, "application/json", ""),
    "object200": page(200, "application/json; charset=UTF-8", '{"hello": 1}'),
    "denied": forbidden("compute.instances.get", "projects/somewhat"),
    "unauthenticated": unauthenticated(),
    "narrow": narrow(),
    "disabled": disabled("123456789012"),
}
"""What a call may have for an answer whatever it asks, by kind."""

SERVER = ("error500", "error503", "html502", "text500", "empty502")
THROTTLED = ("throttle", "operations", "often")
CUT = ("half", "mangled")
