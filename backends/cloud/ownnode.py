"""The one node that a cloud's backend knows of: this machine, as its instance metadata describes it."""

from __future__ import annotations

import logging
from typing import Any, Final

from netaddr import IPAddress

from backends.cloud.failures import Lost
from backends.cloud.steps import Look, Steps, Wait
from cluster.peers import Peer
from cni.errors import Failure, TryAgain

log = logging.getLogger(__name__)

AGAIN: Final = 3.0
"""Seconds until the metadata is read again, where it could not be read."""


class OwnNode:
    """`cluster.peers.Source` of the node *name*. The fabric's thread reads; any may ask."""

    origin: Final = "the instance metadata"

    def __init__(self, name: str) -> None:
        self._name = name
        self._told: frozenset[Peer] = frozenset()
        self.nodes: frozenset[Peer] = frozenset()
        """This node, as soon as it is known."""
        self.problem: Failure = TryAgain("the agent is starting", "it has not read the instance metadata yet")
        """Why it is not."""

    @property
    def error(self) -> Failure | None:
        """See `cluster.peers.Source.error`."""
        return None if self.nodes else self.problem

    def refresh(self) -> bool:
        """See `cluster.peers.Source.refresh`."""
        is_new, self._told = self.nodes != self._told, self.nodes
        return is_new

    def read(self) -> Steps[Any]:
        """What the metadata says, once it can be read."""
        while True:
            try:
                return (yield Look())
            except Lost as error:
                self.problem = TryAgain("the instance metadata cannot be read", str(error))
                log.error("the instance metadata cannot be read", extra={"error": str(error)})
                yield Wait(AGAIN, AGAIN)

    def is_at(self, address: IPAddress) -> None:
        """The node is known now."""
        self.nodes = frozenset({Peer(self._name, (address,), ())})
