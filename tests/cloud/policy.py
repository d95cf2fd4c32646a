"""What an IAM policy allows, for the few forms that ours has: enough to hold it to every call that an agent makes.

Which resources an action needs, and which condition keys these have, is what the Service Authorization Reference for
Amazon EC2 says. What is not understood is an error, so that no condition goes unnoticed.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from tests.cloud.region import Nic, Region

_OPERATORS: Mapping[str, Callable[[str, str], bool]] = {"StringEquals": operator.eq, "ArnLike": fnmatchcase}


class Resource(NamedTuple):
    """One that a call touches: *keys* are the condition keys that go with it."""

    arn: str
    keys: Mapping[str, str]


class Policy:
    """The *document*, with its placeholders filled in. *used* are the statements and actions that allowed something."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._statements = document["Statement"]
        self.used: set[tuple[str, str]] = set()

    @property
    def all(self) -> set[tuple[str, str]]:
        """Every statement's every action."""
        return {(one["Sid"], action) for one in self._statements for action in _texts(one["Action"])}

    def allows(self, action: str, resource: Resource) -> bool:
        """Whether a statement does."""
        found = False
        for one in self._statements:
            if one["Effect"] != "Allow" or one.keys() - {"Sid", "Effect", "Action", "Resource", "Condition"}:
                raise ValueError(f"a statement that is not understood: {one}")
            is_meant = f"ec2:{action}" in _texts(one["Action"])
            if is_meant and any(fnmatchcase(resource.arn, text) for text in _texts(one["Resource"])):
                conditions = one.get("Condition", {})
                if all(_holds(name, wanted, resource.keys) for name, wanted in conditions.items()):
                    self.used.add((one["Sid"], f"ec2:{action}"))
                    found = True
        return found


class Authority:
    """Has every call of *region* judged by *policy*: for `Region.authorize`."""

    def __init__(self, region: Region, policy: Policy) -> None:
        self._region = region
        self._policy = policy
        self.refused: list[str] = []

    def __call__(self, action: str, parameters: Mapping[str, Any]) -> bool:
        """Whether the call is allowed, for each resource that it touches."""
        refused = [
            f"{name} {resource}"
            for name, resource in self._needs(action, parameters)
            if not self._policy.allows(name, resource)
        ]
        self.refused += refused
        return not refused

    def _needs(self, action: str, parameters: Mapping[str, Any]) -> Iterator[tuple[str, Resource]]:
        if action.startswith("Describe"):
            yield action, Resource("*", {})
        elif action == "CreateNetworkInterface":
            tags = {tag["Key"]: tag["Value"] for one in parameters["TagSpecifications"] for tag in one["Tags"]}
            asked = {f"aws:RequestTag/{key}": value for key, value in tags.items()}
            vpc = {"ec2:Vpc": _arn("vpc", self._region.subnets[parameters["SubnetId"]].vpc)}
            yield action, Resource(_arn("network-interface", "*"), asked)
            yield action, Resource(_arn("subnet", parameters["SubnetId"]), vpc)
            for group in parameters["Groups"]:
                yield action, Resource(_arn("security-group", group), vpc)
            if tags:
                yield "CreateTags", Resource(_arn("network-interface", "*"), {"ec2:CreateAction": action, **asked})
        else:
            nic, instance = self._touched(parameters)
            yield action, Resource(_arn("network-interface", nic.id), _tagged(nic.tags))
            if action in ("AttachNetworkInterface", "DetachNetworkInterface", "ModifyNetworkInterfaceAttribute"):
                tags = self._region.instances[instance].tags
                yield action, Resource(_arn("instance", instance), _tagged(tags))
            for group in parameters.get("Groups", ()):
                yield action, Resource(_arn("security-group", group), {"ec2:Vpc": _arn("vpc", nic.subnet.vpc)})

    def _touched(self, parameters: Mapping[str, Any]) -> tuple[Nic, str]:
        """The interface, and the instance that it is or will be attached to."""
        name, attachment = parameters.get("NetworkInterfaceId"), parameters.get("AttachmentId")
        nics = self._region.nics.values()
        nic = next(
            one for one in nics if one.id == name or (one.attachment is not None and one.attachment.id == attachment)
        )
        held = nic.attachment.instance if nic.attachment is not None else ""
        return nic, parameters.get("InstanceId", held)


def _holds(name: str, wanted: Mapping[str, str], keys: Mapping[str, str]) -> bool:
    """Whether a condition does; a key that is not there makes it fail."""
    judge = _OPERATORS[name]
    return all(key in keys and judge(keys[key], value) for key, value in wanted.items())


def _tagged(tags: Mapping[str, str]) -> dict[str, str]:
    return {f"aws:ResourceTag/{key}": value for key, value in tags.items()}


def _arn(kind: str, name: str) -> str:
    return f"arn:aws:ec2:eu-west-1:123456789012:{kind}/{name}"


def _texts(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
