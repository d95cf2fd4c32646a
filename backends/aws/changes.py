"""More for this node, each change from the intent in the journal to its end, and going on with one that was cut off.

What always holds: an interface that was made is attached or deleted, whatever happens between; a call that is not
idempotent is never made again before EC2 has shown what the first one did. Nobody waits here: what takes EC2 a while
stays in the journal and is looked at again, so that several interfaces can be on their way at once. How things leave
is `backends.aws.leaving`'s.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from backends.aws.calls import ASSIGN, ASSIGN6, ATTACH, CREATE, MODIFY
from backends.aws.indexes import Indexes
from backends.aws.inventory import STALE, Intent, Inventory
from backends.aws.leaving import Leaving
from backends.aws.model import CLUSTER_TAG, MADE_TAG, NODE_TAG, PRIMARY, Eni, Subnet, assigned, eni, tag_specifications
from backends.aws.options import EniOptions
from backends.aws.refusals import FULL, NO_SLOT, NOT_FOUND, Refusals
from backends.cloud.asking import Cloud, Later
from backends.cloud.failures import Refused
from backends.cloud.retries import Retries
from backends.cloud.scarcity import Scarcity
from backends.cloud.steps import Settle, Steps
from ipam.warmpool import PREFIX_SIZE

log = logging.getLogger(__name__)

CERTAIN: Final = 10.0
"""Seconds after a call without an answer from which on EC2 is believed that it did nothing."""
INDEX_TAKEN: Final = "InvalidParameterValue"
"""What AttachNetworkInterface says of a device index that has an interface already, among much else."""
ATTACHED: Final = "InvalidNetworkInterface.InUse"
"""What it says of an interface that is attached already: an answer was lost."""


class Changes:
    """*token* answers a new ClientToken, *clock* seconds, *wall* those since the epoch."""

    def __init__(
        self,
        *,
        options: EniOptions,
        inventory: Inventory,
        cloud: Cloud,
        obstacles: Refusals,
        leaving: Leaving,
        indexes: Indexes,
        token: Callable[[], str],
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._options = options
        self._inventory = inventory
        self._cloud = cloud
        self._obstacles = obstacles
        self._leaving = leaving
        self._indexes = indexes
        self._token = token
        self._clock = clock
        self._wall = wall
        self._scarcity = Scarcity(clock)
        self._retries = Retries(clock)

    # --- addresses --------------------------------------------------------------------------------------------

    def assign(self, name: str, chunks: int, size: int) -> Steps[None]:
        """Give an interface more blocks, in one call; fewer where there are not as many."""
        action = ASSIGN
        subnet = self._inventory.enis[name].subnet
        chunks = self._scarcity.most(subnet, size, chunks)
        while chunks:
            self._cloud.ready(action)
            intent = Intent("assign", self._clock(), name, chunks=chunks, size=size)
            self._begin(intent)
            try:
                answer = yield from self._cloud.ask(action, NetworkInterfaceId=name, **_wanted(chunks, size))
            except Later:
                self._inventory.end(intent)
                raise
            except Refused as error:
                self._inventory.end(intent)
                chunks = self._fewer(chunks, size, error, subnet, name)
                continue
            self._inventory.gain(name, assigned(answer))
            self._inventory.end(intent)
            yield Settle()
            return

    def assign_ipv6(self, name: str) -> Steps[None]:
        """Give an interface an IPv6 prefix (/80): that is enough for all pods of a node."""
        action = ASSIGN6
        self._cloud.ready(action)
        intent = Intent("assign", self._clock(), name, chunks=1)
        self._begin(intent)
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

    def _fewer(self, chunks: int, size: int, error: Refused, subnet: str, name: str = "") -> int:
        """How many to ask for after a refusal: of what there are too few of, half as many; 0: it is no use."""
        if error.code in FULL:
            self._scarcity.refused(subnet, size, chunks)
        if error.code in (*FULL, NO_SLOT) and chunks > 1:
            return chunks // 2
        self._obstacles.refused(error, subnet, name)
        return 0

    # --- interfaces -------------------------------------------------------------------------------------------

    def create(
        self, instance: str, subnets: Iterable[Subnet], groups: tuple[str, ...], chunks: int, size: int
    ) -> Steps[None]:
        """Make an interface that has blocks from the start, in the first of *subnets* that has room, and attach it to
        *instance*."""
        for subnet in subnets:
            left = self._scarcity.most(subnet.id, size, chunks)
            while left:
                for action in (CREATE, ATTACH):
                    self._cloud.ready(action)
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
                self._begin(intent)
                try:
                    yield from self._made(instance, intent)
                except Later:
                    if intent in self._inventory.intents:  # nothing was made
                        self._inventory.end(intent)
                    raise
                except Refused as error:  # nothing was made
                    self._inventory.end(intent)
                    left = self._fewer(left, size, error, subnet.id)
                    if error.code not in FULL:
                        return
                else:
                    return

    def _made(self, instance: str, intent: Intent) -> Steps[None]:
        """By its token: the same interface however often that is asked for."""
        tags = {CLUSTER_TAG: self._options.cluster, NODE_TAG: instance, MADE_TAG: f"{intent.made:.0f}"}
        answer = yield from self._cloud.ask(
            CREATE,
            SubnetId=intent.subnet,
            Groups=list(intent.groups),
            Description=f"routable: pods of {instance}",
            ClientToken=intent.token,
            TagSpecifications=tag_specifications(tags),
            **_wanted(intent.chunks, intent.size),
        )
        made = eni(answer["NetworkInterface"])
        # From now on, not from when it was asked for first, it is waited for until it is known everywhere.
        known = intent._replace(eni=made.id, since=self._clock())
        self._inventory.change(intent, known)
        self._retries.later(_name(known))
        yield from self._attached(instance, known, made)

    def _attached(self, instance: str, intent: Intent, made: Eni) -> Steps[None]:
        attachment, index = made.attachment, made.index
        if index is None:
            index = self._indexes.choose(made.id, {one.index for one in self._inventory.enis.values()})
            try:
                # The card is named: or else EC2 may hold the index against those of all cards.
                slot = {"DeviceIndex": index, "NetworkCardIndex": PRIMARY}
                answer = yield from self._cloud.ask(ATTACH, NetworkInterfaceId=made.id, InstanceId=instance, **slot)
            except Refused as error:
                self._unattached(intent, made, error)
                return
            attachment = answer["AttachmentId"]
        # It is bound to the instance's life when there is time: see `bind`.
        self._inventory.put(replace(made, attachment=attachment, index=index, status="in-use", is_kept=True))
        self._inventory.end(intent)
        self._indexes.free(made.id)
        yield Settle()

    def _unattached(self, intent: Intent, made: Eni, error: Refused) -> None:
        """It is tried again where that may help: what is young may not be known everywhere yet, and others take device
        indexes. Else it is of no use here, so it goes, and no other is made for a while."""
        is_young = self._clock() - intent.since < STALE
        if error.code == ATTACHED or (error.code == NOT_FOUND and is_young):
            return
        if error.code == INDEX_TAKEN and "device index" in error.message and self._indexes.refused(made.id):
            self._retries.now(_name(intent))
            self._inventory.unclear_until = self._clock()  # who has it?
            return
        self._indexes.free(made.id)
        self._inventory.change(intent, Intent("delete", self._clock(), made.id))
        self._obstacles.unattached(error)

    def bind(self, one: Eni) -> Steps[Eni]:
        """Let an interface go with its instance, or it would be left behind; as it is then."""
        try:
            yield from self._cloud.ask(
                MODIFY,
                NetworkInterfaceId=one.id,
                Attachment={"AttachmentId": one.attachment, "DeleteOnTermination": True},
            )
        except Refused as error:
            log.error("an interface will outlive its instance", extra={"error": str(error)})
            return one
        return replace(one, is_kept=False)

    # --- what was cut off, or takes a while ---------------------------------------------------------------------

    def resume(self, instance: str, is_refused: Callable[[str, str], bool]) -> Steps[None]:
        """Go on with the changes whose end is not known, each in its own time, but for those of a kind and interface
        that *is_refused* now. Later: the next is due then."""
        self._retries.keep([_name(one) for one in self._inventory.intents])
        waits: list[Later] = []
        for intent in self._inventory.intents:
            if left := self._retries.left(_name(intent)):
                waits.append(Later(intent.kind, left))
                continue
            if is_refused(intent.kind, intent.eni):
                continue
            self._retries.later(_name(intent))
            try:
                yield from self._resumed(intent, instance)
            except Later as later:
                waits.append(later)
            except Refused as error:
                log.error("a change that was cut off is refused", extra={"error": str(error)})
        if waits:
            raise min(waits, key=lambda one: one.seconds)

    def _begin(self, intent: Intent) -> None:
        self._inventory.begin(intent)
        self._retries.later(_name(intent))

    def _resumed(self, intent: Intent, instance: str) -> Steps[None]:
        """From what EC2 says now; where it is too early to tell, the intent stays as it is."""
        if intent.kind == "create" and not intent.eni:
            try:
                yield from self._made(instance, intent)
            except Refused as error:  # nothing was made
                self._inventory.end(intent)
                self._obstacles.refused(error, intent.subnet)
            return
        found = yield from self._leaving.described(intent.eni)
        if intent.kind == "assign":
            yield from self._looked_up(intent, found)
        elif intent.kind == "create" and found is not None:
            yield from self._attached(instance, intent, found)
        elif intent.kind == "create" and self._clock() - intent.since >= STALE:
            # It was made and never seen: the next would fare no better. Should it appear after all, it is swept.
            self._obstacles.unattached(Refused(ATTACH, NOT_FOUND, f"{intent.eni} does not appear"))
            self._inventory.given_back(intent)
            self._indexes.free(intent.eni)
        elif intent.kind != "create":
            yield from self._leaving.resume(intent, found)

    def _looked_up(self, intent: Intent, found: Eni | None) -> Steps[None]:
        """What a call without an answer did."""
        known = self._inventory.enis.get(intent.eni)
        shown = self._inventory.shown(found) if found is not None else frozenset()
        if known is not None and (new := shown - known.blocks):
            self._inventory.gain(intent.eni, new)
        elif self._clock() - intent.since < CERTAIN:
            return
        self._inventory.end(intent)
        yield Settle()


def _wanted(chunks: int, size: int) -> dict[str, int]:
    return {"Ipv4PrefixCount" if size == PREFIX_SIZE else "SecondaryPrivateIpAddressCount": chunks}


def _name(intent: Intent) -> tuple[str, float, str]:
    return intent.kind, intent.since, intent.eni or intent.token
