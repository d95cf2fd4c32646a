"""EC2 in earnest, by boto3: one attempt per call, and every failure told by what is known afterwards.

boto3 retries by itself unless it is told not to, also what is not idempotent. Credentials are its own affair: the
instance's role, a web identity, files, the environment. It renews those that say when they end; what it reads from a
file it keeps for good, so after credentials were refused the next call has a new client, which reads all anew. What
goes wrong before a request is sent went wrong where credentials come from: files that are not there, a program, a token
service, a clock by which they have ended already. Each raises errors of its own kind.

What stands before EC2 may answer in its stead, with pages of its own and whatever status: what is no answer of EC2's is
as good as none. botocore raises an error of its parser's for such a page, which is not of the kind of its others, or,
where the page happens to be XML, takes it for an answer that has nothing; EC2's always have the request's id.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import boto3
from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoRegionError, ParamValidationError
from botocore.parsers import ResponseParserError

from backends.aws.calls import NO_CREDENTIALS, failed, is_about_credentials
from backends.cloud.failures import CloudError, Lost, Refused
from backends.cloud.steps import Call

CONNECT: Final = 3.0
"""Seconds for a connection."""
READ: Final = 20.0
"""Seconds for an answer."""
_UNSURE: Final = 599
"""What stands for the status of an answer that never came."""
_RAW: Final = (OSError, RuntimeError, ValueError, LookupError)
"""What comes through botocore as it was raised, by what it has credentials from or what it makes of an answer."""
_SHOWN: Final = 300
"""Characters of an error: it may quote a whole page."""


class Ec2:
    """The API of *region*; None: of the region that the environment names.

    Where it is can be changed by AWS_ENDPOINT_URL_EC2, as for every AWS client.
    """

    def __init__(self, region: str | None) -> None:
        self._config = Config(
            region_name=region,
            retries={"total_max_attempts": 1},
            connect_timeout=CONNECT,
            read_timeout=READ,
            max_pool_connections=1,
            user_agent_extra="routable",
        )
        self._client: Any = None
        self._is_sent = False

    def call(self, call: Call) -> dict[str, Any]:
        """One call. Refused, Throttled, Lost: see there."""
        self._is_sent = False
        try:
            answer: dict[str, Any] = getattr(self._ready(), xform_name(call.action))(**call.parameters)
        except (NoRegionError, ParamValidationError) as error:
            raise Refused(call.action, type(error).__name__, str(error)) from error
        except (BotoCoreError, ClientError, ResponseParserError, *_RAW) as error:
            raise self._told(call.action, error) from error
        if "RequestId" not in answer.get("ResponseMetadata", {}):
            raise Lost(call.action, "NoAnswer", "what came is not of EC2, but of something that stands before it")
        return answer

    def _ready(self) -> Any:
        if self._client is None:
            self._client = boto3.session.Session().client("ec2", config=self._config)
            self._client.meta.events.register("before-send", self._sending)
        return self._client

    def _sending(self, **_: object) -> None:
        """boto3 has signed the request."""
        self._is_sent = True

    def _told(self, action: str, error: Exception) -> CloudError:
        """What is known after an *error*."""
        if not self._is_sent:
            self._client = None
            return Refused(action, NO_CREDENTIALS, f"{type(error).__name__}: {error}"[:_SHOWN])
        if not isinstance(error, ClientError):
            return Lost(action, type(error).__name__, str(error)[:_SHOWN])
        said: Mapping[str, Any] = error.response.get("Error", {})
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", _UNSURE)
        failure = failed(action, said.get("Code", ""), said.get("Message", ""), status)
        if is_about_credentials(failure):
            self._client = None
        return failure
