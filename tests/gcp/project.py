"""A model of Compute Engine, as far as alias IP ranges go: strict, in memory, on a clock of the caller's.

``Project.call`` takes and answers what the REST API does: the method's name ("instances.get"), the parameters of its
URL, and its body as the parameter "body". Behaviour is that of the API reference and of Google's guides; where these
are silent, the stricter reading was taken, and what is a guess is in `unverified`. How unfriendly it is beyond that is
said by `Unkind`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from netaddr import IPNetwork

from tests.cloud.answering import Answering, Parameters
from tests.cloud.fate import Within
from tests.cloud.faults import Kinds, kinds
from tests.cloud.refusals import NoAnswer, Refusal
from tests.gcp import leaves, rendering, unverified
from tests.gcp.documents import CUT, ERRORS, SERVER, THROTTLED, Cut, forbidden, not_found, over_operations, refusal
from tests.gcp.estate import REGION, ZONE, Estate, Instance
from tests.gcp.operations import Operation, Operations
from tests.gcp.quotas import Quotas
from tests.gcp.role import Role, needed
from tests.gcp.unkindness import KIND, Unkind
from tests.gcp.updating import update


class Project(Estate, Answering[Unkind]):
    """*clock* answers seconds. What a test may set: *role*, *denied*, *has_quotas*, *most_ranges* (150 a NIC; 100 or 10
    in older projects), *most_operations*."""

    def __init__(self, clock: Callable[[], float], unkind: Unkind = KIND) -> None:
        super().__init__(clock, unkind)
        self.role: Role | None = None
        """What callers may do; None: all."""
        self.denied: set[str] = set()
        """Permissions that are taken away, whatever the role has."""
        self.has_quotas = True
        self.quotas = Quotas(self)
        self.most_ranges = 150
        self.most_operations = unverified.CONCURRENT
        self.operations = Operations(self)
        self._methods: Mapping[str, Callable[[Parameters], dict[str, Any]]] = {
            "instances.get": self._get_instance,
            "instances.updateNetworkInterface": self._update,
            "subnetworks.get": self._get_subnetwork,
            "zoneOperations.get": self._get_operation,
            "zoneOperations.wait": self._get_operation,
        }

    def blocks(self, method: str, parameters: Mapping[str, Any]) -> float:
        """How many seconds a call waits before it is done: whoever makes it lets them pass first."""
        if method != "zoneOperations.wait":
            return 0.0
        with self._lock:
            self.settle()
            found = self.operations.get(parameters["operation"])
            return self.operations.blocks(found) if found is not None else 0.0

    def truth(self, instance: str) -> frozenset[IPNetwork]:
        """The ranges that its interface has now."""
        with self._lock:
            return super().truth(instance)

    def delivered(self, instance: str) -> frozenset[IPNetwork]:
        """What the VPC delivers to it now: see `Estate.delivered`."""
        with self._lock:
            return super().delivered(instance)

    def metadata(self, instance: str) -> leaves.Tree:
        """All that its metadata has now."""
        with self._lock:
            return leaves.tree(self, instance)

    # --- what happens to a call -------------------------------------------------------------------------------

    def errors(self) -> Mapping[str, Refusal]:
        return ERRORS

    def kinds(self) -> Kinds:
        return (*kinds(self.unkind, SERVER, THROTTLED), (self.unkind.cutting, CUT))

    def taking(self) -> Within:
        return self.unkind.taking

    def spoil(self, fault: str, answer: dict[str, Any]) -> None:
        if fault in CUT:
            raise Cut(answer, fault == "half")
        super().spoil(fault, answer)

    def answered(self, action: str, parameters: Parameters) -> dict[str, Any]:
        """What Google does and says."""
        self.settle()
        if action not in self._methods:
            raise refusal(404, "notFound", f"Method not found: {action}")
        if self.has_quotas:
            self.quotas.spend(action)
        if missing := self._missing(action, parameters):
            raise forbidden(missing, f"projects/{self.project}/{action}")
        home = self.host if action.startswith("subnetworks.") else self.project
        if (given := parameters.pop("project")) != home and (given != str(self.number) or home != self.project):
            raise not_found(f"projects/{given}")
        answer = self._methods[action](parameters)
        if parameters:  # each method takes out what it knows
            names = ", ".join(f'"{one}"' for one in sorted(parameters))
            raise refusal(400, "badRequest", f"Invalid JSON payload received. Unknown name {names}: Cannot bind.")
        return answer

    def _missing(self, action: str, parameters: Parameters) -> str:
        missing = self.role.missing(action, parameters) if self.role is not None else ""
        return missing or next((one for one in needed(action, parameters) if one in self.denied), "")

    # --- methods ----------------------------------------------------------------------------------------------

    def _instance(self, p: Parameters) -> Instance:
        zone, name = p.pop("zone"), p.pop("instance")
        found = self.instances.get(name) or next((one for one in self.instances.values() if str(one.id) == name), None)
        if found is None or zone != ZONE:
            raise not_found(f"projects/{self.project}/zones/{zone}/instances/{name}")
        return found

    def _get_instance(self, p: Parameters) -> dict[str, Any]:
        instance = self._instance(p)
        return rendering.instance(self, instance, self.shown(instance))

    def _update(self, p: Parameters) -> dict[str, Any]:
        instance, nic = self._instance(p), p.pop("networkInterface", "")
        if nic != instance.nic.name:
            raise refusal(400, "invalid", f"Invalid value for field 'networkInterface': '{nic}'.")
        if self.operations.under_way() >= self.most_operations:
            raise over_operations()
        request, body = p.pop("requestId", ""), p.pop("body")
        found = update(self, self.operations, instance, request, body, self.most_ranges)
        self.settle()  # one that takes no time is over, with what came of it
        return rendering.operation(self, found)

    def _get_subnetwork(self, p: Parameters) -> dict[str, Any]:
        region, name, views = p.pop("region"), p.pop("subnetwork"), p.pop("views", "")
        if region != REGION or name not in self.subnetworks:
            raise not_found(f"projects/{self.host}/regions/{region}/subnetworks/{name}")
        return rendering.subnetwork(self, self.subnetworks[name], has_utilization=views == "WITH_UTILIZATION")

    def _get_operation(self, p: Parameters) -> dict[str, Any]:
        zone, name = p.pop("zone"), p.pop("operation")
        found = self.operations.get(name)
        if found is None or zone != ZONE:
            raise not_found(f"projects/{self.project}/zones/{zone}/operations/{name}")
        return rendering.operation(self, found)


__all__ = ["NoAnswer", "Operation", "Project", "Refusal"]
