"""The resources as the REST API writes them: JSON, 64-bit numbers as text, and what is empty is not there."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from tests.gcp.estate import REGION, ZONE, Alias, Instance, Nic, Subnetwork, View
from tests.gcp.operations import Operation

if TYPE_CHECKING:
    from tests.gcp.project import Project

BASE = "https://www.googleapis.com/compute/v1/projects"


def instance(project: Project, one: Instance, view: View) -> dict[str, Any]:
    """As instances.get has it; *view* is what is shown of its interface."""
    base = f"{BASE}/{project.project}"
    others = [_nic(project, each, View(one.id, tuple(each.aliases))) for each in one.others]
    return {
        "kind": "compute#instance",
        "id": str(one.id),
        "name": one.name,
        "zone": f"{base}/zones/{ZONE}",
        "selfLink": f"{base}/zones/{ZONE}/instances/{one.name}",
        "machineType": f"{base}/zones/{ZONE}/machineTypes/e2-standard-4",
        "status": "RUNNING",
        "canIpForward": False,
        "networkInterfaces": [_nic(project, one.nic, view), *others],
    }


def _nic(project: Project, nic: Nic, view: View) -> dict[str, Any]:
    host = f"{BASE}/{project.host}"
    found: dict[str, Any] = {
        "kind": "compute#networkInterface",
        "name": nic.name,
        "network": f"{host}/global/networks/{nic.subnetwork.network}",
        "subnetwork": f"{host}/regions/{REGION}/subnetworks/{nic.subnetwork.name}",
        "networkIP": str(nic.address),
        "fingerprint": view.fingerprint,
        "stackType": "IPV4_ONLY",
    }
    if view.aliases:
        found["aliasIpRanges"] = [_alias(each) for each in _ordered(project, view)]
    return found


def _ordered(project: Project, view: View) -> list[Alias]:
    if not project.unkind.shuffles:
        return list(view.aliases)
    return sorted(view.aliases, key=lambda _: project.chance())


def _alias(one: Alias) -> dict[str, str]:
    found = {"ipCidrRange": str(one.network)}
    return {**found, "subnetworkRangeName": one.name} if one.name else found


def subnetwork(project: Project, one: Subnetwork, *, has_utilization: bool = False) -> dict[str, Any]:
    """As subnetworks.get has it; with the view WITH_UTILIZATION, if it *has_utilization*."""
    base = f"{BASE}/{project.host}"
    found: dict[str, Any] = {
        "kind": "compute#subnetwork",
        "id": str(one.id),
        "name": one.name,
        "network": f"{base}/global/networks/{one.network}",
        "region": f"{base}/regions/{REGION}",
        "selfLink": f"{base}/regions/{REGION}/subnetworks/{one.name}",
        "ipCidrRange": str(one.primary.cidr),
        "gatewayAddress": str(one.gateway),
        "purpose": "PRIVATE",
        "stackType": "IPV4_ONLY",
        "fingerprint": "c3VibmV0d29yaw==",
    }
    if one.secondary:
        found["secondaryIpRanges"] = [
            {"rangeName": name, "ipCidrRange": str(each.cidr)} for name, each in one.secondary.items()
        ]
    if has_utilization:
        named = [("", one.primary), *one.secondary.items()]
        found["utilizationDetails"] = {
            "ipv4Utilizations": [
                {**({"rangeName": name} if name else {}), "totalFreeIp": str(each.free)} for name, each in named
            ]
        }
    return found


def operation(project: Project, one: Operation) -> dict[str, Any]:
    """As it is now; an error is there when it is over."""
    base = f"{BASE}/{project.project}/zones/{ZONE}"
    status = one.status(project.clock())
    found: dict[str, Any] = {
        "kind": "compute#operation",
        "id": str(one.id),
        "name": one.name,
        "zone": base,
        "operationType": "updateNetworkInterface",
        "targetLink": f"{base}/instances/{one.instance}",
        "targetId": str(one.instance_id),
        "status": status,
        "user": one.who,
        "progress": 100 if status == "DONE" else 0,
        "insertTime": _time(one.inserted),
        "selfLink": f"{base}/operations/{one.name}",
    }
    if one.request:
        found["clientOperationId"] = one.request
    if status != "PENDING":
        found["startTime"] = _time(one.starts)
    if status == "DONE":
        found["endTime"] = _time(one.done)
        if one.error is not None:
            found["error"] = {"errors": [{"code": one.error.code, "message": one.error.message}]}
            found["httpErrorStatusCode"] = one.error.status
            found["httpErrorMessage"] = HTTPStatus(one.error.status).phrase.upper()
    return found


def _time(when: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(when)) + f".{int(when % 1 * 1000):03d}-00:00"
