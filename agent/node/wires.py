"""One attachment in the kernel: recognised, made, mended, removed. No lease and no lock is known here: see `Node`."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from dataclasses import replace

from agent.node import pod as pods
from agent.node.ledger import Asked
from backends.podlink import link_name, own_table, remains
from backends.wiring import Wiring
from cni.errors import EnvironmentInvalid, Failure, InterfaceExists, KernelRefused
from cni.spec import Attachment, Identity
from dataplane.diff import Change, diff, standing
from dataplane.items import Plan, Rule, Space
from dataplane.observe import Pod
from dataplane.seam import Dataplane
from ipam.store import Record


class Wires:
    """Whoever calls has the attachment's lock."""

    def __init__(self, dataplane: Dataplane) -> None:
        self._dataplane = dataplane

    # --- which pod it is --------------------------------------------------------------------------------------

    def found(self, who: Attachment, asked: Asked) -> Asked:
        """What is *asked*, with what the pod's namespace is, and what is in it besides.

        EnvironmentInvalid: there is none.
        """
        space = self._dataplane.identity(asked.netns)
        if space is None:
            raise EnvironmentInvalid(f"CNI_NETNS names nothing: {asked.netns!r}", "the path does not exist")
        # The first network of a pod gives it its default routes. One that comes beside it leaves them out, as the
        # specification of 0.4.0 has it, and says so in its result.
        return replace(asked, space=space, beside=asked.beside | self._dataplane.defaults(asked.netns, who.ifname))

    def met(self, record: Record, netns: str) -> Record | None:
        """The record with what is known of its pod's namespace, if that is the one at *netns*, and None if it is not.

        Where it was not known yet, as with the journal of an earlier agent or none, the pod's link tells where it is.
        """
        space = self._dataplane.identity(netns)
        if space is None:
            return None
        if record.space is None:
            is_it = self._dataplane.leads_to(link_name(record.lease.who), netns)
        else:
            is_it = space == record.space
        if not is_it:
            return None
        met = replace(record, netns=netns, space=space)
        return self.beside_others(self._as_found(met, space)) if record.space is None else met

    def _as_found(self, record: Record, space: Identity) -> Record:
        """The record of which the pod's own rules tell in which families it has no default route."""
        place = Space(record.netns, space)
        have = self._dataplane.observe([Pod(place, record.lease.who.ifname, has_rules=True)])
        table = own_table(link_name(record.lease.who))
        families = frozenset(item.family for item in have.values() if isinstance(item, Rule) and item.table == table)
        return _beside(record, families)

    def beside_others(self, record: Record) -> Record:
        """The record without the default routes that others have in its pod now."""
        others = self._dataplane.defaults(record.netns, record.lease.who.ifname)
        return _beside(record, others.union(record.beside))

    def still_there(self, record: Record) -> Record | None:
        """See `met`, of the path where the pod was last; what is no pod's namespace any more is not it."""
        try:
            return self.met(record, record.netns) if record.netns else None
        except EnvironmentInvalid:
            return None

    def as_it_is(self, record: Record) -> Record:
        """The record with the hardware address that the pod's end has now, which the host has to send to: a plugin that
        is chained after us may have changed it. What cannot be seen is taken to be as it was."""
        end = pods.end(record)
        try:
            return pods.seen(record, self._dataplane.observe([end])) if end is not None else record
        except Failure:
            return record

    # --- the wire ---------------------------------------------------------------------------------------------

    def wire(self, record: Record, wiring: Wiring) -> None:
        """Make all that the pod's wiring consists of.

        InterfaceExists: the pod has an interface of that name; KernelRefused, TryAgain: it could not be made.
        """
        want = wiring.pod(record)
        try:
            self._dataplane.apply(diff({}, want))
        except KernelRefused as error:
            if (error.errno, error.kind) != (errno.EEXIST, "link"):
                raise
            have = self._dataplane.observe(pods.scopes(record, wiring))
            if pods.port(record, have) is not None:
                raise exists(record) from error
            if pods.link_key(record) not in have:
                raise
            # The host's end of a link whose other end is in no pod that we know: left by something that went wrong.
            self.dismantle({record.lease.who: record})
            self._dataplane.apply(diff({}, want))

    def mended(
        self, record: Record, have: Plan, wiring: Wiring, allowed: Callable[[Change], bool]
    ) -> list[Change]:
        """Put right on the host what differs from *have* and is *allowed*; the answer is what was changed."""
        want = pods.on_host(wiring.pod(record))
        changes = standing(diff(have, want), allowed)
        self._dataplane.apply(changes)
        return changes

    def dismantle(self, records: Mapping[Attachment, Record | None]) -> None:
        """Want nothing of these attachments, with or without a lease. What is gone, or not ours, is not touched."""
        self._dataplane.apply([change for who, record in records.items() for change in diff(remains(who, record), {})])


def _beside(record: Record, families: frozenset[int]) -> Record:
    """The record without a default route in these *families*."""
    return replace(record, beside=Asked("", beside=families).beside_of(record.lease))


def exists(record: Record) -> InterfaceExists:
    """The pod has an interface of that name already."""
    who = record.lease.who
    return InterfaceExists(
        f"CNI_IFNAME {who.ifname!r} exists already in {record.netns}",
        "nothing was changed; DEL comes before another ADD, or ask for another name",
    )
