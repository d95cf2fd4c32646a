"""The fabric of ``aws-eni`` put together with EC2 and the instance metadata in earnest."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from backends.aws import limits
from backends.aws.fabric import EniFabric
from backends.aws.imds import ENDPOINT, Imds
from backends.aws.model import Limits, Seen
from backends.cloud.failures import CloudError, Lost
from backends.cloud.steps import Call, Look
from cni.errors import ConfigInvalid, FabricRefused


class Live:
    """Does what *fabric* wants of the cloud; see `backends.cloud.errands`. *environment* is the process's."""

    def __init__(self, fabric: EniFabric, environment: Mapping[str, str]) -> None:
        self.fabric = fabric
        self._imds = metadata(environment)
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


def metadata(environment: Mapping[str, str]) -> Imds:
    """The instance metadata, where *environment* says that it is, or at the usual place."""
    return Imds(environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or ENDPOINT)


def refuse_without_library() -> None:
    """Raise ConfigInvalid where boto3 is not installed: at the start, not at the first call."""
    if find_spec("boto3") is None:
        raise ConfigInvalid("the AWS library, boto3, is not installed", "install routable[aws], or boto3 beside it")


def limits_of(instance_type: str, region: str | None, *, is_asked: bool) -> Limits:
    """What *instance_type* can have: the built-in table's word, or EC2's if that has none or *is_asked*.

    Raises:
        ConfigInvalid: boto3 is not installed; FabricRefused: EC2 has no answer, and what to look at.
    """
    found = limits.known(instance_type)
    if found is not None and not is_asked:
        return found
    refuse_without_library()
    from backends.aws.ec2 import Ec2

    try:
        answer = Ec2(region).call(Call("DescribeInstanceTypes", {"InstanceTypes": [instance_type]}))
    except CloudError as error:
        remedy = "see that the name is right, and that this machine may ask EC2 (credentials, AWS_REGION or --region)"
        raise FabricRefused(f"what a {instance_type} can have is not known: {error}", remedy) from error
    return limits.described(answer)


def token() -> str:
    """A new ClientToken."""
    return str(uuid.uuid4())
