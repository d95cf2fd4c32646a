"""What this node has of the VPC, and what it is about to change there, kept in the agent's journal before it is asked.

Whose word counts: EC2's full answer (DescribeNetworkInterfaces) is the truth of what is attached, once it cannot be
older than the last change here. Until then it adds, and takes nothing off, and what was given back lately is not taken
up from it again. The instance metadata, which lags behind without limit, is only where a process begins: what it alone
shows keeps its wiring, but a restarted agent gives no address of it (`doubted`) before EC2 has said the same.

What always holds: a block that is about to be taken away, or is doubted, is not offered. Pure but for the journal.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, Literal, NamedTuple

from netaddr import IPAddress, IPNetwork, IPSet

from backends.aws.model import MADE_TAG, PRIMARY, Eni, overlaps
from backends.cloud.gone import GONE
from backends.cloud.intents import Intents
from backends.cloud.withholding import Held
from dataplane.memory import Memory
from ipam.lease import Block

JOURNAL: Final = "aws-eni"
"""The name of all this in the journal."""

STALE: Final = 60.0
"""Seconds by which EC2's own answers may lag behind its changes (eventual consistency)."""

Kind = Literal["create", "assign", "unassign", "delete"]
NEVER: Final = float("inf")


class Intent(NamedTuple):
    """A change of the cloud that may be under way: it is entered before the call, and struck out when its end is known.

    *since* is in seconds since the boot; *eni* is '' while an interface has none yet, *token* its ClientToken, *groups*
    its security groups, *made* (seconds since the epoch) what its tag says; *blocks* are those to be taken away.
    """

    kind: Kind
    since: float
    eni: str = ""
    token: str = ""
    subnet: str = ""
    chunks: int = 0
    size: int = 0
    blocks: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    made: float = 0.0


