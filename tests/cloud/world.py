"""What there is in the emulated region, as it truly is, and who made it so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from netaddr import IPAddress, IPNetwork

from tests.cloud.addresses import Addresses, SubnetFull
from tests.cloud.fate import SOMEBODY, Change, Fate
from tests.cloud.refusals import Refusal, no_nic
from tests.cloud.shapes import TYPES, Shape
from tests.cloud.unkind import KIND, Unkind


@dataclass(slots=True)
class Subnet:
    id: str
    vpc: str
    zone: str
    addresses: Addresses
    cidr6: IPNetwork | None
    tags: dict[str, str]
    prefixes6: set[int] = field(default_factory=set)


@dataclass(slots=True)
class Attachment:
    """It is attached when it is *ready*, and gone *until* then."""

    id: str
    instance: str
    index: int
    since: float
    goes: bool
    card: int = 0
    ready: float = 0.0
    until: float | None = None


@dataclass(slots=True)
class Nic:
    """A network interface as it truly is; *blocks* without its own *address*."""

    id: str
    mac: str
    subnet: Subnet
    address: IPAddress
    groups: list[str]
    description: str
    tags: dict[str, str]
    blocks: list[IPNetwork] = field(default_factory=list)
    attachment: Attachment | None = None
    has_four: bool = True
    """Not so: EFA-only, or in a subnet of IPv6 alone; *address* is then nobody's to see."""
    seen_at: float = 0.0
    """Not before then is it known to calls."""


@dataclass(slots=True)
class Instance:
    id: str
    type: str
    subnet: Subnet
    state: str = "running"
    nics: list[Nic] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def shape(self) -> Shape:
        """What it can have."""
        return TYPES[self.type]


