"""What this node's interface has of the VPC, and what is about to be changed, kept in the journal before it is asked.

Whose word counts: the API's (instances.get), once it shows the last change made here; what it answers with a
fingerprint that was changed from is older than that. The metadata, which lags behind without limit, is where a process
begins. A range that both it and the journal show is sure; one that only either shows (`doubted`) keeps its wiring, but
no pod is given an address of it before the API has said so.

What always holds: a range that is about to be taken away, or is doubted, is not offered. Pure but for the journal.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Any, Final, Literal, NamedTuple

from netaddr import IPAddress, IPNetwork

from backends.cloud.gone import GONE
from backends.cloud.intents import Intents
from backends.cloud.withholding import Held
from backends.gcp.model import NIC, Interface, Range, Seen
from backends.gcp.options import AliasOptions
from dataplane.memory import Memory

log = logging.getLogger(__name__)

JOURNAL: Final = "gcp-alias"
"""The name of all this in the journal."""
STALE: Final = 30.0
"""Seconds by which the API's own answers may lag behind its changes. Nobody promises a number: an operation that is
done is usually seen at once."""

LAGS: Final = 10.0
"""Seconds after a change here for which a difference of the metadata's says nothing: it is looked at again then."""

Kind = Literal["grow", "shrink"]


class Intent(NamedTuple):
    """A change that may be under way: it is entered before the call, and struck out when its end is known.

    *since* is in seconds since the boot. It was asked for with the id *request*, of an interface with that
    *fingerprint*: once that has another one, the change was made or never will be. It had *kept* ("CIDR name") besides
    the *blocks* that are to go; *chunks* ranges of *size* more are wanted. *operation* is what it is followed by, ''
    while nobody has told. From *over* on, if that is not 0, it will not be made any more: what is left is to see
    whether it was.
    """

    kind: Kind
    since: float
    request: str
    fingerprint: str
    chunks: int = 0
    size: int = 0
    blocks: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    operation: str = ""
    over: float = 0.0

    @property
    def ranges(self) -> list[Range]:
        """What it had, and keeps."""
        return [Range(IPNetwork(cidr), name) for cidr, _, name in (one.partition(" ") for one in self.kept)]


