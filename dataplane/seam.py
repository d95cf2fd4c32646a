"""The seam between the agent and the kernel."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from cni.spec import Identity
from dataplane.diff import Change
from dataplane.items import Item, Key
from dataplane.observe import Scope


class Dataplane(Protocol):
    """The seam: the kernel in earnest, a model of it in tests."""

    def identity(self, netns: str) -> Identity | None:
        """Which network namespace is at the path *netns*; None: nothing is there.

        Raises:
            EnvironmentInvalid: what is there is no network namespace, or it is the node's.
        """

    def leads_to(self, link: str, netns: str) -> bool:
        """Whether the other end of the host's *link* is in the namespace at the path *netns*."""

    def defaults(self, netns: str, ifname: str) -> frozenset[int]:
        """The families (4, 6) in which the namespace at *netns* has a default route by another link than *ifname*."""

    def observe(self, scopes: Collection[Scope]) -> dict[Key, Item]:
        """What is ours and there, within *scopes*; a namespace that is gone holds nothing, and neither does a link.

        Raises:
            EnvironmentInvalid: where a pod's namespace should be is none.
            KernelRefused, TryAgain: one of them cannot be looked at, which says nothing of the others.
        """

    def apply(self, changes: Sequence[Change]) -> None:
        """Make the changes, in their order within each namespace, the host's first.

        Raises:
            KernelRefused: a change was refused, and the message says which; others, before and after it, may have
                been made, so the caller observes again before it decides anything.
            TryAgain: the kernel, or this process, was short of something for the moment.
        """
