"""The parts of ``aws-eni``'s fabric, put together: what each knows of the others is said here alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from backends.aws.calls import CAPACITY, REFILL, about
from backends.aws.changes import Changes
from backends.aws.guards import Guards
from backends.aws.indexes import Indexes
from backends.aws.inventory import Inventory
from backends.aws.leaving import Leaving
from backends.aws.model import Seen
from backends.aws.options import EniOptions
from backends.aws.placement import Placement
from backends.aws.refusals import Refusals
from backends.aws.stock import Stock
from backends.aws.sweep import Sweep
from backends.cloud.asking import Cloud
from backends.cloud.pacing import Pacer
from backends.cloud.usage import Usage
from backends.cloud.watch import Watch
from dataplane.memory import Memory


@dataclass(frozen=True, slots=True)
class Parts:
    """Each is what its class says."""

    options: EniOptions
    usage: Usage
    obstacles: Refusals
    cloud: Cloud
    inventory: Inventory
    leaving: Leaving
    changes: Changes
    stock: Stock
    placement: Placement
    guards: Guards
    sweep: Sweep
    watch: Watch[Seen]


def assembled(
    *,
    options: EniOptions,
    journal: Memory,
    usage: Usage,
    devices: Callable[[], Mapping[str, str]],
    clock: Callable[[], float],
    random: Callable[[], float],
    token: Callable[[], str],
    wall: Callable[[], float],
    boot: str,
) -> Parts:
    """See `backends.aws.fabric.EniFabric`, which is made of the same."""
    obstacles = Refusals(clock, random)
    cloud = Cloud(Pacer(CAPACITY, REFILL, random), obstacles, clock, about)
    inventory = Inventory(journal, clock, boot, usage.addresses)
    indexes = Indexes(clock)
    leaving = Leaving(inventory, cloud, usage, indexes, clock)
    placement = Placement(options, cloud)
    return Parts(
        options=options,
        usage=usage,
        obstacles=obstacles,
        cloud=cloud,
        inventory=inventory,
        leaving=leaving,
        changes=Changes(
            options=options,
            inventory=inventory,
            cloud=cloud,
            obstacles=obstacles,
            leaving=leaving,
            indexes=indexes,
            token=token,
            clock=clock,
            wall=wall,
        ),
        stock=Stock(
            options=options,
            inventory=inventory,
            leaving=leaving,
            obstacles=obstacles,
            usage=usage,
            devices=devices,
            clock=clock,
        ),
        placement=placement,
        guards=Guards(options, inventory, placement, cloud, clock, random),
        sweep=Sweep(options.cluster, cloud, clock, random, wall),
        watch=Watch(lambda seen: inventory.differences(seen.enis), clock, random),
    )
