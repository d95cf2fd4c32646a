"""What there is in the emulated project, as it truly is, and who made it so.

Whatever happens by itself, an operation above all, happens when its time has come and anybody looks: there is no
thread, and a virtual clock is as good as a real one.
"""

from __future__ import annotations

import base64
import hashlib
import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from netaddr import IPAddress, IPNetwork

from tests.cloud.fate import Change, Fate
from tests.cloud.past import Past
from tests.gcp.ranges import Exhausted, Ranges
from tests.gcp.unkindness import KIND, Unkind

REGION = "europe-west1"
ZONE = "europe-west1-b"
PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
RECENT = 60.0
"""Seconds in which a range that was elsewhere counts as moved."""
RESERVED = (0, 1, -2, -1)
"""Addresses of a primary range that nobody gets; of a secondary range everybody gets all ("Subnets", Unusable addresses
in IPv4 subnet ranges)."""


@dataclass(frozen=True, slots=True)
class Alias:
    """A range on an interface, of the subnet's secondary range *name*, or of its primary one ('')."""

    network: IPNetwork
    name: str = ""


@dataclass(slots=True)
class Subnetwork:
    name: str
    network: str
    primary: Ranges
    secondary: dict[str, Ranges]
    id: int

    def range(self, name: str) -> Ranges:
        """The secondary range of that name, or the primary one. KeyError."""
        return self.secondary[name] if name else self.primary

    @property
    def gateway(self) -> IPAddress:
        """The second address."""
        return IPAddress(self.primary.cidr.first + 1)


@dataclass(slots=True)
class Nic:
    """An interface as it truly is, *aliases* in the order of the last change."""

    subnetwork: Subnetwork
    address: IPAddress
    aliases: list[Alias] = field(default_factory=list)
    name: str = "nic0"
    since: dict[IPNetwork, float] = field(default_factory=dict)
    """Not before then is a range delivered here."""
    others: int = 0
    """How often something else of it was changed: the fingerprint is of the whole interface."""

    @property
    def networks(self) -> frozenset[IPNetwork]:
        """All its ranges."""
        return frozenset(one.network for one in self.aliases)

    @property
    def mac(self) -> str:
        """As Google makes them of the address."""
        return "42:01:" + int(self.address).to_bytes(4, "big").hex(":")


@dataclass(slots=True)
class Instance:
    """*account* and *scopes* are those of its service account; without one there are no tokens. *others* are its
    interfaces after the first."""

    name: str
    id: int
    nic: Nic
    account: str
    scopes: tuple[str, ...] = (PLATFORM,)
    others: list[Nic] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class View:
    """What is shown of an interface of the instance *id*."""

    id: int
    aliases: tuple[Alias, ...]
    others: int = 0

    @property
    def fingerprint(self) -> str:
        """A "hash of contents stored in this network interface" (API reference): the same contents, the same hash."""
        text = f"{self.id} {self.others} {sorted((str(one.network), one.name) for one in self.aliases)}"
        return base64.b64encode(hashlib.sha256(text.encode()).digest()[:8]).decode()


