"""The fabric of ``aws-eni`` put together with EC2 and the instance metadata in earnest."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any

from backends.aws.calls import Call, Look, Lost
from backends.aws.fabric import Fabric
from backends.aws.imds import ENDPOINT, Imds
from backends.aws.model import Seen


class Live:
    """Does what *fabric* wants of the cloud; see `agent.errands`. *environment* is the process's."""

    def __init__(self, fabric: Fabric, environment: Mapping[str, str]) -> None:
        self.fabric = fabric
        self._imds = Imds(environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or ENDPOINT)
        self._call: Callable[[Call], dict[str, Any]] | None = None
        self._region = ""

    def perform(self, step: Call | Look) -> Any:
        """The answer to *step*. `backends.aws.calls.CloudError`: there is none."""
        if isinstance(step, Look):
            seen: Seen = self._imds.look()
            self._region = seen.region
            return seen
        if self._call is None:
            # Half a second and tens of megabytes, which nobody needs to wait for at the start.
            from backends.aws.ec2 import Ec2

            if not self._region:
                raise Lost(step.action, "NoRegion", "the instance metadata has not said yet where this is")
            self._call = Ec2(self._region).call
        return self._call(step)


def token() -> str:
    """A new ClientToken."""
    return str(uuid.uuid4())
