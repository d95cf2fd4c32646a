"""What is shown of an interface: as it is, or as it was a while ago."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.cloud.past import Past
from tests.cloud.world import Nic, World

Row = dict[str, Any]


class Shown:
    """The interfaces of *world* as they were: for how many seconds says *kept*."""

    def __init__(self, world: World, kept: Callable[[], float]) -> None:
        self._world = world
        self._kept = kept
        self._past: Past[tuple[float, Row | None]] = Past()
        world.on_change = self.note

    def names(self) -> list[str]:
        """Of every interface that there is, or was not long ago."""
        return self._past.names()

    def note(self, nic: Nic, when: float | None = None) -> None:
        """It changed, now or then."""
        now = self._world.clock()
        shown = rendered(self._world, nic) if nic.id in self._world.nics else None
        ready = nic.attachment.ready if nic.attachment is not None else now
        self._past.put(nic.id, now if when is None else when, (ready, shown), now - self._kept())

    def as_of(self, name: str, ago: float) -> Row | None:
        """As it was so many seconds ago; None: there was none."""
        nic = self._world.nics.get(name)
        if nic is not None:
            self._world.settled(nic)
        if not ago:
            return rendered(self._world, nic) if nic is not None else None
        then = self._world.clock() - ago
        found = self._past.at(name, then)
        if found is None:
            return None
        ready, shown = found
        if shown is not None and then >= ready and shown.get("Attachment", {}).get("Status") == "attaching":
            return {**shown, "Attachment": {**shown["Attachment"], "Status": "attached"}}
        return shown


def rendered(world: World, nic: Nic) -> Row:
    """As EC2's NetworkInterface."""
    own = {"PrivateIpAddress": str(nic.address), "Primary": True}
    four = [one for one in nic.blocks if one.version == 4]
    singles = [{"PrivateIpAddress": str(one.ip), "Primary": False} for one in four if one.prefixlen == 32]
    shown: Row = {
        "NetworkInterfaceId": nic.id,
        "MacAddress": nic.mac,
        "SubnetId": nic.subnet.id,
        "VpcId": nic.subnet.vpc,
        "AvailabilityZone": nic.subnet.zone,
        "Description": nic.description,
        **({"PrivateIpAddress": str(nic.address)} if nic.has_four else {}),
        "PrivateIpAddresses": [own, *singles] if nic.has_four else singles,
        "Ipv4Prefixes": [{"Ipv4Prefix": str(one)} for one in four if one.prefixlen == 28],
        "Ipv6Prefixes": [{"Ipv6Prefix": str(one)} for one in nic.blocks if one.version == 6],
        "Groups": [{"GroupId": one, "GroupName": one} for one in nic.groups],
        "TagSet": [{"Key": key, "Value": value} for key, value in nic.tags.items()],
        "Status": "available",
    }
    held = nic.attachment
    if held is not None:
        status = "attached" if world.clock() >= held.ready else "attaching"
        shown["Status"] = "in-use"
        shown["Attachment"] = {
            "AttachmentId": held.id,
            "InstanceId": held.instance,
            "DeviceIndex": held.index,
            "NetworkCardIndex": held.card,
            "DeleteOnTermination": held.goes,
            "Status": "detaching" if held.until is not None else status,
        }
    return shown
