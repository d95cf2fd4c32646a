"""The fabric of ``gcp-alias`` put together with the API and the metadata server in earnest."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from backends.cloud.steps import Call, Look
from backends.gcp.metadata import HOST, Metadata
from backends.gcp.remote import Remote


class Live:
    """Does what the fabric wants of the cloud; see `backends.cloud.errands`."""

    def __init__(self, metadata: Metadata, remote: Remote) -> None:
        self._metadata = metadata
        self._remote = remote

    def perform(self, step: Call | Look) -> Any:
        """The answer to *step*. `backends.cloud.failures.CloudError`: there is none."""
        if isinstance(step, Call):
            return self._remote.call(step)
        self._remote.reap()
        return self._metadata.look()


def metadata(environment: Mapping[str, str]) -> Metadata:
    """The metadata server, where *environment* says that it is, or at the usual place."""
    return Metadata(environment.get("GCE_METADATA_HOST") or HOST)


def token() -> str:
    """A new request id."""
    return str(uuid.uuid4())
