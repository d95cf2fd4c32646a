"""What this node has of the VPC, and what it is about to change there, kept in the agent's journal before it is asked.

What always holds: a block that is about to be taken away is not offered; what was taken away lately does not come back
by an answer that lags behind; nothing is taken off the inventory because an answer lacks it that may be older than the
last change here. Pure but for the journal.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, Literal, NamedTuple, Protocol

from netaddr import IPNetwork

from backends.aws.model import MADE_TAG, PRIMARY, Eni

log = logging.getLogger(__name__)

JOURNAL: Final = "aws-eni"
"""The name of all this in the journal."""
STALE: Final = 60.0
"""Seconds by which EC2's own answers may lag behind its changes (eventual consistency)."""
GONE: Final = 300.0
"""Seconds for which the instance metadata may still show what was taken away."""

Kind = Literal["create", "assign", "unassign", "delete"]


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


class Journal(Protocol):
    """Where it is kept."""

    def recall(self, name: str) -> str | None:
        """What was kept under *name*."""

    def remember(self, name: str, value: str) -> None:
        """Keep it."""


class Inventory:
    """One thread changes it; any may read. *clock* answers seconds since the boot, which *boot* names.

    What is kept says by which instance and during which boot: see `arrived`. What an earlier boot entered counts as of
    this one's begin.
    """

    def __init__(self, journal: Journal, clock: Callable[[], float], boot: str = "") -> None:
        self._journal = journal
        self._clock = clock
        self._changed: dict[str, float] = {}
        self.enis: Mapping[str, Eni] = {}
        """The interfaces attached to this node, by id."""
        text = journal.recall(JOURNAL)
        self.is_new: bool = text is None
        """Whether no agent has been here before."""
        found = json.loads(text) if text is not None else {"intents": [], "gone": {}, "made": []}
        self._boot = boot
        self._instance: str = found.get("instance", "")
        is_rebooted = found.get("boot", "") != boot
        self.intents: tuple[Intent, ...] = tuple(_intent(one, is_rebooted) for one in found["intents"])
        self._gone: dict[str, float] = dict.fromkeys(found["gone"], 0.0) if is_rebooted else found["gone"]
        self._made: frozenset[str] = frozenset(found["made"])

    # --- what it tells ----------------------------------------------------------------------------------------

    @property
    def leaving(self) -> frozenset[IPNetwork]:
        """The blocks that are being taken away."""
        return frozenset(
            IPNetwork(block) for one in self.intents if one.kind in ("unassign", "delete") for block in one.blocks
        )

    def is_ours(self, eni: Eni) -> bool:
        """Whether an agent made it, for this purpose. The metadata has no tags, so the journal knows it, too.

        The cluster's tag alone says nothing: all interfaces that an instance was started with have it, too, where the
        launch template says so, which the IAM policy wants of the primary one.
        """
        return MADE_TAG in eni.tags or eni.id in self._made

    def is_busy(self, eni: str) -> bool:
        """Whether a change of *eni* may be under way."""
        return any(one.eni == eni for one in self.intents)

    def arrived(self, instance: str) -> None:
        """This is the instance of that id. What another began is not gone on with: this one was started from its disk
        or image, and the interfaces are those of a node that lives."""
        if self._instance not in ("", instance):
            log.warning("another instance kept the journal: it is begun anew", extra={"instance": self._instance})
            self._gone, self._made = {}, frozenset()
            self.intents, self.is_new = (), True
        self._instance = instance

    # --- what is about to happen, and what has ----------------------------------------------------------------

    def begin(self, intent: Intent) -> None:
        """Enter an intent."""
        self._keep((*self.intents, intent))

    def change(self, old: Intent, new: Intent) -> None:
        """Enter more of an intent."""
        self._keep(tuple(new if one == old else one for one in self.intents))

    def end(self, intent: Intent, gone: Collection[str] = ()) -> None:
        """Strike out an intent; *gone* names the blocks and the interface that went by it."""
        now = self._clock()
        self._gone = {name: when for name, when in self._gone.items() if now - when < GONE}
        self._gone.update(dict.fromkeys(gone, now))
        made = {intent.eni} if intent.kind == "create" and intent.eni and not gone else set()
        self._made = self._made.difference(gone) | made
        self._keep(tuple(one for one in self.intents if one != intent))

    def put(self, eni: Eni) -> None:
        """It is attached, or is as it says now, by a change that was made here."""
        self._changed[eni.id] = self._clock()
        self.enis = {**self.enis, eni.id: eni}

    def gain(self, eni: str, blocks: Iterable[IPNetwork]) -> None:
        """These were assigned to it."""
        self.put(replace(self.enis[eni], blocks=self.enis[eni].blocks | frozenset(blocks)))

    def lose(self, eni: str, blocks: Iterable[IPNetwork]) -> None:
        """These were taken from it."""
        if eni in self.enis:
            self.put(replace(self.enis[eni], blocks=self.enis[eni].blocks - frozenset(blocks)))

    def drop(self, eni: str) -> None:
        """It is not attached any more."""
        self._changed[eni] = self._clock()
        self.enis = {name: one for name, one in self.enis.items() if name != eni}

    # --- what others say --------------------------------------------------------------------------------------

    def seen(self, enis: Iterable[Eni]) -> bool:
        """The instance metadata shows these: they may be added to, never taken from. True: something is new."""
        return self._enter({one.id: self._merged(one, is_final=False) for one in enis if self._is_here(one)})

    def described(self, enis: Iterable[Eni]) -> bool:
        """EC2 says that these, all of them, are attached. True: something differs."""
        fresh = {one.id: self._merged(one, is_final=True) for one in enis if self._is_here(one)}
        kept = {name: one for name, one in self.enis.items() if name not in fresh and self._is_recent(name)}
        lost = self.enis.keys() - fresh.keys() - kept.keys()
        for name in lost:
            self.drop(name)
        return self._enter(fresh) or bool(lost)

    def _enter(self, enis: Mapping[str, Eni]) -> bool:
        changed = any(self.enis.get(name) != one for name, one in enis.items())
        self.enis = {**self.enis, **enis}
        return changed

    def _is_here(self, one: Eni) -> bool:
        is_coming = any(intent.kind == "create" and intent.eni == one.id for intent in self.intents)
        is_going = any(intent.kind == "delete" and intent.eni == one.id for intent in self.intents)
        if one.card != PRIMARY:  # what is on other network cards is not the agent's, and takes nothing from the first
            return False
        return one.index is not None and not is_coming and not is_going and not self._is_gone(one.id)

    def _merged(self, one: Eni, *, is_final: bool) -> Eni:
        known = self.enis.get(one.id)
        blocks = frozenset(block for block in one.blocks if not self._is_gone(str(block)))
        if known is None:
            return replace(one, blocks=blocks)
        if not is_final or self._is_recent(one.id):
            blocks |= known.blocks
        if not is_final:  # the metadata has no attachment and no tags
            return replace(known, blocks=blocks)
        return replace(one, blocks=blocks)

    def _is_recent(self, eni: str) -> bool:
        return self._clock() - self._changed.get(eni, -STALE) < STALE

    def _is_gone(self, name: str) -> bool:
        return self._clock() - self._gone.get(name, -GONE) < GONE

    def _keep(self, intents: tuple[Intent, ...]) -> None:
        document = {"intents": [one._asdict() for one in intents], "gone": self._gone, "made": sorted(self._made)}
        self._journal.remember(JOURNAL, json.dumps({**document, "instance": self._instance, "boot": self._boot}))
        self.intents = intents
        self.is_new = False


def _intent(kept: dict[str, Any], is_rebooted: bool) -> Intent:
    """Agents that had no "made" kept that time as "since"."""
    fields = {"made": kept["since"], **kept, "blocks": tuple(kept["blocks"]), "groups": tuple(kept["groups"])}
    return Intent(**{**fields, "since": 0.0} if is_rebooted else fields)
