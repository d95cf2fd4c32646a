"""What ``routable-agent --check`` looks at on an instance. Nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from backends.cloud.failures import CloudError
from backends.gcp import live, remote
from backends.gcp.model import NIC
from backends.gcp.table import GcpTable
from backends.verdict import Mark, Verdict
from cni.errors import Failure
from dataplane import uplink
from dataplane.answered import answered


def verdicts(gcp: GcpTable, environment: Mapping[str, str]) -> Iterator[Verdict]:
    """What the machine has of what a start needs; the API itself is not asked."""
    try:
        if not gcp.fixed:
            remote.refuse_without_library()
            yield Verdict(Mark.GOOD, "library", f"{remote.LIBRARY} {remote.installed()}")
        seen = live.metadata(environment).look()
    except Failure as failure:
        yield Verdict(Mark.WRONG, "library", str(failure))
        return
    except CloudError as error:
        yield Verdict(Mark.WRONG, "metadata", f"{error}: is this a VM on Compute Engine?")
        return
    ranges = ", ".join(map(str, sorted(seen.blocks))) or "none yet"
    yield Verdict(Mark.GOOD, "metadata", f"{seen.name} in {seen.zone}, alias ranges: {ranges}")
    try:
        links, local = uplink.by_mac(), answered()
    except Failure as failure:
        yield Verdict(Mark.WRONG, "uplink", str(failure))
        return
    if seen.mac not in links:
        why = f"no link here has the hardware address {seen.mac} of {NIC}"
        yield Verdict(Mark.WRONG, "uplink", f"{why}: run it in the node's own network namespace (hostNetwork)")
    else:
        yield Verdict(Mark.GOOD, "uplink", f"{links[seen.mac]}, {NIC}")
    if local and gcp.guest_routes == "tell":
        shown = ", ".join(map(str, sorted(local)))
        why = f"the guest agent has the host answer for {shown}: pods there are not reached where there is any ip rule"
        yield Verdict(Mark.NOTE, "guest agent", f"{why}; set ip_aliases = false in instance_configs.cfg")
    if not gcp.fixed:
        yield Verdict(Mark.NOTE, "GCP", "is not asked: what it does not permit is told by routablectl status")
