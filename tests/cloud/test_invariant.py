"""No address of a living pod leaves its node by the agent's own hand, whatever was given back and comes again.

The region here is unfriendly: what is given back is the first to be given again, to whoever asks next; its answers lag
behind, one more than the other; calls fail, processes die, the metadata stands still, the journal is of yesterday.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from netaddr import IPAddress

from backends.aws.inventory import Intent
from backends.aws.model import Seen
from backends.aws.options import EniOptions
from ipam.warmpool import Targets
from tests.cloud.machine import Clock, Killed, Machine, together
from tests.cloud.refusals import NoAnswer
from tests.cloud.region import Region
from tests.cloud.test_fabric import REST, well
from tests.cloud.unkind import KIND, Unkind, worst

PREFIXES = EniOptions()
SINGLES = EniOptions(warm=Targets(is_prefix_mode=False, warm_addresses=4))


class Place:
    """A region with one VPC and one subnet."""

    def __init__(self, cidr: str = "10.0.0.0/20", unkind: Unkind = KIND) -> None:
        self.clock = Clock()
        self.region = Region(self.clock, unkind)
        self.region.attach_delay = self.region.detach_delay = 3.0
        self.vpc = self.region.add_vpc("10.0.0.0/16")
        self.subnet = self.region.add_subnet(self.vpc, cidr)

    def machine(self, options: EniOptions, seed: int = 0, type_: str = "m5.large") -> Watched:
        return Watched(self.region, self.clock, self.region.run_instance(type_, self.subnet), options, seed)


class Watched(Machine):
    """Looks after every step whether EC2 has each pod's address on this instance. Its metadata can stand still."""

    frozen: Seen | None = None

    def turn(self) -> float:
        try:
            return super().turn()
        finally:
            assert self.lost() == set()

    def lost(self) -> set[IPAddress]:
        """Pods' addresses that EC2 has elsewhere, or nowhere."""
        nics = [one for one in self.region.held(self.instance) if one.attachment and one.attachment.until is None]
        blocks = [block for nic in nics for block in nic.blocks]
        return {one for one in self.addresses() if not any(one in block for block in blocks)}

    def freeze(self) -> None:
        """The metadata shows for good what it shows now."""
        with suppress(NoAnswer):  # there is nothing to be shown for good
            self.frozen = super()._look()

    def _look(self) -> Seen:
        return self.frozen or super()._look()


@pytest.mark.parametrize(("options", "pods"), [(SINGLES, 22), (PREFIXES, 200)], ids=["addresses", "prefixes"])
@pytest.mark.parametrize("pause", [0.0, 20.0, 70.0])
def test_pods_after_a_drain_keep_what_came_back(options: EniOptions, pods: int, pause: float) -> None:
    """Pods, a drain, pods again, a restart: what was given back has come again, and is theirs."""
    place = Place()
    machine, other = place.machine(options), place.machine(options, seed=1)
    together([machine, other], 5, place.clock)
    machine.add(pods)
    together([machine, other], 60, place.clock)
    machine.delete(pods)
    together([machine, other], 140, place.clock)
    machine.add(pods)
    together([machine, other], 60 + pause, place.clock)
    machine.crash()
    together([machine, other], 30, place.clock)
    assert machine.fabric.report().undelivered == ()
    other.add(pods)
    together([machine, other], REST, place.clock)
    assert not machine.addresses() & other.addresses()
    assert (len(machine.pods), len(other.pods)) == (pods, pods)
    well(machine)
    well(other)


@pytest.mark.parametrize("kind", ["unassign", "delete"])
def test_what_an_old_journal_was_about_to_take_away_is_kept_if_it_is_used(kind: Literal["unassign", "delete"]) -> None:
    """It may be of before the blocks came again: EC2 shows them, pods have them, and so they stay and are offered."""
    place = Place()
    machine = place.machine(PREFIXES)
    machine.run(5)
    machine.add(200)
    machine.run(30)
    for one in list(machine.fabric.inventory.enis.values()):
        if kind == "unassign" or not one.is_primary:
            blocks = tuple(map(str, one.blocks))
            machine.fabric.inventory.begin(Intent(kind, place.clock.now - 7200, one.id, blocks=blocks))
    machine.crash()
    machine.run(REST)
    assert len(machine.pods) == 200
    assert not machine.fabric.report().undelivered
    machine.add(5)
    well(machine)


