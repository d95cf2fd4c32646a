"""What the Compute Engine API and the metadata server say, as values. Pure.

The shapes read here are the API's own JSON.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from netaddr import IPAddress, IPNetwork

NIC: Final = "nic0"
"""The interface that a machine was started with: the VPC routes alias ranges to that one by itself."""


class Range(NamedTuple):
    """An alias range of the interface: *cidr*, out of the subnet's secondary range of that *name*; '' its primary."""

    cidr: IPNetwork
    name: str = ""


@dataclass(frozen=True, slots=True)
class Interface:
    """What the API says of `NIC`: whoever changes it must name the *fingerprint* of what he saw; *subnetwork* is the
    URL of its subnet."""

    fingerprint: str
    ranges: tuple[Range, ...]
    subnetwork: str = ""

    @property
    def blocks(self) -> frozenset[IPNetwork]:
        """The ranges alone."""
        return frozenset(one.cidr for one in self.ranges)

    def but(self, blocks: Collection[IPNetwork]) -> tuple[str, ...]:
        """The ranges that are not of *blocks*, each as "CIDR name"."""
        return tuple(f"{one.cidr} {one.name}" for one in self.ranges if one.cidr not in blocks)


class Operation(NamedTuple):
    """A change that was taken on, by its *name*: it has ended if it *is_done*, and failed if it has a *code*."""

    name: str
    is_done: bool
    code: str = ""
    message: str = ""


class Seen(NamedTuple):
    """What the metadata server says: it lags behind the API by seconds."""

    instance: str
    """The machine's id, which no other one ever has."""
    name: str
    project: str
    zone: str
    address: IPAddress
    """The node's own."""
    mac: str
    mtu: int
    subnet: IPNetwork
    """The primary range of its subnet."""
    blocks: frozenset[IPNetwork]
    """The alias ranges."""

    @property
    def where(self) -> dict[str, str]:
        """The machine, as calls name it."""
        return {"project": self.project, "zone": self.zone, "instance": self.name}


class Room(NamedTuple):
    """The range that pods' addresses come from, *cidr*, and how many addresses of it are *free*; None: nobody says."""

    cidr: IPNetwork
    free: int | None


def interface(answer: Mapping[str, Any]) -> Interface:
    """What instances.get answers. LookupError: it has no such interface."""
    found = next((one for one in answer.get("networkInterfaces", ()) if one.get("name") == NIC), None)
    if found is None:
        raise LookupError(f"the instance has no interface {NIC}")
    ranges = (
        Range(IPNetwork(one["ipCidrRange"]), one.get("subnetworkRangeName", ""))
        for one in found.get("aliasIpRanges", ())
    )
    return Interface(found.get("fingerprint", ""), tuple(ranges), found.get("subnetwork", ""))


def operation(answer: Mapping[str, Any]) -> Operation:
    """What a change, and zoneOperations.get, answers."""
    errors = answer.get("error", {}).get("errors", ())
    first = errors[0] if errors else {}
    code, message = first.get("code", ""), first.get("message", "")
    if not errors and answer.get("httpErrorStatusCode", 0):
        code = str(answer["httpErrorStatusCode"])
        message = answer.get("httpErrorMessage", "")
    return Operation(answer.get("name", ""), answer.get("status") == "DONE", code, message)


def room(answer: Mapping[str, Any], name: str) -> Room | None:
    """What subnetworks.get answers, of the range of that *name*; None: it has none."""
    found = answer.get("ipCidrRange", "") if not name else _secondary(answer, name)
    if not found:
        return None
    used = answer.get("utilizationDetails", {}).get("ipv4Utilizations", ())
    # The primary range's has no name.
    free = (one.get("totalFreeIp") for one in used if one.get("rangeName", "") == name)
    known = next(free, None)
    return Room(IPNetwork(found), int(known) if known is not None else None)


def _secondary(answer: Mapping[str, Any], name: str) -> str:
    ranges: Iterable[Mapping[str, str]] = answer.get("secondaryIpRanges", ())
    return next((one["ipCidrRange"] for one in ranges if one["rangeName"] == name), "")


def body(fingerprint: str, ranges: Iterable[Range], more: Iterable[tuple[str, str]] = ()) -> dict[str, Any]:
    """The whole list that an interface shall have, and what it must be like before; *more* are asked for by their
    length alone, such as "/28", and by the name of the range that they shall be of."""
    wanted = [*((str(one.cidr), one.name) for one in ranges), *more]
    return {
        "fingerprint": fingerprint,
        "aliasIpRanges": [
            {"ipCidrRange": cidr} | ({"subnetworkRangeName": name} if name else {}) for cidr, name in wanted
        ],
    }


def subnet_of(url: str) -> dict[str, str]:
    """Project, region and name of the subnet at *url*, as calls name it. ValueError: it names none."""
    words = url.split("/")
    try:
        at = [words.index(one) + 1 for one in ("projects", "regions", "subnetworks")]
        return dict(zip(("project", "region", "subnetwork"), (words[one] for one in at), strict=True))
    except (ValueError, IndexError) as error:
        raise ValueError(f"{url!r} names no subnet") from error
