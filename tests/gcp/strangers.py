"""Somebody else's hands on the same project: whatever a person or another controller may do to a machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from netaddr import IPNetwork

from tests.cloud.fate import SOMEBODY
from tests.gcp.estate import Alias, Instance, InUse
from tests.gcp.project import Project
from tests.gcp.ranges import Exhausted


class Hands:
    """At work in *project*; what they do is in its log as somebody's."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def add(self, name: str, length: int = 28, range_: str = "") -> IPNetwork:
        """A range more than was asked for. Exhausted."""
        with self._project.by(SOMEBODY, "add"):
            instance = self._project.instances[name]
            (new,) = self._project.taken(instance.nic.subnetwork, [(length, range_)])
            self._set(instance, [*instance.nic.aliases, new])
            return new.network

    def take(self, name: str, network: IPNetwork) -> None:
        """A range, although it is in use."""
        with self._project.by(SOMEBODY, "take"):
            instance = self._project.instances[name]
            self._set(instance, [one for one in instance.nic.aliases if one.network != network])

    def move(self, network: IPNetwork, old: str, new: str) -> None:
        """From one machine to another, of the same subnet."""
        with self._project.by(SOMEBODY, "move"):
            held = next(one for one in self._project.instances[old].nic.aliases if one.network == network)
            self.take(old, network)
            there = self._project.instances[new]
            taken = self._project.taken(there.nic.subnetwork, [(network, held.name)])
            self._set(there, [*there.nic.aliases, *taken])

    def touch(self, name: str) -> None:
        """Something of the interface that is not its ranges: only the fingerprint tells (of instances' metadata,
        GoogleCloudPlatform/magic-modules pull request 1614)."""
        instance = self._project.instances[name]
        instance.nic.others += 1
        self._set(instance, instance.nic.aliases)

    def recreate(self, name: str) -> Instance:
        """The machine is deleted, and there is another one of its name."""
        with self._project.by(SOMEBODY, "recreate"):
            subnetwork = self._project.instances[name].nic.subnetwork.name
            self._project.remove_instance(name)
            return self._project.run_instance(name, subnetwork)

    def exhaust(self, subnetwork: str, range_: str = "", leave: int = 0) -> list[IPNetwork]:
        """A stranger has all of a range but so many /28s."""
        with self._project.by(SOMEBODY, "exhaust"):
            found = self._project.subnetworks[subnetwork].range(range_)
            kept = [found.take(28) for _ in range(leave)]
            taken = []
            for length in range(found.cidr.prefixlen, 33):
                try:
                    while True:
                        taken.append(found.take(length))
                except Exhausted:
                    continue
            for one in kept:
                found.give_back(one)
            return taken

    def release(self, subnetwork: str, networks: Sequence[IPNetwork], range_: str = "") -> None:
        """The stranger gives them back."""
        for one in networks:
            self._project.subnetworks[subnetwork].range(range_).give_back(one)

    def meddle(self, name: str, range_: str = "") -> None:
        """One of all that, drawn; never the machine's end. *range_* or the primary one."""
        project = self._project
        aliases = project.instances[name].nic.aliases
        what: list[Callable[[], object]] = [
            lambda: self.add(name, 28, range_),
            lambda: self.add(name, 32),
            lambda: self.touch(name),
        ]
        if aliases:
            one = aliases[int(project.chance() * len(aliases))].network
            others = [each for each in project.instances if each != name]
            what.append(lambda: self.take(name, one))
            what += [lambda other=each: self.move(one, name, other) for each in others[:1]]  # type: ignore[misc]
        try:
            what[int(project.chance() * len(what))]()
        except (Exhausted, InUse):
            return

    def _set(self, instance: Instance, aliases: Sequence[Alias]) -> None:
        self._project.settle()
        self._project.change(instance, aliases, self._project.clock())
