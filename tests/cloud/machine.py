"""One node's fabric of ``aws-eni`` on the emulated region: see `tests.fakes.living`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backends.aws import model
from backends.aws.calls import failed
from backends.aws.fabric import EniFabric
from backends.aws.model import Seen
from backends.aws.options import EniOptions
from backends.cloud.failures import Lost
from backends.cloud.steps import Call, Look, Steps
from cluster.peers import Source
from tests.cloud.region import NoAnswer, Refusal, Region
from tests.fakes.kernel import Killed
from tests.fakes.living import LATENCY, Clock, Living, together


class Machine(Living):
    """An instance of *region* with an agent's fabric on it."""

    def __init__(
        self, region: Region, clock: Clock, instance: str, options: EniOptions | None = None, seed: int = 0
    ) -> None:
        self.region = region
        self.options = options or EniOptions()
        super().__init__(clock, instance, seed)

    # --- what EC2 has of its own --------------------------------------------------------------------------------

    def made(self) -> tuple[Source, Steps[None]]:
        self.fabric = EniFabric(
            node=self.instance,
            options=self.options,
            journal=self.journal,
            usage=self,
            devices=self.devices,
            clock=self.clock,
            wall=self.clock,
            random=self._random.random,
            token=lambda: f"{self._random.getrandbits(128):032x}",
        )
        return self.fabric.source, self.fabric.life()

    def offered(self) -> None:
        self.allocator.offer(self.fabric.supplied(self.here).blocks)

    def perform(self, step: Call | Look) -> Any:
        try:
            return self._look() if isinstance(step, Look) else self._call(step)
        except (Refusal, NoAnswer) as error:
            what = step.action if isinstance(step, Call) else "instance metadata"
            shown = (error.code, error.message, error.status) if isinstance(error, Refusal) else ("Lost", "", 599)
            raise failed(what, *shown) from error
        finally:
            self.took = self.region.took if isinstance(step, Call) else 0.0

    def _call(self, step: Call) -> dict[str, Any]:
        self.blows.strike(is_after=False)
        answer = self.region.call(step.action, step.parameters, self.instance)
        self.blows.strike(is_after=True)
        return answer

    def _look(self) -> Seen:
        unkind = self.region.unkind
        if unkind.metadata_failing and self.region.chance() < unkind.metadata_failing:
            raise NoAnswer
        instance = self.region.instances[self.instance]
        subnet = instance.subnet
        shown = self.region.seen(self.instance)
        if not shown:
            raise AssertionError("an instance has an interface")
        enis = tuple(model.eni(one | {"TagSet": []}) for one in shown)
        subnets = {one.subnet: self.region.subnets[one.subnet].addresses.cidr for one in enis}
        networks = tuple(self.region.vpcs[subnet.vpc])
        where = (self.instance, instance.type, "eu-west-1", subnet.zone, subnet.vpc)
        (primary,) = (one for one in enis if one.is_primary)
        return Seen(*where, networks, enis, subnets, primary.groups)

    def devices(self) -> Mapping[str, str]:
        return {nic.mac: f"eth{nic.attachment.index}" for nic in self.region.attached(self.instance) if nic.attachment}

    # --- what must hold ---------------------------------------------------------------------------------------

    def unserved(self) -> set[Any]:
        """Pods' addresses that EC2 does not deliver to this instance."""
        blocks = [block for nic in self.region.attached(self.instance) for block in nic.blocks]
        return {one for one in self.addresses() if not any(one in block for block in blocks)}

    def differences(self) -> list[str]:
        """Between what EC2 has and what the agent knows; nothing, once all is at rest."""
        found = [f"undelivered: {one}" for one in self.fabric.report().undelivered]
        for nic in self.region.nics.values():
            if nic.attachment is None:
                found.append(f"{nic.id} is left behind")
            elif nic.attachment.instance == self.instance:
                known = self.fabric.inventory.enis.get(nic.id)
                if known is None or known.blocks != frozenset(nic.blocks):
                    found.append(f"{nic.id} has {nic.blocks}, the agent knows {known}")
                if not nic.attachment.goes:
                    found.append(f"{nic.id} outlives its instance")
        names = {nic.id for nic in self.region.nics.values()}
        found += [f"{name} is not there any more" for name in self.fabric.inventory.enis.keys() - names]
        return found


__all__ = ["LATENCY", "Clock", "Killed", "Lost", "Machine", "together"]
