"""What Google may do to its callers, as switches: all off, it is as kind as its documentation allows."""

from __future__ import annotations

from dataclasses import dataclass

from tests.cloud.fate import NEVER, Within


@dataclass(frozen=True, slots=True)
class Unkind:
    """Everything drawn comes from *seed* and the order of the calls alone."""

    seed: int = 0

    losing: float = 0.0
    """The chance that a call's connection breaks, before it was done or after."""

    failing: float = 0.0
    """The chance of a server's error, as a document or as a page of what stands before it, done or not
    (cloud.google.com/apis/design/errors: 500, 502, 503)."""

    cutting: float = 0.0
    """The chance that an answer breaks off in its middle, or is no JSON, although all was done."""

    throttling: float = 0.0
    """The chance that a call is over a quota although there is some left, in each of the forms that this has."""

    doubling: float = 0.0
    """The chance that a call comes twice: without a requestId that is two operations."""

    taking: Within = NEVER
    """So long does an answer take."""

    neighbour: int = 0
    """Calls per minute of each group of methods that others of the project make: quotas are the project's ("Compute
    Engine rate quotas": "These quotas apply on a per-project basis")."""

    pending: Within = NEVER
    """An operation is PENDING for so long (API reference, Operation: PENDING, RUNNING or DONE)."""

    running: Within = NEVER
    """Then it is RUNNING for so long. What it changes, it changes somewhere in that time."""

    each_range: float = 0.0
    """Seconds more for each range that is added or removed ("Configure alias IP ranges", Limitations: 7,000 of them
    can take 10 minutes)."""

    wait_early: float = 0.0
    """The chance that zoneOperations.wait answers before its time (API reference: "the request might return before the
    default deadline is reached, or might return after zero seconds")."""

    operation_unseen: Within = NEVER
    """A new operation is not found (404) for so long: there is more than one server that answers."""

    busy: float = 0.0
    """The chance that a call is refused (400 resourceNotReady) while another operation on the instance is under way,
    and not one of the two fails (googleapis/google-api-python-client issue 485, google-cloud-java issue 9312)."""

    stale_inside: float = 0.0
    """The chance that a stale fingerprint is noticed only inside of the operation (of instances' metadata,
    cloudfoundry/bosh-google-cpi-release issue 159: both ways are known)."""

    get_lag: Within = NEVER
    """Each answer of instances.get shows the interface as it was so long ago, its fingerprint, too; one answer is older
    than the last one, at times. An operation that is DONE does not end it."""

    shuffles: bool = False
    """Ranges are listed in any order, not in that of the last change."""

    mixed_refused: bool = False
    """A call that both adds and takes away is refused. That Google does so is not known; the Terraform provider makes
    two calls of it, "since API can only add and delete" (compute_instance_network_interface_helpers.go)."""

    with_details: bool = False
    """A full range is IP_SPACE_EXHAUSTED_WITH_DETAILS (Privatehive/gcp-hosted-github-runner pull request 7), and not
    IP_SPACE_EXHAUSTED (hashicorp/terraform-cdk issue 1964)."""

    failing_inside: float = 0.0
    """The chance that an operation ends with an internal error and has changed nothing."""

    failing_done: float = 0.0
    """The chance that an operation ends with an internal error although it has changed everything."""

    moving: Within = NEVER
    """A range that another instance had in the last minute is delivered there for so much longer ("Configure alias IP
    ranges": "the transfer might take up to one minute to complete")."""

    metadata_lag: Within = NEVER
    """The metadata shows a change so much later."""

    metadata_failing: float = 0.0
    """The chance that the metadata server has an error or an error page for an answer ("View and query VM metadata":
    during maintenance, 503)."""

    metadata_taking: Within = NEVER
    """So long does its answer take (real seconds, over HTTP)."""

    poll_early: float = 0.0
    """The chance that a request that waits for a change is answered without one."""

    poll_hanging: float = 0.0
    """The chance that it is not answered when there is one, nor at its timeout, but a while later, by the end of the
    connection."""


KIND = Unkind()
"""Nothing of it."""


def worst(seed: int) -> Unkind:
    """All of it, for random walks."""
    return Unkind(
        seed=seed,
        losing=0.05,
        failing=0.05,
        cutting=0.03,
        throttling=0.05,
        doubling=0.03,
        taking=(0.0, 2.0),
        neighbour=300,
        pending=(0.0, 5.0),
        running=(0.0, 15.0),
        each_range=0.1,
        wait_early=0.3,
        operation_unseen=(0.0, 3.0),
        busy=0.5,
        stale_inside=0.5,
        get_lag=(0.0, 10.0),
        shuffles=True,
        mixed_refused=seed % 2 == 1,
        with_details=seed % 3 == 1,
        failing_inside=0.05,
        failing_done=0.03,
        moving=(0.0, 60.0),
        metadata_lag=(0.0, 20.0),
        metadata_failing=0.05,
        metadata_taking=(0.0, 0.2),
        poll_early=0.1,
        poll_hanging=0.05,
    )
