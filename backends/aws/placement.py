"""Where an interface is made and what guards it: subnets and security groups, by id, by tag, or the primary one's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backends.aws import model
from backends.aws.calls import pages
from backends.aws.model import Seen, Subnet
from backends.aws.options import EniOptions
from backends.cloud.asking import Cloud
from backends.cloud.steps import Steps


class Placement:
    """As *options* say. What has a tag is looked up each time: it may have been made a moment ago."""

    def __init__(self, options: EniOptions, cloud: Cloud) -> None:
        self._options = options
        self._cloud = cloud

    def subnets(self, seen: Seen) -> Steps[list[Subnet]]:
        """Those in the zone of *seen*, the most free addresses first."""
        options = self._options
        # By a filter: if one of them is no more, the others still are.
        wanted = [{"Name": "subnet-id", "Values": list(options.subnets or (seen.primary.subnet,))}]
        if not options.subnets and options.subnet_tags:
            wanted = _filters(options.subnet_tags, seen, {"availability-zone": seen.zone})
        answer = yield from self._cloud.ask("DescribeSubnets", Filters=wanted)
        here = [one for one in answer["Subnets"] if one.get("AvailabilityZone", seen.zone) == seen.zone]
        return model.subnets({"Subnets": here})

    def groups(self, seen: Seen) -> Steps[tuple[str, ...]]:
        """Their ids, in order; none: no group of the VPC has the tags, and EC2 would take the VPC's default one."""
        options = self._options
        if options.groups or not options.group_tags:
            return options.groups or seen.groups
        wanted = _filters(options.group_tags, seen, {})
        found = yield from pages(self._cloud, "DescribeSecurityGroups", "SecurityGroups", Filters=wanted)
        return tuple(sorted(one["GroupId"] for one in found))


def _filters(tags: Mapping[str, str], seen: Seen, more: Mapping[str, str]) -> list[dict[str, Any]]:
    """What has all *tags*, in the VPC: another VPC's subnets may have the same ones."""
    return model.filters({**{f"tag:{key}": value for key, value in tags.items()}, "vpc-id": seen.vpc, **more})
