"""Somebody else's hands on the same account: whatever a person or another controller may do to an instance."""

from __future__ import annotations

from collections.abc import Callable

from netaddr import IPNetwork

from tests.cloud.assigning import assign
from tests.cloud.refusals import Refusal
from tests.cloud.region import Region
from tests.cloud.world import SOMEBODY, Nic


class Hands:
    """At work in *region*; what they do is in its log as somebody's."""

    def __init__(self, region: Region) -> None:
        self._region = region

    def attach(self, instance: str, index: int, *, card: int = 0, has_four: bool = True) -> Nic:
        """An interface of theirs; without IPv4 it is EFA-only, or in a subnet of IPv6 alone."""
        with self._region.by(SOMEBODY, "attach"):
            one = self._region.instances[instance]
            nic = self._region.make(one.subnet, ["sg-other"], "somebody's", {})
            nic.has_four = has_four
            self._region.attach(nic, one, (card, index))
            return self._shown(nic)

    def detach(self, nic: Nic) -> Nic:
        """Whosever it is."""
        with self._region.by(SOMEBODY, "detach"):
            self._region.detach(nic)
            return self._shown(nic)

    def delete(self, nic: Nic) -> None:
        """Detached or not: by force."""
        with self._region.by(SOMEBODY, "delete"):
            held = nic.attachment
            if held is not None:
                self._region.detach(nic)
                held.until = self._region.clock()
                self._region.settled(nic)
            self._region.remove(nic)

    def assign(self, nic: Nic, addresses: int = 0, prefixes: int = 0) -> list[IPNetwork]:
        """More than was asked for."""
        with self._region.by(SOMEBODY, "assign"):
            found = assign(self._region, nic, (addresses, prefixes), self._region.limit(nic))
            self._shown(nic)
            return found

    def unassign(self, nic: Nic, block: IPNetwork) -> None:
        """Although it is in use."""
        with self._region.by(SOMEBODY, "unassign"):
            self._region.lose(nic, [block])
            self._shown(nic)

    def move(self, block: IPNetwork, old: Nic, new: Nic) -> None:
        """From one interface to another (AssignPrivateIpAddresses, AllowReassignment)."""
        with self._region.by(SOMEBODY, "move"):
            self._region.lose(old, [block])
            self._region.use(new.subnet, 1)
            for address in block:
                assert new.subnet.addresses.take_this(address)
            self._region.gain(new, [block])
            self._shown(old)
            self._shown(new)

    def change(
        self, nic: Nic, *, tags: dict[str, str] | None = None, groups: list[str] | None = None, goes: bool | None = None
    ) -> None:
        """Its tags, its security groups, whether it goes with its instance."""
        if tags is not None:
            self._region.retag(nic, tags)
        if groups is not None:
            nic.groups = groups
        if goes is not None and nic.attachment is not None:
            nic.attachment.goes = goes
        self._shown(nic)

    def meddle(self, instance: str) -> None:
        """One of all that, drawn; never the primary interface's end."""
        nics = self._region.held(instance)
        nic = nics[int(self._region.chance() * len(nics))]
        what: list[Callable[[], object]] = [
            lambda: self.attach(instance, 1 + int(self._region.chance() * 4)),
            lambda: self.assign(nic, addresses=1),
            lambda: self.change(nic, goes=self._region.chance() < 0.5),
        ]
        if nic is not nics[0]:
            what += [lambda: self.detach(nic), lambda: self.delete(nic)]
        if nic.blocks:
            what.append(lambda: self.unassign(nic, nic.blocks[0]))
            others = [one for one in nics if one is not nic and one.subnet is nic.subnet]
            what += [lambda other=one: self.move(nic.blocks[0], nic, other) for one in others]  # type: ignore[misc]
        try:
            what[int(self._region.chance() * len(what))]()
        except Refusal:
            return

    def _shown(self, nic: Nic) -> Nic:
        self._region.on_change(nic, None)
        return nic
