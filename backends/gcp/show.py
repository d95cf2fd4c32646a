"""What ``routablectl status`` prints of ``gcp-alias``. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backends.cloud import report
from backends.told import Shown


def shown(sections: Mapping[str, Any]) -> Shown:
    """See `backends.descriptor.Backend.show`: the cloud's lines, and what is to be known of the ranges."""
    gcp = sections.get("gcp")
    if not gcp:
        return report.shown(sections)
    lines = [f"  {len(gcp['ranges'])} of {gcp['most']} alias ranges"]
    if gcp["not_for_pods"]:
        lines.append(f"  not for pods: {', '.join(gcp['not_for_pods'])}")
    if gcp["answered_by_host"]:
        ranges = ", ".join(gcp["answered_by_host"])
        lines.append(
            f"  the guest agent has the host answer for {ranges}: with any ip rule pods there are not reached; "
            "set ip_aliases = false in instance_configs.cfg, or gcp.guest_routes = \"override\""
        )
    return Shown([*report.shown(sections).lines, *lines])
