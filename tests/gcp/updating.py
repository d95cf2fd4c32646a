"""instances.updateNetworkInterface: what is refused at once, and the operation that comes of the rest."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from netaddr import AddrFormatError, IPNetwork

from tests.gcp import unverified
from tests.gcp.documents import invalid, not_ready, refusal, stale
from tests.gcp.estate import Alias, Estate, Instance, Subnetwork
from tests.gcp.operations import Operation, Operations, Wanted

_FIELDS = {"fingerprint", "aliasIpRanges", "name"}
"""What a body may have; `name` is sent by Kubernetes' own GCE provider (AddAliasToInstanceByProviderID)."""
_OTHERS = {"accessConfigs", "network", "subnetwork", "networkIP", "kind", "stackType", "nicType", "queueCount"}


def update(
    estate: Estate, operations: Operations, instance: Instance, request: str, body: Mapping[str, Any], most: int
) -> Operation:
    """The operation, or the one that the same request was before; *most* are the ranges that an interface may have."""
    if request:
        _check_request(request)
        known = operations.by_request.get((instance.name, request))
        if known is not None and known.instance_id == instance.id:
            return known
    _check_fields(body)
    given = body.get("fingerprint", "")
    if not given:
        raise refusal(400, "required", "Required field 'resource.fingerprint' not specified")
    if estate.unkind.busy and operations.is_busy(instance.name) and estate.chance() < estate.unkind.busy:
        raise not_ready(f"projects/{estate.project}/zones/europe-west1-b/instances/{instance.name}")
    is_stale = estate.view(instance).fingerprint != given
    if is_stale and not (estate.unkind.stale_inside and estate.chance() < estate.unkind.stale_inside):
        raise stale()
    nic, wanted = instance.nic, None
    if "aliasIpRanges" in body:
        wanted = _read(body["aliasIpRanges"], nic.subnetwork)
        if not is_stale:
            _check_change(estate, nic.aliases, wanted)
        if len(wanted) > most:
            raise invalid("aliasIpRanges", "", unverified.TOO_MANY.format(count=len(wanted), most=most))
    held = {(one.network, one.name) for one in nic.aliases}
    changes = sum(one not in held for one in wanted) + len(held - set(wanted)) if wanted is not None else 0
    return operations.begin(instance, given, wanted, changes, request)


def _check_request(request: str) -> None:
    """API reference: "a valid UUID with the exception that zero UUID is not supported"."""
    try:
        is_good = uuid.UUID(request).int != 0 and len(request) == 36
    except ValueError:
        is_good = False
    if not is_good:
        raise refusal(400, "invalid", f"Invalid value for field 'requestId': '{request}'. Must be a valid UUID.")


def _check_fields(body: Mapping[str, Any]) -> None:
    for name in body:
        if name in _OTHERS:  # kubernetes/kubernetes pull request 59423
            raise invalid(name, "", "Updating this field is not supported.")
        if name not in _FIELDS:
            raise refusal(
                400, "badRequest", f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.'
            )


def _read(rows: Any, subnetwork: Subnetwork) -> Wanted:
    """API reference, aliasIpRanges[].ipCidrRange: "a single IP address (such as 10.2.3.4), a netmask (such as /24) or a
    CIDR-formatted string (such as 10.1.2.0/24)"."""
    found: list[tuple[int | IPNetwork, str]] = []
    for number, row in enumerate(rows):
        field = f"aliasIpRanges[{number}]"
        if row.keys() - {"ipCidrRange", "subnetworkRangeName"}:
            raise refusal(400, "badRequest", f"Invalid JSON payload received. Unknown name at '{field}'.")
        name, text = row.get("subnetworkRangeName", ""), row.get("ipCidrRange", "")
        if name and name not in subnetwork.secondary:
            raise invalid(f"{field}.subnetworkRangeName", name, "The subnetwork has no such secondary range.")
        cidr = subnetwork.range(name).cidr
        if text.startswith("/") and text[1:].isdigit() and cidr.prefixlen <= int(text[1:]) <= 32:
            found.append((int(text[1:]), name))
            continue
        network = _network(f"{field}.ipCidrRange", text)
        if network not in cidr:
            raise invalid(f"{field}.ipCidrRange", text, f"The range is not within {cidr}.")
        if any(isinstance(one, IPNetwork) and (one in network or network in one) for one, _ in found):
            raise invalid(f"{field}.ipCidrRange", text, "The range overlaps with another one of the interface.")
        found.append((network, name))
    return found


def _network(field: str, text: str) -> IPNetwork:
    try:
        network = IPNetwork(text)
    except (AddrFormatError, ValueError):
        raise invalid(field, text, "Must be a CIDR range, a netmask or an address.") from None
    if network.version != 4 or network.ip != network.network:
        raise invalid(field, text, "Must be an IPv4 range, and its first address.")
    return network


def _check_change(estate: Estate, held: list[Alias], wanted: Wanted) -> None:
    have = {(one.network, one.name) for one in held}
    come = [one for one in wanted if one not in have]
    gone = have - set(wanted)
    for network, _ in come:
        if isinstance(network, IPNetwork) and any(network in one or one in network for one, _ in gone):
            raise invalid("aliasIpRanges", str(network), unverified.AS_UPDATE.format(range=network))
    if estate.unkind.mixed_refused and come and gone:
        raise invalid("aliasIpRanges", "", unverified.AS_UPDATE.format(range=sorted(gone)[0][0]))
