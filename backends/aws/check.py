"""What ``routable-agent --check`` looks at on an instance. Nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from backends.aws import live
from backends.cloud.failures import CloudError
from backends.verdict import Mark, Verdict
from cni.errors import Failure
from dataplane import uplink


def verdicts(environment: Mapping[str, str]) -> Iterator[Verdict]:
    """What the machine has of what a start needs; EC2 itself is not asked."""
    try:
        live.refuse_without_library()
        seen = live.metadata(environment).look()
    except Failure as failure:
        yield Verdict(Mark.WRONG, "library", str(failure))
        return
    except CloudError as error:
        remedy = "is this an instance on EC2 that may read its metadata (IMDSv2, hop limit 2 in a container)?"
        yield Verdict(Mark.WRONG, "metadata", f"{error}: {remedy}")
        return
    yield Verdict(Mark.GOOD, "metadata", f"{seen.instance}, {seen.type} in {seen.zone}, {len(seen.enis)} interfaces")
    try:
        links = uplink.by_mac()
    except Failure as failure:
        yield Verdict(Mark.WRONG, "uplink", str(failure))
        return
    for eni in seen.enis:
        if eni.is_primary and eni.mac not in links:
            why = f"no link here has the hardware address {eni.mac} of the primary interface {eni.id}"
            yield Verdict(Mark.WRONG, "uplink", f"{why}: run it in the node's own network namespace (hostNetwork)")
        elif eni.is_primary:
            yield Verdict(Mark.GOOD, "uplink", f"{links[eni.mac]}, the primary interface {eni.id}")
    yield Verdict(Mark.NOTE, "EC2", "is not asked: what it does not permit is told by routablectl status")
