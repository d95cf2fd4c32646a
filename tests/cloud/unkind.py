"""What EC2 may do to its callers, as switches: all off, it is as kind as its documentation allows."""

from __future__ import annotations

from dataclasses import dataclass

from tests.cloud.fate import NEVER, Within


@dataclass(frozen=True, slots=True)
class Unkind:
    """Everything drawn comes from *seed* and the order of the calls alone."""

    seed: int = 0

    last_first: bool = False
    """What was given back last is what is given next. AWS promises no order of addresses (Amazon EC2 API Reference,
    AssignPrivateIpAddresses: "automatically assigned from the subnet's CIDR range")."""

    unseen: Within = NEVER
    """A new interface is not known to any other call for so long: InvalidNetworkInterfaceID.NotFound, and Describe
    does not list it (Amazon EC2 Developer Guide, "Eventual consistency": "its ID might not have propagated throughout
    the system, and you will get an error responding that the resource does not exist"; hashicorp/terraform-provider-aws
    issue 35568, aws/aws-sdk issue 301)."""

    flickers: bool = False
    """While it is unseen, some calls know of it and others do not: there is more than one server that answers."""

    unseen_empty: float = 0.0
    """The chance that who asks for an unseen interface by its id gets a list of none, and no error
    (hashicorp/terraform-provider-aws, internal/service/ec2/find.go, findNetworkInterface: AssertSingleValueResult)."""

    attaching: Within = NEVER
    """An attachment is "attaching" for so much longer (API Reference, NetworkInterfaceAttachment, Status)."""

    detaching: Within = NEVER
    """Likewise "detaching"; until then the interface is in use and cannot be deleted."""

    attached_words: bool = False
    """DeleteNetworkInterface of one in use says InvalidParameterValue, "Network interface '...' is currently in use."
    (aws/amazon-vpc-cni-k8s issue 1399), and not InvalidNetworkInterface.InUse as in the list of error codes."""

    index_of_any_card: bool = False
    """An attachment that names no network card is refused if the index is in use on any card, though card 0 is the
    default (cilium/cilium pull request 42512)."""

    describe_lag: Within = NEVER
    """Each record of each answer of DescribeNetworkInterfaces is so old, one answer's older than the last one's, too
    (Developer Guide, "Eventual consistency": of what a command did the result "might not be immediately visible to
    all subsequent commands"; cilium/cilium issue 36428)."""

    losing: float = 0.0
    """The chance that a call's connection breaks, before it was done or after (Developer Guide, "Ensuring idempotency
    in Amazon EC2 API requests": "it might not be possible to determine whether the request succeeded")."""

    failing: float = 0.0
    """The chance of a server's error, in EC2's document or as a page of what stands before it, done or not ("Error
    codes for the Amazon EC2 API": InternalError, Unavailable)."""

    throttling: float = 0.0
    """The chance that a call is throttled although there are tokens left."""

    doubling: float = 0.0
    """The chance that a call comes twice: assigning is not idempotent."""

    taking: Within = NEVER
    """So long does an answer take."""

    neighbour: float = 0.0
    """Calls per second of each action that others of the account make: the buckets are the account's in its region
    (Developer Guide, "Request throttling for the Amazon EC2 API")."""

    throttling_codes: bool = False
    """Throttling has any of the codes that the SDKs take for it, not RequestLimitExceeded alone."""

    metadata_lag: Within = NEVER
    """The metadata shows each interface as it was so long ago (aws/amazon-vpc-cni-k8s pull request 1011, issues 1339
    and 2497: the last tells of metadata that never caught up)."""

    metadata_halves: float = 0.0
    """The chance that an interface is listed, but what it has is not there (404) in that answer."""

    metadata_failing: float = 0.0
    """The chance that a request for metadata, or for a token, has an error or an error page for an answer."""

    metadata_taking: Within = NEVER
    """So long does an answer of the metadata take (real seconds, over HTTP)."""


KIND = Unkind()
"""Nothing of it."""


def worst(seed: int) -> Unkind:
    """All of it, for random walks."""
    return Unkind(
        seed=seed,
        last_first=seed % 2 == 1,
        unseen=(0.0, 6.0),
        flickers=True,
        unseen_empty=0.5,
        attaching=(0.0, 10.0),
        detaching=(0.0, 10.0),
        attached_words=True,
        index_of_any_card=True,
        describe_lag=(0.0, 5.0),
        losing=0.05,
        failing=0.05,
        throttling=0.05,
        doubling=0.02,
        taking=(0.0, 2.0),
        neighbour=2.0,
        throttling_codes=True,
        metadata_lag=(0.0, 20.0),
        metadata_halves=0.05,
        metadata_failing=0.05,
        metadata_taking=(0.0, 0.2),
    )
