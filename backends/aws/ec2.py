"""EC2 in earnest, by boto3: one attempt per call, and every failure told by what is known afterwards.

boto3 retries by itself unless it is told not to, also what is not idempotent. Credentials are its own affair: the
instance's role, a web identity, files, the environment; they are renewed without a restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, ParamValidationError

from backends.aws.calls import Call, Lost, Refused, failed

CONNECT: Final = 3.0
"""Seconds for a connection."""
READ: Final = 20.0
"""Seconds for an answer."""
_UNSURE: Final = 599
"""What stands for the status of an answer that never came."""


class Ec2:
    """The API of *region*; None: of the region that the environment names.

    Where it is can be changed by AWS_ENDPOINT_URL_EC2, as for every AWS client. Refused: no client can be made, for
    example since no region is named.
    """

    def __init__(self, region: str | None) -> None:
        config = Config(
            region_name=region,
            retries={"total_max_attempts": 1},
            connect_timeout=CONNECT,
            read_timeout=READ,
            max_pool_connections=1,
            user_agent_extra="routable",
        )
        try:
            self._client = boto3.session.Session().client("ec2", config=config)
        except BotoCoreError as error:
            raise Refused("EC2", type(error).__name__, str(error)) from error

    def call(self, call: Call) -> dict[str, Any]:
        """One call. Refused, Throttled, Lost: see there."""
        method = getattr(self._client, self._methods[call.action])
        try:
            answer: dict[str, Any] = method(**call.parameters)
        except ClientError as error:
            said: Mapping[str, Any] = error.response.get("Error", {})
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", _UNSURE)
            raise failed(call.action, said.get("Code", ""), said.get("Message", ""), status) from error
        except (NoCredentialsError, ParamValidationError) as error:
            raise Refused(call.action, type(error).__name__, str(error)) from error
        except BotoCoreError as error:
            raise Lost(call.action, type(error).__name__, str(error)) from error
        return answer

    @property
    def _methods(self) -> Mapping[str, str]:
        names: Mapping[str, str] = self._client.meta.method_to_api_mapping
        return {action: method for method, action in names.items()}
