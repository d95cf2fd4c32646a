"""One node's fabric of ``gcp-alias`` on the emulated project: see `tests.fakes.living`."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

from netaddr import IPNetwork

from backends.cloud.failures import CloudError, Lost
from backends.cloud.steps import Call, Look, Steps
from backends.gcp.calls import NO_ANSWER, failed
from backends.gcp.fabric import AliasFabric
from backends.gcp.model import Seen
from backends.gcp.options import AliasOptions
from cluster.peers import Source
from tests.cloud.refusals import NoAnswer, Refusal
from tests.fakes.living import Clock, Living
from tests.gcp.documents import Cut
from tests.gcp.estate import ZONE
from tests.gcp.project import Project

AGENT: Final = "an agent"
"""Who makes the calls, as the project's log has it."""
_NAMES: Final[Mapping[str, str]] = {
    "network_interface": "networkInterface",
    "network_interface_resource": "body",
    "request_id": "requestId",
}
"""The client's words in the API's."""


class AliasNode(Living):
    """The machine *instance* of *project* with an agent's fabric on it. *refusals* are errors that its next calls of an
    action get before they are made."""

    def __init__(
        self, project: Project, clock: Clock, instance: str, options: AliasOptions | None = None, seed: int = 0
    ) -> None:
        self.project = project
        self.options = options or AliasOptions(range="pods")
        self.refusals: dict[str, list[CloudError]] = {}
        self.has_device = True
        self.answered: Callable[[], frozenset[IPNetwork]] = frozenset
        self._logged = len(project.log)
        super().__init__(clock, instance, seed)

    # --- what Google has of its own -----------------------------------------------------------------------------

    def made(self) -> tuple[Source, Steps[None]]:
        self.fabric = AliasFabric(
            node=self.instance,
            options=self.options,
            journal=self.journal,
            usage=self,
            devices=lambda: {self.project.instances[self.instance].nic.mac: "ens4"} if self.has_device else {},
            answered=self._answered,
            clock=self.clock,
            random=self._random.random,
            token=lambda: str(uuid.UUID(int=self._random.getrandbits(128), version=4)),
        )
        return self.fabric.source, self.fabric.life()

    def _answered(self) -> frozenset[IPNetwork]:
        return self.answered()

    def offered(self) -> None:
        self.allocator.offer(self.fabric.supplied(self.here).blocks)

    def perform(self, step: Call | Look) -> Any:
        if isinstance(step, Look):
            return self._look()
        if self.refusals.get(step.action):
            raise self.refusals[step.action].pop(0)
        self.blows.strike(is_after=False)
        try:
            return self._call(step)
        except (Refusal, NoAnswer) as error:
            raise translated(step.action, error) from error
        finally:
            self.took = self.project.took
            self.blows.strike(is_after=True)

    def turn(self) -> float:
        seconds = super().turn()
        self.check()
        return seconds

    def _call(self, step: Call) -> dict[str, Any]:
        parameters = {_NAMES.get(name, name): value for name, value in step.parameters.items()}
        return self.project.call(step.action, parameters, AGENT)

    def _look(self) -> Seen:
        unkind = self.project.unkind
        if unkind.metadata_failing and self.project.chance() < unkind.metadata_failing:
            raise Lost("metadata", "HTTPError", "503")
        instance = self.project.instances[self.instance]
        nic, told = instance.nic, self.project.told(self.instance)
        blocks = frozenset(one.network for one in told.aliases)
        where = (str(instance.id), self.instance, self.project.project, ZONE)
        return Seen(*where, nic.address, nic.mac, self.project.mtu, nic.subnetwork.primary.cidr, blocks)

    # --- what must hold -----------------------------------------------------------------------------------------

    def check(self) -> None:
        """No address of a living pod leaves the node by the agent's own hand."""
        self.project.settle()
        new, self._logged = self.project.log[self._logged :], len(self.project.log)
        for change in new:
            if change.instance == self.instance and change.who == AGENT:
                left = [one for one in self.addresses() if any(one in block for block in change.lost)]
                assert not left, f"{left} left by {change}"

    def unserved(self) -> set[Any]:
        """Pods' addresses that are not this machine's."""
        blocks = self.project.truth(self.instance)
        return {one for one in self.addresses() if not any(one in block for block in blocks)}

    def differences(self) -> list[str]:
        """Between what Google has and what the agent knows; nothing, once all is at rest."""
        found = [f"undelivered: {one}" for one in self.fabric.report().undelivered]
        truth, known = self.project.truth(self.instance), set(self.fabric.holding.ranges)
        found += [f"{one} is not known" for one in sorted(truth - known)]
        return [*found, *(f"{one} is not there" for one in sorted(known - truth))]


def translated(action: str, error: Refusal | NoAnswer) -> CloudError:
    """As `backends.gcp.client` tells it."""
    if isinstance(error, Refusal) and (error.page is None or error.page[0].startswith("application/json")):
        return failed(action, error.code, error.message, error.status)
    return Lost(action, NO_ANSWER, type(error).__name__)


def ranges(node: AliasNode) -> frozenset[IPNetwork]:
    """Those of its machine, now."""
    return node.project.truth(node.instance)


__all__ = ["AGENT", "AliasNode", "Clock", "Cut", "ranges", "translated"]