DISTURBANCES = {
    "add": 4, "delete": 3, "drain": 2, "fault": 2, "kill": 2, "restart": 2, "freeze": 1, "thaw": 1,
    "lose the journal": 1, "an older journal": 1,
}  # fmt: skip


def disturbed(place: Place, machine: Watched, journals: list[dict[str, str]], data: st.DataObject) -> None:
    """Something happens to a machine or in the region."""
    what = data.draw(st.sampled_from([name for name, share in DISTURBANCES.items() for _ in range(share)]))
    if what == "add":
        machine.add(data.draw(st.integers(1, 80)))
    elif what == "delete":
        machine.delete(data.draw(st.integers(1, 40)))
    elif what == "drain":
        machine.delete(len(machine.pods))
    elif what == "fault":
        kind = data.draw(st.sampled_from(["throttle", "error500", "lost_before", "lost_after"]))
        place.region.fail("*", data.draw(st.integers(1, 5)), kind)
    elif what == "kill":
        machine.blows.nth = machine.blows.count + data.draw(st.integers(1, 6))
        machine.blows.is_after = data.draw(st.booleans())
    elif what == "freeze":
        machine.freeze()
    elif what == "thaw":
        machine.frozen = None
    else:
        if what != "restart":
            # Without memory it is EC2 that has to say what there is: an answer that lags behind could not be told.
            place.region.set_unkind(KIND)
            place.region.faults.clear()
            machine.journal.kept = (
                dict(journals[data.draw(st.integers(0, len(journals) - 1))]) if "older" in what else {}
            )
        machine.crash()
    journals.append(dict(machine.journal.kept))


def passed(place: Place, machines: list[Watched], seconds: float) -> None:
    """So much time passes; who dies starts anew."""
    until = place.clock.now + seconds
    while place.clock.now < until:
        try:
            together(machines, min(5.0, until - place.clock.now), place.clock)
        except Killed:
            for one in machines:
                if one.blows.is_dead:
                    one.crash()


SEEDS = st.integers(0, 99)
LAGS = st.sampled_from([(0.0, 0.0), (0.0, 5.0), (0.0, 40.0)])
UNKIND = st.builds(worst, SEEDS) | st.builds(
    Unkind,
    seed=SEEDS,
    last_first=st.booleans(),
    unseen=st.sampled_from([(0.0, 0.0), (1.0, 8.0)]),
    flickers=st.booleans(),
    attaching=LAGS,
    detaching=LAGS,
    attached_words=st.booleans(),
    describe_lag=LAGS,
)


@settings(max_examples=60 if os.environ.get("FUZZ") else 24, deadline=None)
@given(st.data())
def test_no_address_of_a_living_pod_leaves_the_node(data: st.DataObject) -> None:
    """Two nodes take each other's addresses as soon as these are free: at every step EC2 has each pod's address on its
    node, and so none is given twice; in the end nothing is left behind, and all that wait are served."""
    place = Place(data.draw(st.sampled_from(["10.0.0.0/24", "10.0.0.0/20"])), data.draw(UNKIND))
    place.region.lag = data.draw(st.sampled_from([0.0, 10.0, 120.0]))
    options = data.draw(st.sampled_from([SINGLES, PREFIXES]))
    machines = [place.machine(options, seed=number) for number in range(2)]
    journals: list[list[dict[str, str]]] = [[{}], [{}]]
    for _ in range(data.draw(st.integers(1, 15))):
        number = data.draw(st.integers(0, 1))
        disturbed(place, machines[number], journals[number], data)
        passed(place, machines, data.draw(st.floats(0.1, 150)))
    place.region.faults.clear()
    place.region.set_unkind(KIND)
    for one in machines:
        one.blows.nth, one.frozen = 0, None
        one.parked.clear()
    passed(place, machines, 2 * REST)
    for one in machines:
        well(one)