class Estate(Fate[Unkind]):
    """*clock* answers seconds."""

    def __init__(self, clock: Callable[[], float], unkind: Unkind = KIND) -> None:
        super().__init__(clock, unkind)
        self.project, self.number = "routable-test", 123456789012
        self.host = self.project
        """The project that has the network: another one, where it is shared (Shared VPC)."""
        self.network, self.mtu = "default", 1460
        self.most_aliases: int | None = None
        """Ranges that all interfaces of the network may have ("Quotas and limits", VPC: IP aliases per VPC network,
        which counts them whatever their size); None: any number."""
        self.lag = 0.0
        """The metadata's, beside what *unkind* adds."""
        self.subnetworks: dict[str, Subnetwork] = {}
        self.instances: dict[str, Instance] = {}
        self._ids = 4_000_000_000_000_000_000
        self._due: list[tuple[float, int, Callable[[float], None]]] = []
        self._shown: Past[View] = Past()
        self._told: Past[View] = Past()
        self._told_at: dict[str, float] = {}
        self._ghosts: list[tuple[float, str, IPNetwork]] = []

    def id(self) -> int:
        """One that was never given before."""
        self._ids += 7_919
        return self._ids

    # --- time -------------------------------------------------------------------------------------------------

    def at(self, when: float, do: Callable[[float], None]) -> None:
        """*do* happens then."""
        heapq.heappush(self._due, (when, self.id(), do))

    def settle(self) -> None:
        """All happens whose time has come."""
        while self._due and self._due[0][0] <= self.clock():
            when, _, do = heapq.heappop(self._due)
            do(when)

    # --- looking ----------------------------------------------------------------------------------------------

    def truth(self, instance: str) -> frozenset[IPNetwork]:
        """The ranges that its interface has now."""
        self.settle()
        return self.instances[instance].nic.networks

    def delivered(self, instance: str) -> frozenset[IPNetwork]:
        """What the VPC delivers to it now: what is moved comes a while later, and until then where it was."""
        self.settle()
        now, nic = self.clock(), self.instances[instance].nic
        self._ghosts = [one for one in self._ghosts if one[0] > now]
        own = {one for one in nic.networks if nic.since.get(one, 0.0) <= now}
        return frozenset(own | {network for _, name, network in self._ghosts if name == instance})

    def view(self, instance: Instance) -> View:
        """Of its interface, as it is."""
        return View(instance.id, tuple(instance.nic.aliases), instance.nic.others)

    def shown(self, instance: Instance) -> View:
        """Of its interface, as the API shows it."""
        lag = self.drawn(self.unkind.get_lag)
        found = self._shown.at(instance.name, self.clock() - lag) if lag else None
        return found if found is not None and found.id == instance.id else self.view(instance)

    def told(self, name: str) -> View:
        """Of the interface of an instance, as its metadata has it."""
        self.settle()
        found = self._told.at(name, self.clock())
        instance = self.instances[name]
        return found if found is not None and found.id == instance.id else View(instance.id, ())

    # --- changing ---------------------------------------------------------------------------------------------

    def add_subnetwork(self, name: str, cidr: str, **secondary: str) -> Subnetwork:
        """A subnet of the network, with secondary ranges by name ('_' for '-')."""
        ranges = {key.replace("_", "-"): Ranges(IPNetwork(one)) for key, one in secondary.items()}
        made = Subnetwork(name, self.network, Ranges(IPNetwork(cidr), RESERVED), ranges, self.id())
        self.subnetworks[name] = made
        return made

    def run_instance(self, name: str, subnetwork: str, aliases: Sequence[tuple[str, str]] = ()) -> Instance:
        """A new instance; *aliases* are lengths of prefixes ("/24") and names of secondary ranges."""
        one = self.subnetworks[subnetwork]
        made = Instance(name, self.id(), Nic(one, one.primary.take(32).ip), f"node@{self.project}")
        self.instances[name] = made
        wanted = [Alias(one.range(range_).take(int(length[1:])), range_) for length, range_ in aliases]
        self.change(made, wanted, self.clock(), is_new=True)
        return made

    def add_nic(self, name: str, subnetwork: str) -> Nic:
        """One more interface of that instance."""
        one, instance = self.subnetworks[subnetwork], self.instances[name]
        made = Nic(one, one.primary.take(32).ip, name=f"nic{len(instance.others) + 1}")
        instance.others.append(made)
        return made

    def remove_instance(self, name: str) -> None:
        """It is no more; one of the same name is another."""
        self.settle()
        instance = self.instances.pop(name)
        self._free(instance.nic.subnetwork, instance.nic.aliases)
        for nic in (instance.nic, *instance.others):
            nic.subnetwork.primary.give_back(IPNetwork(nic.address))
        self._note(instance, self.clock(), lost=tuple(sorted(instance.nic.networks)))

    def taken(self, subnetwork: Subnetwork, wanted: Sequence[tuple[int | IPNetwork, str]]) -> list[Alias]:
        """All or nothing: blocks of these lengths, or these very ones. `Exhausted` with the range's name, `InUse`."""
        found: list[Alias] = []
        try:
            for what, name in wanted:
                range_ = subnetwork.range(name)
                if isinstance(what, int):
                    found.append(Alias(range_.take(what), name))
                elif range_.take_this(what):
                    found.append(Alias(what, name))
                else:
                    raise InUse(what)
        except (Exhausted, InUse) as error:
            self._free(subnetwork, found)
            raise error if isinstance(error, InUse) else Exhausted(name) from error
        return found

    def change(self, instance: Instance, aliases: Sequence[Alias], when: float, *, is_new: bool = False) -> None:
        """Its interface has these ranges from then on; those that it had not are taken of the subnet already."""
        nic = instance.nic
        gone = [one for one in nic.aliases if one not in aliases]
        come = [one for one in aliases if one not in nic.aliases]
        nic.aliases = list(aliases)
        self._free(nic.subnetwork, gone)
        for one in gone:
            nic.since.pop(one.network, None)
        for one in come:
            self._arrive(instance, one.network, when)
        if gone or come:
            lost, gained = (tuple(sorted(each.network for each in these)) for these in (gone, come))
            self._note(instance, when, gained, lost)
        self._show(instance, when, is_new=is_new)

    def _free(self, subnetwork: Subnetwork, aliases: Sequence[Alias]) -> None:
        for one in aliases:
            subnetwork.range(one.name).give_back(one.network)

    def _arrive(self, instance: Instance, network: IPNetwork, when: float) -> None:
        """It is delivered at once, or if another instance had it until lately, later."""
        nic = instance.nic
        nic.since[network] = when
        if not self.unkind.moving[1]:
            return
        for one in reversed(self.log):
            if one.when < when - RECENT:
                break
            moved = [each for each in one.lost if each in network or network in each]
            if moved and one.instance != instance.name:
                until = nic.since[network] = max(nic.since[network], when + self.drawn(self.unkind.moving))
                self._ghosts += [(until, one.instance, each) for each in moved]

    def _show(self, instance: Instance, when: float, *, is_new: bool) -> None:
        name, view = instance.name, self.view(instance)
        self._shown.put(name, when, view, self.clock() - self.unkind.get_lag[1])
        late = 0.0 if is_new else self.lag + self.drawn(self.unkind.metadata_lag)
        # What is told of one instance never goes back.
        self._told_at[name] = max(self._told_at.get(name, 0.0), when + late)
        self._told.put(name, self._told_at[name], view, self.clock())

    def _note(
        self,
        instance: Instance,
        when: float,
        gained: tuple[IPNetwork, ...] = (),
        lost: tuple[IPNetwork, ...] = (),
    ) -> None:
        self.log.append(Change(when, *self.doing, instance.nic.name, instance.name, gained, lost))


class InUse(Exception):
    """A block, some of which is taken: nothing was taken."""