class Holding:
    """One thread changes it; any may read. *clock* answers seconds since the boot, which *boot* names, *held* the
    addresses of pods."""

    def __init__(
        self,
        options: AliasOptions,
        journal: Memory,
        clock: Callable[[], float],
        boot: str = "",
        held: Callable[[], Collection[IPAddress]] = tuple,
    ) -> None:
        self._options = options
        self._clock = clock
        self._changed = clock() - LAGS
        self._intents = Intents(journal, JOURNAL, read=_intent, clock=clock, boot=boot, held=held)
        self.ranges: dict[IPNetwork, str] = {}
        """Every range of the interface, and the name of what it is of."""
        self.interface: Interface | None = None
        """What the API said last; None: it is to be asked before anything is changed."""
        self.doubted: frozenset[Held] = frozenset()
        self._unseen: frozenset[Held] = frozenset()

    # --- what it tells ----------------------------------------------------------------------------------------

    @property
    def intents(self) -> tuple[Intent, ...]:
        """The changes that may be under way."""
        return self._intents.now

    @property
    def blocks(self) -> list[IPNetwork]:
        """The ranges that are the pods'."""
        return sorted(block for block, name in self.ranges.items() if self._options.is_for_pods(block, name))

    @property
    def leaving(self) -> frozenset[Held]:
        """The ranges that are being taken away."""
        return frozenset((NIC, IPNetwork(block)) for one in self.intents for block in one.blocks)

    def is_old(self, found: Interface) -> bool:
        """Whether an answer is from before a change made here."""
        return self._intents.gone.has_whole(_left(found.fingerprint), STALE)

    @property
    def lags(self) -> float:
        """Seconds until the metadata should show the last change that was made here."""
        return max(0.0, LAGS - abs(self._clock() - self._changed))

    def differences(self, seen: Seen) -> frozenset[str]:
        """Ranges that the metadata shows and this does not, or the reverse; none after a change made here, while it
        lags behind."""
        if self.intents or self.lags:
            return frozenset()
        return frozenset(map(str, self._shown(seen) ^ self.ranges.keys()))

    # --- what is about to happen, and what has ----------------------------------------------------------------

    def begin(self, intent: Intent) -> None:
        """Enter an intent."""
        self._intents.begin(intent)

    def change(self, old: Intent, new: Intent) -> None:
        """Enter more of an intent."""
        self._intents.change(old, new)

    def end(self, intent: Intent) -> None:
        """Strike out an intent: nothing has come of it, or all is known."""
        self._intents.strike(intent)

    def done(self, intent: Intent, found: Interface) -> None:
        """Strike out an intent that has brought, or taken, what the API shows now."""
        self._changed = self._clock()
        if found.fingerprint != intent.fingerprint:
            self._intents.gone.add(_left(intent.fingerprint), is_whole=True)
        self._intents.gone.add(NIC, [block for block in intent.blocks if IPNetwork(block) not in found.blocks])
        self._know(found)
        self._intents.strike(intent)

    # --- what others say --------------------------------------------------------------------------------------

    def arrived(self, seen: Seen) -> None:
        """A process begins, on this machine, with what the metadata shows and what the one before it knew."""
        self._intents.arrived(seen.instance)
        if self._options.is_fixed:
            self.seen(seen)
            return
        shown = self._shown(seen)
        known = {IPNetwork(block): name for block, _, name in (one.partition(" ") for one in self._intents.made)}
        self.ranges = dict.fromkeys(shown, self._options.range) | known
        self.doubted = frozenset((NIC, block) for block in shown ^ known.keys())
        self._unseen = frozenset((NIC, block) for block in known.keys() - shown)

    def seen(self, seen: Seen) -> bool:
        """All that there is, where nothing is changed here: the metadata's word is the only one. True: it differs."""
        before, self.ranges = self.ranges, dict.fromkeys(seen.blocks, self._options.range)
        self._warn_of(before)
        return self.ranges != before

    def trust(self) -> None:
        """Nobody but metadata and journal says anything: what the metadata shows has to do."""
        log.warning("the API does not say which ranges there are: the metadata is believed")
        self.doubted = self._unseen

    def described(self, found: Interface) -> bool:
        """The API says what there is. True: something differs."""
        before, doubted = self.ranges, self.doubted
        self._know(found)
        self._warn_of(before)
        if doubted or self.ranges != before:
            self._intents.keep()
        return self.ranges != before or bool(doubted)

    def unclear(self) -> None:
        """It is not as it was said to be."""
        self.interface = None

    def _know(self, found: Interface) -> None:
        self.interface = found
        self.ranges = {one.cidr: one.name for one in found.ranges}
        self.doubted = frozenset()
        self._intents.gone.forget(_left(found.fingerprint), ())
        self._intents.gone.forget(NIC, self.ranges)
        self._intents.made = frozenset(f"{block} {name}".rstrip() for block, name in self.ranges.items())

    def _shown(self, seen: Seen) -> frozenset[IPNetwork]:
        return seen.blocks - self._intents.gone.of(NIC, seen.blocks, GONE)

    def _warn_of(self, before: Collection[IPNetwork]) -> None:
        for block in sorted(set(before) - self.ranges.keys() - {one for _, one in self.leaving}):
            log.warning("a range is on the interface no more", extra={"range": str(block)})


def _left(fingerprint: str) -> str:
    """What was changed from, as something that went."""
    return f"fingerprint {fingerprint}"


def _intent(kept: dict[str, Any], is_rebooted: bool) -> Intent:
    fields = {**kept, "blocks": tuple(kept["blocks"]), "kept": tuple(kept["kept"])}
    return Intent(**{**fields, "since": 0.0, "over": min(kept["over"], 1.0)} if is_rebooted else fields)