class World(Fate[Unkind]):
    """*clock* answers seconds. What a test may set: *unkind*, *units* (of network address usage, per VPC),
    *attach_delay*, *detach_delay* (seconds, beside what *unkind* adds)."""

    def __init__(self, clock: Callable[[], float], unkind: Unkind = KIND) -> None:
        super().__init__(clock, unkind)
        self.attach_delay = self.detach_delay = 0.0
        self.units = 64_000
        self.vpcs: dict[str, list[IPNetwork]] = {}
        self.used_units: Counter[str] = Counter()
        self.subnets: dict[str, Subnet] = {}
        self.nics: dict[str, Nic] = {}
        self.instances: dict[str, Instance] = {}
        self.by_tag: dict[tuple[str, str], dict[str, None]] = {}
        self.by_token: dict[str, tuple[str, str]] = {}
        self.on_change: Callable[[Nic, float | None], None] = lambda nic, when: None
        """Called after an interface changed, now or at another time; it may be gone."""
        self._count = 0

    def set_unkind(self, unkind: Unkind) -> None:
        """How it is from now on."""
        super().set_unkind(unkind)
        for one in self.subnets.values():
            one.addresses.is_last_first = unkind.last_first

    def name(self, kind: str) -> str:
        """One that was never given before."""
        self._count += 1
        return f"{kind}-{self._count:017x}"

    # --- looking ----------------------------------------------------------------------------------------------

    def nic(self, name: str) -> Nic:
        """An interface that a call names. Refusal: there is none, or it is not seen yet."""
        if name not in self.nics or not self.is_seen(self.nics[name]):
            raise no_nic(name)
        nic = self.nics[name]
        self.settled(nic)
        return nic

    def is_seen(self, nic: Nic) -> bool:
        """Whether the server that answers knows of it."""
        return self.clock() >= nic.seen_at or (self.unkind.flickers and self.chance() < 0.5)

    def settled(self, nic: Nic) -> bool:
        """Whether it is attached still, after a detachment that may have ended meanwhile."""
        held = nic.attachment
        if held is not None and held.until is not None and self.clock() >= held.until:
            self.instances[held.instance].nics.remove(nic)
            nic.attachment = None
            self.on_change(nic, held.until)
        return nic.attachment is not None

    def is_ready(self, nic: Nic) -> bool:
        """Whether its instance has the device."""
        return self.settled(nic) and nic.attachment is not None and self.clock() >= nic.attachment.ready

    def held(self, instance: str) -> list[Nic]:
        """The interfaces of an instance, those that come or go, too."""
        return [nic for nic in list(self.instances[instance].nics) if self.settled(nic)]

    def attached(self, instance: str) -> list[Nic]:
        """The interfaces whose devices the instance has now."""
        return [nic for nic in self.held(instance) if self.is_ready(nic)]

    def all_attached(self) -> Iterator[Nic]:
        """Of every instance."""
        return (nic for one in list(self.instances) for nic in self.held(one))

    def truth(self, instance: str) -> dict[str, frozenset[IPNetwork]]:
        """The addresses and prefixes that each of an instance's interfaces has now, without its own; what is being
        detached has none."""
        nics = [nic for nic in self.held(instance) if nic.attachment is not None and nic.attachment.until is None]
        return {nic.id: frozenset(nic.blocks) for nic in nics}

    def limit(self, nic: Nic) -> int:
        """How many addresses and prefixes it may have, with its own."""
        return self.instances[nic.attachment.instance].shape.addresses if nic.attachment is not None else 50

    # --- changing ---------------------------------------------------------------------------------------------

    def make(self, subnet: Subnet, groups: list[str], description: str, tags: dict[str, str]) -> Nic:
        """A new interface, attached nowhere."""
        self.use(subnet, 1)
        try:
            address = subnet.addresses.take()
        except SubnetFull as error:
            self.use(subnet, -1)
            raise Refusal(
                "InsufficientFreeAddressesInSubnet", f"insufficient free addresses in subnet '{subnet.id}'"
            ) from error
        name = self.name("eni")
        mac = "02:" + int(name[-10:], 16).to_bytes(5, "big").hex(":")
        nic = self.nics[name] = Nic(name, mac, subnet, address, groups, description, {})
        self.retag(nic, tags)
        self._note(nic, gained=(IPNetwork(address),))
        return nic

    def remove(self, nic: Nic) -> None:
        """It is no more."""
        self.lose(nic, list(nic.blocks))
        nic.subnet.addresses.give_back(IPNetwork(nic.address))
        self.use(nic.subnet, -1)
        del self.nics[nic.id]
        self.retag(nic, {})
        self._note(nic, lost=(IPNetwork(nic.address),))
        self.on_change(nic, None)

    def gain(self, nic: Nic, blocks: list[IPNetwork]) -> None:
        """They were taken of its subnet, and are on it now."""
        nic.blocks += blocks
        self._note(nic, gained=tuple(blocks))

    def lose(self, nic: Nic, blocks: list[IPNetwork]) -> None:
        """They leave it, and are free."""
        for one in blocks:
            self.use(nic.subnet, -1)
            nic.blocks.remove(one)
            if one.version == 4:
                nic.subnet.addresses.give_back(one)
            elif nic.subnet.cidr6 is not None:
                nic.subnet.prefixes6.discard((int(one.first) - int(nic.subnet.cidr6.first)) >> 48)
        if blocks:
            self._note(nic, lost=tuple(blocks))

    def attach(self, nic: Nic, instance: Instance, slot: tuple[int, int], *, goes: bool = False) -> Attachment:
        """It comes to *slot*, of a card and an index."""
        now = self.clock()
        ready = now + self.attach_delay + self.drawn(self.unkind.attaching)
        nic.attachment = Attachment(
            self.name("eni-attach"), instance.id, slot[1], now, goes=goes, card=slot[0], ready=ready
        )
        instance.nics.append(nic)
        self._note(nic, gained=(IPNetwork(nic.address), *nic.blocks))
        return nic.attachment

    def detach(self, nic: Nic) -> None:
        """It goes."""
        assert nic.attachment is not None
        if nic.attachment.until is None:
            self._note(nic, lost=(IPNetwork(nic.address), *nic.blocks))
            nic.attachment.until = self.clock() + self.detach_delay + self.drawn(self.unkind.detaching)
        self.settled(nic)

    def retag(self, nic: Nic, tags: dict[str, str]) -> None:
        """It has these tags, and no others."""
        for tag in nic.tags.items():
            self.by_tag[tag].pop(nic.id, None)
        nic.tags = tags
        for tag in tags.items():
            self.by_tag.setdefault(tag, {})[nic.id] = None

    def use(self, subnet: Subnet, units: int) -> None:
        """Of the VPC's quota."""
        if units > 0 and self.used_units[subnet.vpc] + units > self.units:
            raise Refusal("NetworkAddressUsageLimitExceeded", f"{subnet.vpc} has {self.units} units, all in use")
        self.used_units[subnet.vpc] += units

    def _note(self, nic: Nic, gained: tuple[IPNetwork, ...] = (), lost: tuple[IPNetwork, ...] = ()) -> None:
        instance = nic.attachment.instance if nic.attachment is not None else ""
        self.log.append(Change(self.clock(), *self.doing, nic.id, instance, gained, lost))


__all__ = ["SOMEBODY", "Change", "Instance", "Nic", "Subnet", "World"]
