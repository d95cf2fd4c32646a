"""The changes of the cloud, each from the intent in the journal to its end, and going on with one that was cut off.

What always holds: an interface that was made is attached or deleted, whatever happens between; a call that is not
idempotent is never made again before EC2 has shown what the first one did; a block is taken away only when nobody can
be given an address of it any more, nobody has one, and EC2 says that it is there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, Protocol

from netaddr import IPNetwork

from backends.aws.calls import Refused, Steps
from backends.aws.cloud import Cloud, Later
from backends.aws.inventory import STALE, Intent, Inventory
from backends.aws.model import CLUSTER_TAG, MADE_TAG, NODE_TAG, PRIMARY, Eni, Subnet, assigned, eni, tag_specifications
from backends.aws.obstacles import FULL, NO_SLOT, NOT_FOUND, Obstacles
from backends.aws.options import Options
from backends.steps import Settle, Wait
from ipam.warmpool import PREFIX_SIZE

log = logging.getLogger(__name__)

APPEARS: Final = 60.0
"""Seconds for an attached interface to appear as a device, or a detached one to be let go of."""
LOOK: Final = 0.5
"""Seconds between looks for a device, which cost EC2 nothing."""
DETACHES: Final = 2.0
"""Seconds between questions whether an interface is detached."""
CERTAIN: Final = 10.0
"""Seconds after a call without an answer from which on EC2 is believed that it did nothing."""


class Usage(Protocol):
    """Who uses the addresses."""

    def busy(self, block: IPNetwork) -> int:
        """How many addresses of *block* are held or cooling down."""


class Changes:
    """*devices* answers the names of the machine's links by hardware address, *token* a new ClientToken."""

    def __init__(
        self,
        *,
        options: Options,
        inventory: Inventory,
        cloud: Cloud,
        obstacles: Obstacles,
        usage: Usage,
        devices: Callable[[], Mapping[str, str]],
        token: Callable[[], str],
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._options = options
        self._inventory = inventory
        self._cloud = cloud
        self._obstacles = obstacles
        self._usage = usage
        self._devices = devices
        self._token = token
        self._clock = clock
        self._wall = wall
        self.withheld: frozenset[IPNetwork] = frozenset()
        """Blocks that are not offered, because somebody is finding out whether they can go."""

    # --- more -------------------------------------------------------------------------------------------------

    def assign(self, name: str, chunks: int, size: int) -> Steps[None]:
        """Give an interface more blocks, in one call; fewer where there are not as many."""
        action = "AssignPrivateIpAddresses"
        subnet = self._inventory.enis[name].subnet
        while chunks:
            self._cloud.ready(action)
            intent = Intent("assign", self._clock(), name, chunks=chunks, size=size)
            self._inventory.begin(intent)
            try:
                answer = yield from self._cloud.ask(action, NetworkInterfaceId=name, **_wanted(chunks, size))
            except Later:
                self._inventory.end(intent)
                raise
            except Refused as error:
                self._inventory.end(intent)
                chunks = self._fewer(chunks, error, subnet, name)
                continue
            self._inventory.gain(name, assigned(answer))
            self._inventory.end(intent)
            yield Settle()
            return

    def assign_ipv6(self, name: str) -> Steps[None]:
        """Give an interface an IPv6 prefix (/80): that is enough for all pods of a node."""
        action = "AssignIpv6Addresses"
        self._cloud.ready(action)
        intent = Intent("assign", self._clock(), name, chunks=1)
        self._inventory.begin(intent)
        try:
            answer = yield from self._cloud.ask(action, NetworkInterfaceId=name, Ipv6PrefixCount=1)
        except Later:
            self._inventory.end(intent)
            raise
        except Refused as error:
            self._inventory.end(intent)
            self._obstacles.refused(error, self._inventory.enis[name].subnet, name)
            return
        self._inventory.gain(name, assigned(answer))
        self._inventory.end(intent)
        yield Settle()

    def create(
        self, instance: str, subnets: Iterable[Subnet], groups: tuple[str, ...], chunks: int, size: int
    ) -> Steps[None]:
        """Make an interface that has blocks from the start, in the first of *subnets* that has room, and attach it to
        *instance*."""
        for subnet in subnets:
            left = chunks
            while left:
                self._cloud.ready("CreateNetworkInterface")
                intent = Intent(
                    "create",
                    self._clock(),
                    token=self._token(),
                    subnet=subnet.id,
                    chunks=left,
                    size=size,
                    groups=groups,
                    made=self._wall(),
                )
                self._inventory.begin(intent)
                try:
                    yield from self._made(instance, intent)
                except Later:
                    if intent in self._inventory.intents:  # nothing was made
                        self._inventory.end(intent)
                    raise
                except Refused as error:
                    if intent not in self._inventory.intents:
                        raise
                    self._inventory.end(intent)
                    left = self._fewer(left, error, subnet.id)
                    if error.code not in FULL:
                        return
                else:
                    return

    def _made(self, instance: str, intent: Intent) -> Steps[None]:
        """By its token: the same interface however often that is asked for."""
        tags = {CLUSTER_TAG: self._options.cluster, NODE_TAG: instance, MADE_TAG: f"{intent.made:.0f}"}
        answer = yield from self._cloud.ask(
            "CreateNetworkInterface",
            SubnetId=intent.subnet,
            Groups=list(intent.groups),
            Description=f"routable: pods of {instance}",
            ClientToken=intent.token,
            TagSpecifications=tag_specifications(tags),
            **_wanted(intent.chunks, intent.size),
        )
        made = eni(answer["NetworkInterface"])
        known = intent._replace(eni=made.id)
        self._inventory.change(intent, known)
        yield from self._attached(instance, known, made)

    def _attached(self, instance: str, intent: Intent, made: Eni) -> Steps[None]:
        attachment, index = made.attachment, made.index
        if index is None:
            index = self._free_index()
            try:
                answer = yield from self._cloud.ask(
                    "AttachNetworkInterface", NetworkInterfaceId=made.id, InstanceId=instance, DeviceIndex=index
                )
            except Refused as error:
                # It is of no use here, so it goes.
                self._inventory.change(intent, Intent("delete", self._clock(), made.id))
                self._obstacles.unattached(error)
                return
            attachment = answer["AttachmentId"]
        attached = replace(made, attachment=attachment, index=index, status="in-use", is_kept=True)
        bound = yield from self.bind(attached)
        yield from self._awaited(lambda: made.mac in self._devices())
        self._inventory.put(bound)
        self._inventory.end(intent)
        yield Settle()

    def bind(self, one: Eni) -> Steps[Eni]:
        """Let an interface go with its instance, or it would be left behind; as it is then."""
        try:
            yield from self._cloud.ask(
                "ModifyNetworkInterfaceAttribute",
                NetworkInterfaceId=one.id,
                Attachment={"AttachmentId": one.attachment, "DeleteOnTermination": True},
            )
        except Refused as error:
            log.error("an interface will outlive its instance", extra={"error": str(error)})
            return one
        return replace(one, is_kept=False)

    def _free_index(self) -> int:
        taken = {one.index for one in self._inventory.enis.values()}
        return next(index for index in range(PRIMARY + 1, PRIMARY + 2 + len(taken)) if index not in taken)

    def _awaited(self, is_so: Callable[[], bool]) -> Steps[None]:
        """Until that is so, or the time is over: then whoever looks next goes on from what is."""
        deadline = self._clock() + APPEARS
        while not is_so() and self._clock() < deadline:
            yield Wait(LOOK, LOOK)

    def _fewer(self, chunks: int, error: Refused, subnet: str, name: str = "") -> int:
        """How many to ask for after a refusal: of what there are too few of, half as many; 0: it is no use."""
        if error.code in (*FULL, NO_SLOT) and chunks > 1:
            return chunks // 2
        self._obstacles.refused(error, subnet, name)
        return 0

    # --- less -------------------------------------------------------------------------------------------------

    def unassign(self, name: str, blocks: frozenset[IPNetwork]) -> Steps[None]:
        """Take blocks from an interface, if nobody uses them."""
        self._cloud.ready("UnassignPrivateIpAddresses", name)
        found = yield from self._withdrawn(name, blocks)
        if found is None:
            return
        intent = Intent("unassign", self._clock(), name, blocks=_texts(blocks & found.blocks))
        self._inventory.begin(intent)
        self.withheld -= blocks
        yield from self._unassigned(intent, found)

    def _unassigned(self, intent: Intent, found: Eni) -> Steps[None]:
        left = frozenset(map(IPNetwork, intent.blocks)) & found.blocks
        if left:
            prefixes = [str(one) for one in left if one.prefixlen < 32]
            addresses = [str(one.ip) for one in left if one.prefixlen == 32]
            wanted: dict[str, Any] = {"Ipv4Prefixes": prefixes} if prefixes else {}
            wanted |= {"PrivateIpAddresses": addresses} if addresses else {}
            try:
                yield from self._cloud.ask("UnassignPrivateIpAddresses", NetworkInterfaceId=intent.eni, **wanted)
            except Refused as error:
                log.error("blocks could not be given back", extra={"error": str(error)})
                if self._clock() - intent.since >= STALE:
                    self._inventory.end(intent)  # they are there, so they are offered again
                    yield Settle()
                return  # or else what EC2 showed was of before it took them away: it is asked again
        self._inventory.lose(intent.eni, map(IPNetwork, intent.blocks))
        self._inventory.end(intent, intent.blocks)
        yield Settle()

    def delete(self, name: str) -> Steps[None]:
        """Detach and delete an interface that an agent made, if nobody uses its addresses."""
        for action in ("DetachNetworkInterface", "DeleteNetworkInterface"):
            self._cloud.ready(action, name)
        blocks = self._inventory.enis[name].blocks
        found = yield from self._withdrawn(name, blocks)
        if found is None:
            return
        intent = Intent("delete", self._clock(), name, blocks=_texts(blocks | found.blocks))
        self._inventory.begin(intent)
        self.withheld -= blocks
        yield from self._deleted(intent, found)

    def _deleted(self, intent: Intent, found: Eni | None) -> Steps[None]:
        self._inventory.drop(intent.eni)
        yield Settle()
        if found is not None and found.index is not None:
            yield from self._cloud.ask("DetachNetworkInterface", intent.eni, AttachmentId=found.attachment)
        deadline = self._clock() + APPEARS
        while found is not None and found.status != "available":
            if self._clock() >= deadline:
                return  # it is looked at again
            yield Wait(DETACHES, DETACHES)
            found = yield from self.described(intent.eni)
        if found is not None:
            try:
                yield from self._cloud.ask("DeleteNetworkInterface", NetworkInterfaceId=intent.eni)
            except Refused as error:
                if error.code != NOT_FOUND:
                    raise
        self._inventory.end(intent, (intent.eni, *intent.blocks))

    def _withdrawn(self, name: str, blocks: frozenset[IPNetwork]) -> Steps[Eni | None]:
        """Nobody is given an address of *blocks* any more; what EC2 says of the interface, or None if that must not
        be: somebody was given one in time, or the interface is not there."""
        self.withheld |= blocks
        try:
            yield Settle()
            found = yield from self.described(name)
            if found is not None and not any(map(self._usage.busy, blocks)):
                return found
        except BaseException:
            self.withheld -= blocks
            raise
        self.withheld -= blocks
        yield Settle()
        return None

    # --- what was cut off -------------------------------------------------------------------------------------

    def resume(self, intent: Intent, instance: str) -> Steps[None]:
        """Go on with a change whose end is not known, from what EC2 says now; where it is too early to tell, the intent
        stays as it is."""
        if intent.kind == "create" and not intent.eni:
            try:
                yield from self._made(instance, intent)
            except Refused as error:
                if intent in self._inventory.intents:
                    self._inventory.end(intent)
                self._obstacles.refused(error, intent.subnet)
            return
        found = yield from self.described(intent.eni)
        is_certain = self._clock() - intent.since >= (CERTAIN if intent.kind == "assign" else STALE)
        if intent.kind == "assign":
            known = self._inventory.enis.get(intent.eni)
            new = found.blocks - known.blocks if found is not None and known is not None else frozenset()
            if new:
                self._inventory.gain(intent.eni, new)
            if new or is_certain:
                self._inventory.end(intent)
                yield Settle()
        elif found is None:
            if is_certain:
                self._inventory.drop(intent.eni)
                self._inventory.end(intent, (intent.eni, *intent.blocks))
        elif intent.kind == "create":
            yield from self._attached(instance, intent, found)
        elif intent.kind == "unassign":
            yield from self._unassigned(intent, found)
        else:
            yield from self._deleted(intent, found)

    def described(self, name: str) -> Steps[Eni | None]:
        """What EC2 says of an interface; None: that there is none."""
        try:
            answer = yield from self._cloud.ask("DescribeNetworkInterfaces", NetworkInterfaceIds=[name])
        except Refused as error:
            if error.code != NOT_FOUND:
                raise
            return None
        return eni(answer["NetworkInterfaces"][0])


def _wanted(chunks: int, size: int) -> dict[str, int]:
    return {"Ipv4PrefixCount" if size == PREFIX_SIZE else "SecondaryPrivateIpAddressCount": chunks}


def _texts(blocks: Iterable[IPNetwork]) -> tuple[str, ...]:
    return tuple(map(str, sorted(blocks)))

