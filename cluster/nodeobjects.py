"""What the Kubernetes API says of Nodes, decoded and read: each Node becomes a Peer, whatever is wrong with it.

What always holds: what cannot be used of one Node is a flaw of its Peer and takes nothing away from the others. The
fields are those of the API's v1: NodeList, Node, WatchEvent, Status.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, NamedTuple, TypeVar

import msgspec
from msgspec import Meta
from netaddr import IPAddress, IPNetwork

from cluster import addresses
from cluster.peers import ASN_MAX, Peer

ANNOTATION: Final = "routable.io/pod-cidrs"
"""Stands in where nobody gives Nodes pod CIDRs: CIDRs with commas between them."""
ASN: Final = "routable.io/asn"
"""The annotation with the number of a Node's autonomous system."""
LABELS: Final = ("topology.kubernetes.io/", "routable.io/")
"""What the labels that are known of a Node begin with: a cluster has thousands of Nodes, each with dozens."""

_SHOWN: Final = 40

T = TypeVar("T")


class _Of(msgspec.Struct, frozen=True, rename="camel"):
    """A part of an object: what is not named is not even decoded."""


class _Metadata(_Of, frozen=True):
    name: str = ""
    resource_version: str = ""
    creation_timestamp: str | None = None
    annotations: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class _Spec(_Of, frozen=True):
    pod_cidrs: Annotated[list[str] | None, Meta()] = msgspec.field(default=None, name="podCIDRs")


class _Address(_Of, frozen=True):
    type: str = ""
    address: str = ""


class _Status(_Of, frozen=True):
    addresses: list[_Address] | None = None


class NodeObject(_Of, frozen=True):
    """A Node, as far as it concerns us."""

    metadata: _Metadata = _Metadata()
    spec: _Spec = _Spec()
    status: _Status = _Status()


class _ListMeta(_Of, frozen=True):
    resource_version: str = ""
    rest: str = msgspec.field(default="", name="continue")


class Page(_Of, frozen=True):
    """One answer to a list; *metadata.rest* asks for the next, where there is one."""

    kind: str
    metadata: _ListMeta
    items: list[NodeObject] | None = None


class Event(_Of, frozen=True):
    """One line of a watch."""

    type: str
    object: msgspec.Raw


class Details(_Of, frozen=True):
    """What an error says besides."""

    retry_after_seconds: float | None = None


class StatusObject(_Of, frozen=True):
    """A Status: why there is no answer."""

    kind: str = ""
    code: int = 0
    reason: str = ""
    message: str = ""
    details: Details | None = None


def decoded(raw: bytes | msgspec.Raw, wanted: type[T]) -> T:
    """What *raw* is. ValueError: it is none of these."""
    try:
        return msgspec.json.decode(raw, type=wanted)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


class Described(NamedTuple):
    """A Node as it says of itself; *created* orders those that contradict each other, and *spans* are its addresses and
    ranges in numbers: family, first, last."""

    peer: Peer
    created: str
    spans: tuple[tuple[int, int, int], ...]


def described(node: NodeObject) -> Described:
    """What *node* says of itself."""
    own, bad_own = _addresses(node.status.addresses or ())
    cidrs, bad_cidrs = _pod_cidrs(node)
    asn, bad_asn = _asn(node)
    flaws = (*bad_own, *bad_cidrs, *bad_asn)
    spans = (
        *((one.version, int(one), int(one)) for one in own),
        *((one.version, int(one.first), int(one.last)) for one in cidrs),
    )
    peer = Peer(node.metadata.name, own, cidrs, flaws, asn, _labels(node))
    return Described(peer, node.metadata.creation_timestamp or "", spans)


def _asn(node: NodeObject) -> tuple[int, list[str]]:
    """The number in the annotation; 0 where there is none."""
    text = (node.metadata.annotations or {}).get(ASN, "").strip()
    if not text:
        return 0, []
    if not text.isascii() or not text.isdigit() or len(text) > len(str(ASN_MAX)) or not 1 <= int(text) <= ASN_MAX:
        return 0, [f"its annotation {ASN} is {text[:_SHOWN]!r}, and no number from 1 to {ASN_MAX}"]
    return int(text), []


def _labels(node: NodeObject) -> tuple[tuple[str, str], ...]:
    labels = node.metadata.labels or {}
    known = ((sys.intern(key), sys.intern(value)) for key, value in labels.items() if key.startswith(LABELS))
    return tuple(sorted(known))


def _addresses(listed: Sequence[_Address]) -> tuple[tuple[IPAddress, ...], list[str]]:
    """The first InternalIP of each family."""
    found: dict[int, IPAddress] = {}
    flaws = []
    for one in listed:
        if one.type == "InternalIP":
            try:
                address = addresses.address(one.address)
                addresses.refuse_reserved(address)
            except ValueError as error:
                flaws.append(f"its InternalIP {one.address!r} {error}")
            else:
                found.setdefault(address.version, address)
    if not found and not flaws:
        flaws.append("its Node has no InternalIP among status.addresses")
    return tuple(found[family] for family in sorted(found)), flaws


def split(annotations: Mapping[str, str]) -> list[str]:
    """The ranges that they have, as they stand there."""
    return [one.strip() for one in annotations.get(ANNOTATION, "").split(",") if one.strip()]


def _pod_cidrs(node: NodeObject) -> tuple[tuple[IPNetwork, ...], list[str]]:
    """What the Node's spec says, or else the annotation."""
    where, texts = "spec.podCIDRs", node.spec.pod_cidrs or []
    if not texts:
        where, texts = f"annotation {ANNOTATION}", split(node.metadata.annotations or {})
    found, flaws = [], []
    for text in texts:
        try:
            cidr = addresses.cidr(text)
            addresses.refuse_reserved(cidr)
        except ValueError as error:
            flaws.append(f"its {where} has {text!r}, which {error}")
        else:
            found.append(cidr)
    if not texts:
        flaws.append(f"its Node has neither spec.podCIDRs (yet) nor an annotation {ANNOTATION}")
    apart: list[IPNetwork] = []
    for cidr in sorted(dict.fromkeys(found), key=lambda one: (one.version, one.first, one.prefixlen)):
        if apart and cidr in apart[-1]:
            flaws.append(f"its {where} has {str(cidr)!r}, which lies in {apart[-1]} beside it")
        else:
            apart.append(cidr)
    return tuple(apart), flaws
