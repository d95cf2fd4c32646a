"""What is about to be changed in a cloud, kept in the agent's journal before the cloud is asked.

A process that is killed between a call and its answer leaves an intent, and the next goes on from what the cloud says
then. Beside the intents stands what went lately (`LatelyGone`), and the names of what agents *made*, which the cloud
may not tell apart from the rest. All of it says on which machine and during which boot it was kept: see `arrived`; what
an earlier boot entered counts as of this one's begin.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterable
from typing import Any, Generic, Protocol, TypeVar

from netaddr import IPAddress

from backends.cloud.gone import LatelyGone
from dataplane.memory import Memory

log = logging.getLogger(__name__)


class Entry(Protocol):
    """An intent: a NamedTuple of what JSON can hold."""

    def _asdict(self) -> dict[str, Any]: ...


I = TypeVar("I", bound=Entry)  # noqa: E741 (an intent of one cloud)


class Intents(Generic[I]):
    """Under *name* in the *journal*. *read* makes an intent of what was kept of it, and is told whether that was before
    this *boot*; *clock* answers seconds since the boot, *held* the addresses of pods."""

    def __init__(
        self,
        journal: Memory,
        name: str,
        *,
        read: Callable[[dict[str, Any], bool], I],
        clock: Callable[[], float],
        boot: str,
        held: Callable[[], Collection[IPAddress]],
    ) -> None:
        self._journal = journal
        self._name = name
        self._boot = boot
        text = journal.recall(name)
        self.is_new: bool = text is None
        """Whether no agent has been here before."""
        found = json.loads(text) if text is not None else {"intents": [], "gone": {}, "made": []}
        is_rebooted = found.get("boot", "") != boot
        self._machine: str = found.get("instance", "")
        self.now: tuple[I, ...] = tuple(read(one, is_rebooted) for one in found["intents"])
        """What may be under way."""
        self.gone = LatelyGone(dict.fromkeys(found["gone"], 0.0) if is_rebooted else found["gone"], clock, held)
        self.made: frozenset[str] = frozenset(found["made"])

    def arrived(self, machine: str) -> None:
        """This is the machine of that id. What another began is not gone on with: this one was started from its disk or
        image, and what the intents are about is a node's that lives."""
        if self._machine not in ("", machine):
            log.warning("another instance kept the journal: it is begun anew", extra={"instance": self._machine})
            self.gone.times, self.made = {}, frozenset()
            self.now, self.is_new = (), True
        self._machine = machine

    def begin(self, intent: I) -> None:
        """Enter an intent."""
        self._keep((*self.now, intent))

    def change(self, old: I, new: I) -> None:
        """Enter more of an intent."""
        self._keep(new if one == old else one for one in self.now)

    def strike(self, intent: I) -> None:
        """Strike out an intent: its end is known. With it `gone` and `made` are kept as they are now."""
        self._keep(one for one in self.now if one != intent)

    def keep(self) -> None:
        """Have `gone` and `made` kept as they are now."""
        self._keep(self.now)

    def _keep(self, intents: Iterable[I]) -> None:
        now = tuple(intents)
        document = {"intents": [one._asdict() for one in now], "gone": self.gone.times, "made": sorted(self.made)}
        self._journal.remember(self._name, json.dumps({**document, "instance": self._machine, "boot": self._boot}))
        self.now = now
        self.is_new = False
