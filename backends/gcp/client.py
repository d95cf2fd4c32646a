"""The Compute Engine API in earnest, by google-cloud-compute: one attempt per call, and every failure told by what is
known afterwards. Imported in the worker alone.

Traps of the library that are avoided here: it tries again what it takes for safe, for minutes, unless it is told not
to; the object that it follows an operation with does not know at which endpoint that was begun, so the plain calls are
made, and operations are asked for by a client of our own; it sends no list that is empty; and errors of the connection
reach us as those of the HTTP library below it. Credentials are its own affair: the metadata server's, a workload
identity, files. It renews those that say when they end; what it reads from a file it keeps, so after credentials were
refused the next call has new clients, which read all anew.

What stands before the API may answer in its stead, with pages of its own and whatever status: an error of the API's
always says why in a form of its own, an answer has what was asked for. What has not is as good as none.
"""

from __future__ import annotations

import json
from typing import Any, Final

import requests
from google.api_core.exceptions import GoogleAPICallError, GoogleAPIError
from google.auth.exceptions import GoogleAuthError
from google.cloud import compute_v1

from backends.cloud.failures import CloudError, Lost, Refused
from backends.gcp.calls import GET, NO_ANSWER, OPERATION, SUBNET, UPDATE, failed, is_about_credentials

TIMEOUT: Final = 20.0
"""Seconds for a connection, and for each part of an answer."""
_SHOWN: Final = 300
"""Characters of an error: it may quote a whole page."""
_HAS: Final = {GET: "networkInterfaces", UPDATE: "name", OPERATION: "status", SUBNET: "ipCidrRange"}
"""What every answer has that is one."""
_READ: Final = {
    GET: ("id", "name", "networkInterfaces"),
    UPDATE: ("name", "status", "error", "httpErrorStatusCode", "httpErrorMessage"),
    OPERATION: ("name", "status", "error", "httpErrorStatusCode", "httpErrorMessage"),
    SUBNET: ("name", "ipCidrRange", "secondaryIpRanges", "utilizationDetails"),
}
"""What is wanted of it: the rest may be large."""


class Compute:
    """The API at *endpoint*, a URL; '' for the usual one."""

    def __init__(self, endpoint: str = "") -> None:
        self._options = {"api_endpoint": endpoint} if endpoint else None
        self._clients: dict[type, Any] = {}

    def call(self, action: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """One call, once. Refused, Throttled, Lost: see there."""
        try:
            message = self._asked(action, parameters)
            answer: dict[str, Any] = json.loads(type(message).to_json(message, use_integers_for_enums=False))
        except GoogleAPICallError as error:
            raise self._known(_told(action, error)) from error
        except GoogleAuthError as error:
            # It is had before anything is asked.
            raise self._known(Refused(action, type(error).__name__, str(error)[:_SHOWN])) from error
        except (GoogleAPIError, requests.RequestException, OSError) as error:
            raise Lost(action, type(error).__name__, str(error)[:_SHOWN]) from error
        except Exception as error:
            # What it makes of a page that is no answer: errors of its parser's, of whatever kind.
            if not _is_of_parsing(error):
                raise
            raise Lost(action, NO_ANSWER, f"{type(error).__name__}: {error}"[:_SHOWN]) from error
        if not answer.get(_HAS[action]):
            raise Lost(action, NO_ANSWER, "what came is not of the API, but of something that stands before it")
        return {key: answer[key] for key in _READ[action] if key in answer}

    def _asked(self, action: str, parameters: dict[str, Any]) -> Any:
        once: dict[str, Any] = {"timeout": TIMEOUT, "retry": None}
        if action == GET:
            return self._of(compute_v1.InstancesClient).get(request=parameters, **once)
        if action == OPERATION:
            return self._of(compute_v1.ZoneOperationsClient).get(request=parameters, **once)
        if action == SUBNET:
            return self._of(compute_v1.SubnetworksClient).get(request=parameters, **once)
        name = "network_interface_resource"
        wanted = compute_v1.NetworkInterface.from_json(json.dumps(parameters[name]))
        request = {**parameters, name: wanted}
        return self._of(compute_v1.InstancesClient).update_network_interface_unary(request=request, **once)

    def _of(self, kind: type) -> Any:
        if kind not in self._clients:
            self._clients[kind] = kind(client_options=self._options)
        return self._clients[kind]

    def _known(self, error: CloudError) -> CloudError:
        if is_about_credentials(error):
            self._clients.clear()
        return error


def _told(action: str, error: GoogleAPICallError) -> CloudError:
    """What the API says; or something else, with the status of an error."""
    reasons = [one["reason"] for one in error.errors or () if isinstance(one, dict) and one.get("reason")]
    status = int(error.code or 0)
    if not reasons:
        return Lost(action, NO_ANSWER, f"{status}: {error.message}"[:_SHOWN])
    return failed(action, reasons[0], str(error.message)[:_SHOWN], status)


def _is_of_parsing(error: Exception) -> bool:
    return isinstance(error, ValueError) or type(error).__module__.startswith("google.protobuf")
