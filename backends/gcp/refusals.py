"""What the API refuses, as `backends.cloud.obstacles`: by its codes, in words for whoever has to act. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from backends.cloud.failures import CloudError, Refused
from backends.cloud.obstacles import AT_ONCE, CREDENTIALS, FOR_NOW, SOON, SOONEST, Obstacles
from backends.gcp.calls import (
    GET,
    OPERATION,
    SUBNET,
    UPDATE,
    is_about_credentials,
    is_full,
    is_internal,
    is_invalid,
    is_limited,
    is_missing,
    is_over_quota,
    is_stale,
    is_taken,
    word,
)
from backends.gcp.model import Room
from cni.errors import Exhausted, FabricRefused, TryAgain

GROW: Final = "grow"
"""Stands for more ranges, where `UPDATE` itself is not refused."""
LIMITED: Final = 600.0
"""Seconds until more ranges are tried again, where the interface took no more."""
_ROLE: Final = "; see deploy/gcp-alias-role.yaml, and the VM's access scopes"
_REMEDIES: Final[Mapping[str, str]] = {
    "403": _ROLE,
    "forbidden": _ROLE,
    "permissiondenied": _ROLE,
    "insufficientpermissions": "; give the VM the access scope cloud-platform, or compute, which its roles then narrow",
    "accessnotconfigured": "; enable compute.googleapis.com in the project",
}
"""What to do about a refusal, by its code."""


class Refusals(Obstacles):
    """*clock* answers seconds, *random* numbers from 0 to 1."""

    def __init__(self, clock: Callable[[], float], random: Callable[[], float] = lambda: 1.0) -> None:
        growth = (CREDENTIALS, UPDATE, GROW, GET, OPERATION)
        super().__init__(clock, random, wider={GROW: UPDATE}, growth=growth, last=SUBNET)

    def noticed(self, error: Refused, about: str) -> None:
        """The API refused a call, or an operation failed: with every refusal."""
        said = _said(error)
        if is_about_credentials(error):
            why = FabricRefused("GCP does not accept this node's credentials", f"{said}; see the VM's service account")
            self.put(CREDENTIALS, "", SOON, why, error.code, SOONEST)
        elif is_stale(error) or is_full(error) or is_limited(error) or is_over_quota(error):
            return  # a way around it is known to who asked
        elif is_taken(error):
            self.put(UPDATE, "", SOON, TryAgain("GCP has something else to do with this VM", said), error.code)
        elif is_internal(error):
            self.put(UPDATE, "", FOR_NOW, TryAgain("GCP could not do it", said), error.code)
        elif not (is_missing(error) and error.action == OPERATION):
            pause = AT_ONCE if is_invalid(error) else FOR_NOW
            why = FabricRefused(f"GCP refused {error.action}", said + _REMEDIES.get(word(error.code), ""))
            self.put(error.action, about, pause, why, error.code)

    def busy(self, error: CloudError) -> None:
        """Too much is going on in the project, or with this machine."""
        self.put(UPDATE, "", SOON, TryAgain("GCP has too much to do", _said(error)), error.code)

    def full(self, error: Refused, name: str, size: int, room: Room | None) -> None:
        """There is not even one range of *size* addresses left in the one of that *name*, of which *room* is known."""
        length = 33 - size.bit_length()
        which = f"secondary range {name}" if name else "the subnet's primary range"
        if room is not None:
            free = f", of which {room.free} are free" if room.free is not None else ""
            which += f" ({room.cidr}, {room.cidr.size} addresses{free})"
        remedy = "; give the subnet another secondary range (gcp.range), or ask for smaller ranges (gcp.prefix)"
        why = Exhausted(f"no /{length} is left in {which}", _said(error) + remedy)
        self.put(GROW, "", FOR_NOW, why, error.code)

    def limited(self, error: Refused, ranges: int) -> None:
        """The interface takes no more than so many ranges."""
        remedy = "; if this project allows no more, say so in gcp.max_ranges: larger ranges are asked for then"
        why = Exhausted(f"the interface takes no more than {ranges} ranges", _said(error) + remedy)
        self.put(GROW, "", LIMITED, why, error.code)

    def over_quota(self, error: Refused) -> None:
        """All nodes of the VPC network together have as many ranges as the project may have there."""
        remedy = (
            "; ask for a higher quota of IP aliases per VPC network, which counts ranges, whatever their size; or let "
            "those of all nodes be larger (gcp.prefix)"
        )
        why = Exhausted("the VPC network may have no more alias ranges", _said(error) + remedy)
        self.put(GROW, "", FOR_NOW, why, error.code)


def _said(error: CloudError) -> str:
    return f"GCP says {error.code}: {error.message}"
