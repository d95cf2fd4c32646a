"""What is wrong on this node, and which of it CNI STATUS may tell.

A runtime makes the node NotReady for any error of STATUS, and 300 s later all its pods are evicted. So STATUS fails
where this node's networking as such cannot work, and there alone: no ADD can be served whatever the pods do, and pods
are better off elsewhere. All else is told to people, by ``routablectl status``, metrics, /readyz and the log, and to
the pod that it concerns, by its own ADD. See docs/failures.md for what a runtime makes of either.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from cni.errors import Failure


class Kind(enum.StrEnum):
    """What a trouble is about: a label of ``routable_problems``. A backend has kinds of its own besides: see
    `backends.told.Told`."""

    AGENT = "agent"
    """The agent itself does not do its work."""
    WIRING = "wiring"
    """How to wire pods is not known, or not anew: the list of nodes lacks this one, or the uplink is gone."""
    JOURNAL = "journal"
    """Nothing can be saved."""
    POOL = "pool"
    """There is no address for a pod now."""
    NODES = "nodes"
    """The list of nodes is unusable as it is now; the last good one is in use."""
    PEERS = "peers"
    """Other nodes that the backend cannot reach."""
    UNDELIVERED = "undelivered"
    """Pods whose addresses a cloud, or the list of nodes, does not give to this node any more."""
    HOST = "host"
    """What others made of this host, and how it treats pods' packets."""
    OBJECTS = "objects"
    """What is in the kernel for the whole node and could not be put right."""
    KUBERNETES = "kubernetes"
    """What this node's Node shall say cannot be said."""
    RUNTIME = "runtime"
    """The runtime's directories: the executable or the network configuration is not there as it should be."""
    METRICS = "metrics"
    """The HTTP port is another's."""
    PODS = "pods"
    """What is in the kernel for one pod and could not be put right."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that is wrong, or *count* of one kind. *is_fatal*: this node's networking as such cannot work.
    *may_end*: soon, by itself, so that who asks may wait for a moment. *bars_adds*: no ADD would be served now."""

    kind: str
    failure: Failure
    count: int = 1
    is_fatal: bool = False
    may_end: bool = False
    bars_adds: bool = False