class Inventory:
    """One thread changes it; any may read. *clock* answers seconds since the boot, which *boot* names, *held* the
    addresses of pods.

    What is kept says by which instance and during which boot: see `arrived`. What an earlier boot entered counts as of
    this one's begin.
    """

    def __init__(
        self,
        journal: Memory,
        clock: Callable[[], float],
        boot: str = "",
        held: Callable[[], Collection[IPAddress]] = tuple,
    ) -> None:
        self._clock = clock
        self._started = clock()
        self._changed: dict[str, float] = {}
        self._intents = Intents(journal, JOURNAL, read=_intent, clock=clock, boot=boot, held=held)
        self._gone = self._intents.gone
        self.enis: Mapping[str, Eni] = {}
        """The interfaces attached to this node, by id."""
        self.doubted: frozenset[Held] = frozenset()
        """What nobody but the metadata has shown yet, or not even that."""
        self._unseen: frozenset[Held] = frozenset()
        self.is_trusting = False
        """Whether the metadata's word has to do."""
        self.unclear_until: float = NEVER
        """When EC2's answer will be clear about what was in doubt in its last."""

    # --- what it tells ----------------------------------------------------------------------------------------

    @property
    def is_new(self) -> bool:
        """Whether no agent has been here before."""
        return self._intents.is_new

    @property
    def intents(self) -> tuple[Intent, ...]:
        """The changes that may be under way."""
        return self._intents.now

    @property
    def leaving(self) -> frozenset[Held]:
        """The blocks that are being taken away."""
        return frozenset(
            (one.eni, IPNetwork(block))
            for one in self.intents
            if one.kind in ("unassign", "delete")
            for block in one.blocks
        )

    @property
    def conflicts(self) -> frozenset[Held]:
        """Blocks that are on two interfaces, which cannot be: EC2 was asked while somebody changed it."""
        return overlaps(self._pairs() - self.leaving)

    def is_ours(self, eni: Eni) -> bool:
        """Whether an agent made it, for this purpose. The metadata has no tags, so the journal knows it, too.

        The cluster's tag alone says nothing: all interfaces that an instance was started with have it, too, where the
        launch template says so, which the IAM policy wants of the primary one.
        """
        return not eni.is_unmanaged and (MADE_TAG in eni.tags or eni.id in self._intents.made)

    def is_busy(self, eni: str) -> bool:
        """Whether a change of *eni* may be under way."""
        return any(one.eni == eni for one in self.intents)

    def age(self, eni: str) -> float:
        """Seconds since the last change of *eni* here, or else since the start of this process."""
        return abs(self._clock() - self._changed.get(eni, self._started))

    def clear_in(self, eni: str) -> float:
        """Seconds until EC2's answers about *eni* cannot be older than that."""
        return max(0.0, STALE - self.age(eni))

    def arrived(self, instance: str) -> None:
        """This is the instance of that id: the interfaces that another kept in the journal are those of a node that
        lives."""
        self._intents.arrived(instance)

    # --- what is about to happen, and what has ----------------------------------------------------------------

    def begin(self, intent: Intent) -> None:
        """Enter an intent."""
        self._intents.begin(intent)

    def change(self, old: Intent, new: Intent) -> None:
        """Enter more of an intent."""
        self._intents.change(old, new)

    def end(self, intent: Intent) -> None:
        """Strike out an intent: nothing has come of it, or all is entered."""
        if intent.kind == "create" and intent.eni in self.enis:
            self._intents.made |= {intent.eni}
        self._intents.strike(intent)

    def given_back(self, intent: Intent) -> None:
        """Strike out an intent by which its blocks went, and with a whole interface that, too."""
        is_whole = intent.kind != "unassign"
        self._gone.add(intent.eni, intent.blocks, is_whole=is_whole)
        if is_whole:
            self._intents.made -= {intent.eni}
            self.drop(intent.eni)
        elif intent.eni in self.enis:
            one = self.enis[intent.eni]
            self._enter(replace(one, blocks=one.blocks.difference(map(IPNetwork, intent.blocks))))
        self._intents.strike(intent)

    def put(self, eni: Eni) -> None:
        """It is attached, or is as it says now, by EC2's word on a change that was made here."""
        new = eni.blocks - self.enis[eni.id].blocks if eni.id in self.enis else eni.blocks
        self._gone.forget(eni.id, new)
        self.doubted -= {(eni.id, block) for block in new}
        for one in self.enis.values():  # where it was before, it is no more
            if one.id != eni.id and one.blocks & new:
                self._enter(replace(one, blocks=one.blocks - new))
        self._enter(eni)

    def gain(self, eni: str, blocks: Iterable[IPNetwork]) -> None:
        """These were assigned to it."""
        self.put(replace(self.enis[eni], blocks=self.enis[eni].blocks | frozenset(blocks)))

    def drop(self, eni: str) -> None:
        """It is not attached any more."""
        self._changed[eni] = self._clock()
        self.enis = {name: one for name, one in self.enis.items() if name != eni}

    # --- what others say --------------------------------------------------------------------------------------

    def seen(self, enis: Iterable[Eni], *, held: Collection[Block] = (), is_doubted: bool) -> None:
        """A process begins with what the instance metadata shows, and with the blocks that pods *held* before: of these
        the last may not be shown yet."""
        shown = [one for one in enis if self._is_here(one, GONE)]
        self.enis = {one.id: replace(one, blocks=one.blocks - self._gone.of(one.id, one.blocks, GONE)) for one in shown}
        known = IPSet(block for _, block in self._pairs())
        late = [one for one in held if one.owner in self.enis and one.network.network not in known]
        self._unseen = frozenset((one.owner, one.network) for one in late)
        for name, block in self._unseen:
            one = self.enis[name]
            self.enis = {**self.enis, name: replace(one, blocks=one.blocks | {block})}
        if is_doubted:
            self.doubted = self._pairs()

    def trust(self) -> None:
        """Nobody but the metadata says anything: what it shows has to do."""
        self.is_trusting, self.doubted = True, self._unseen

    def differences(self, seen: Iterable[Eni]) -> frozenset[tuple[str, str]]:
        """Interfaces, and blocks on them, that the metadata shows and this does not, or the reverse, but for those that
        were changed here lately: it lags behind."""
        theirs = [one for one in seen if self._is_here(one, GONE)]
        names = {one.id for one in theirs} | self.enis.keys()
        now = self._clock()
        lately = {name for name, when in self._changed.items() if abs(now - when) < STALE}
        still = {name for name in names - lately if not self.is_busy(name)}
        shown = {(one.id, block) for one in theirs for block in one.blocks - self._gone.of(one.id, one.blocks, GONE)}
        known = self._pairs()
        blocks = {(eni, str(block)) for eni, block in shown ^ known}
        whole = {(eni, "") for eni in {one.id for one in theirs} ^ self.enis.keys()}
        return frozenset((eni, what) for eni, what in blocks | whole if eni in still)

    def described(self, enis: Iterable[Eni]) -> bool:
        """EC2 says that these, all of them, are attached. True: something differs."""
        before, doubted = self.enis, self.doubted
        self.unclear_until = NEVER
        fresh = {one.id: self._merged(one) for one in enis if self._is_here(one, STALE)}
        kept = {name: one for name, one in before.items() if name not in fresh and self._unclear(name)}
        self.enis = {**kept, **fresh}
        self.doubted &= self._pairs()
        for eni, _ in self.doubted:
            self._unclear(eni)
        if self.conflicts:
            self.unclear_until = min(self.unclear_until, self._clock() + STALE)
        return self.enis != before or self.doubted != doubted

    def shown(self, one: Eni) -> frozenset[IPNetwork]:
        """The blocks of an interface in EC2's answer, but for those that only an old answer would show."""
        old = self._gone.of(one.id, one.blocks, STALE)
        if old:
            self.unclear_until = min(self.unclear_until, self._clock() + STALE)
        self._gone.forget(one.id, one.blocks - old)
        self.doubted -= {(one.id, block) for block in one.blocks - old}
        return one.blocks - old

    def _is_here(self, one: Eni, seconds: float) -> bool:
        if one.card != PRIMARY:  # what is on other network cards is not the agent's, and takes nothing from the first
            return False
        is_moving = any(intent.kind in ("create", "delete") and intent.eni == one.id for intent in self.intents)
        return one.index is not None and not is_moving and not self._gone.has_whole(one.id, seconds)

    def _merged(self, one: Eni) -> Eni:
        blocks = self.shown(one)
        if one.id in self.enis and (more := self.enis[one.id].blocks - one.blocks) and self._unclear(one.id):
            blocks |= more
        return replace(one, blocks=blocks)

    def _unclear(self, eni: str) -> bool:
        """Whether EC2's answer about *eni* may be older than its last change; then it is to be asked again."""
        left = self.clear_in(eni)
        if left:
            self.unclear_until = min(self.unclear_until, self._clock() + left)
        return left > 0

    def _enter(self, eni: Eni) -> None:
        self._changed[eni.id] = self._clock()
        self.enis = {**self.enis, eni.id: eni}

    def _pairs(self) -> frozenset[Held]:
        return frozenset((one.id, block) for one in self.enis.values() for block in one.blocks)


def _intent(kept: dict[str, Any], is_rebooted: bool) -> Intent:
    """Agents that had no "made" kept that time as "since"."""
    fields = {"made": kept["since"], **kept, "blocks": tuple(kept["blocks"]), "groups": tuple(kept["groups"])}
    return Intent(**{**fields, "since": 0.0} if is_rebooted else fields)
