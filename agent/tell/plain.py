"""What the agent tells programs: plain values, as the documents of ``routablectl`` have them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.keep.survey import Surroundings
from agent.tell.trouble import Trouble
from ipam.family import Counts
from ipam.store import Record, Tenure


def problem(trouble: Trouble) -> Mapping[str, Any]:
    """What is wrong; *by_status* is what CNI STATUS tells, too, so that the node is NotReady for it."""
    failure = trouble.failure
    return {
        "kind": str(trouble.kind),
        "by_status": trouble.is_fatal,
        "code": failure.code,
        "msg": failure.message,
        "details": failure.details,
        "count": trouble.count,
    }


def site(now: Surroundings) -> Mapping[str, Any]:
    """Where the node is."""
    uplink = now.site.uplink
    return {
        "uplink": uplink.name,
        "uplink_mtu": uplink.mtu,
        "addresses": [str(one) for one in uplink.addresses],
        "pod_mtu": now.wiring.mtu,
        "pod_cidrs": [str(one) for one in now.site.here.pod_cidrs],
    }


def counts(one: Counts) -> Mapping[str, Any]:
    """A block of addresses."""
    return {
        "block": str(one.block.network),
        "owner": one.block.owner,
        "total": one.total,
        "used": one.used,
        "cooling": one.cooling,
        "free": one.free,
    }


def lease(record: Record) -> Mapping[str, Any]:
    """A pod that has addresses."""
    who = record.lease.who
    return {
        "addresses": [str(address) for address in record.lease.addresses],
        "network": who.network,
        "container": who.container,
        "ifname": who.ifname,
        "pod": record.pod,
        "uid": record.uid,
        "netns": record.netns,
        "mac": record.mac,
        "mtu": record.mtu,
        "since": record.since.wall,
    }


def peers(now: Surroundings, here: str) -> list[Mapping[str, Any]]:
    """The other nodes."""
    why: dict[str, list[str]] = {}
    for one in now.unserved:
        why.setdefault(one.peer, []).append(one.why)
    return [
        {
            "name": peer.name,
            "addresses": [str(address) for address in peer.addresses],
            "pod_cidrs": [str(cidr) for cidr in peer.pod_cidrs],
            "unserved": why.get(peer.name, []),
        }
        for peer in sorted(now.peers, key=lambda peer: peer.name)
        if peer.name != here
    ]


def history(tenures: list[Tenure]) -> list[dict[str, Any]]:
    """Who has and who had an address, for ``routablectl ip``."""
    return [
        {
            "address": str(one.address),
            "network": one.who.network,
            "container": one.who.container,
            "ifname": one.who.ifname,
            "pod": one.pod,
            "uid": one.uid,
            "netns": one.netns,
            "mac": one.mac,
            "since": one.since,
            "until": one.until,
        }
        for one in tenures
    ]
