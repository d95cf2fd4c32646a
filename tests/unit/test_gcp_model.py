"""What Google's API and the configuration say, as values; what errors of the API mean."""

from __future__ import annotations

import json

import pytest
from netaddr import IPNetwork

import backends
from agent.ctl import main as ctl
from backends.cloud.failures import Lost, Refused, Throttled
from backends.descriptor import Wrong
from backends.gcp import calls, model, table
from backends.gcp.calls import UPDATE, failed
from backends.gcp.model import Interface, Operation, Range, Room
from backends.gcp.show import shown
from backends.gcp.table import GcpTable

ANSWER = {
    "networkInterfaces": [
        {"name": "nic1", "fingerprint": "other"},
        {
            "name": "nic0",
            "fingerprint": "abc=",
            "subnetwork": "https://compute.googleapis.com/compute/v1/projects/p/regions/r/subnetworks/s",
            "aliasIpRanges": [
                {"ipCidrRange": "10.4.0.0/28", "subnetworkRangeName": "pods"},
                {"ipCidrRange": "10.0.0.9/32"},
            ],
        },
    ]
}
SUBNET = {
    "ipCidrRange": "10.0.0.0/16",
    "secondaryIpRanges": [{"rangeName": "pods", "ipCidrRange": "10.4.0.0/20"}],
    "utilizationDetails": {
        "ipv4Utilizations": [{"totalFreeIp": "17"}, {"rangeName": "pods", "totalFreeIp": "5"}],
    },
}


def test_the_first_interface_is_read() -> None:
    """Its fingerprint, its ranges with what they are of, and its subnet."""
    found = model.interface(ANSWER)
    assert found.fingerprint == "abc="
    assert found.ranges == (Range(IPNetwork("10.4.0.0/28"), "pods"), Range(IPNetwork("10.0.0.9/32")))
    assert model.subnet_of(found.subnetwork) == {"project": "p", "region": "r", "subnetwork": "s"}
    with pytest.raises(LookupError, match="nic0"):
        model.interface({"networkInterfaces": [{"name": "nic1"}]})


@pytest.mark.parametrize("url", ["", "projects/p/regions/r", "projects/p/subnetworks/s", "a/subnetworks"])
def test_a_url_of_no_subnet_is_refused(url: str) -> None:
    """Rather than asking for something else."""
    with pytest.raises(ValueError, match="names no subnet"):
        model.subnet_of(url)


def test_the_whole_list_is_sent() -> None:
    """What is there as it is, what is wanted by its length; a range of the subnet's own has no name."""
    ranges = (Range(IPNetwork("10.4.0.0/28"), "pods"), Range(IPNetwork("10.0.0.9/32")))
    assert model.body("abc=", Interface("abc=", ranges).ranges, [("/28", "pods"), ("/27", "")]) == {
        "fingerprint": "abc=",
        "aliasIpRanges": [
            {"ipCidrRange": "10.4.0.0/28", "subnetworkRangeName": "pods"},
            {"ipCidrRange": "10.0.0.9/32"},
            {"ipCidrRange": "/28", "subnetworkRangeName": "pods"},
            {"ipCidrRange": "/27"},
        ],
    }


@pytest.mark.parametrize(
    ("answer", "operation"),
    [
        ({"name": "o", "status": "RUNNING"}, Operation("o", is_done=False)),
        ({"name": "o", "status": "DONE"}, Operation("o", is_done=True)),
        (
            {"name": "o", "status": "DONE", "error": {"errors": [{"code": "X", "message": "why"}]}},
            Operation("o", True, "X", "why"),
        ),
        (
            {"name": "o", "status": "DONE", "httpErrorStatusCode": 412, "httpErrorMessage": "PRECONDITION FAILED"},
            Operation("o", True, "412", "PRECONDITION FAILED"),
        ),
    ],
)
def test_an_operation_is_done_or_not_or_failed(answer: dict[str, object], operation: Operation) -> None:
    """It may say why in two ways."""
    assert model.operation(answer) == operation


def test_what_is_left_of_a_range() -> None:
    """The primary one has no name; of one that the subnet does not have there is nothing to say."""
    assert model.room(SUBNET, "pods") == Room(IPNetwork("10.4.0.0/20"), 5)
    assert model.room(SUBNET, "") == Room(IPNetwork("10.0.0.0/16"), 17)
    assert model.room({"ipCidrRange": "10.0.0.0/16"}, "") == Room(IPNetwork("10.0.0.0/16"), None)
    assert model.room(SUBNET, "other") is None


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("rateLimitExceeded", 403, Throttled),
        ("CONCURRENT_OPERATIONS_QUOTA_EXCEEDED", 403, Throttled),
        ("RESOURCE_OPERATION_RATE_EXCEEDED", 0, Throttled),
        ("anything", 429, Throttled),
        ("backendError", 503, Lost),
        ("forbidden", 403, Refused),
        ("conditionNotMet", 412, Refused),
    ],
)
def test_what_an_error_means(code: str, status: int, kind: type[Exception]) -> None:
    """By what is known afterwards."""
    assert type(failed(UPDATE, code, "words", status)) is kind


def test_codes_are_known_in_both_spellings() -> None:
    """The API's errors have one, its operations' another."""
    for code in ("conditionNotMet", "CONDITION_NOT_MET", "412"):
        assert calls.is_stale(Refused(UPDATE, code, ""))
    assert calls.is_full(Refused(UPDATE, "IP_SPACE_EXHAUSTED", ""))
    assert calls.is_limited(Refused(UPDATE, "limitExceeded", ""))
    assert calls.is_about_credentials(Refused(UPDATE, "RefreshError", ""))
    assert calls.is_about_credentials(Refused(UPDATE, "401", ""))
    assert not calls.is_about_credentials(Throttled(UPDATE, "401", ""))


def test_the_table_is_what_the_fabric_wants() -> None:
    """Prefix lengths become numbers of addresses, and 0 nothing."""
    found = table.wanted(GcpTable(range="pods", prefix=27, largest_prefix=25, warm_ranges=2))
    assert (found.warm.prefix_size, found.warm.largest_size, found.warm.warm_prefixes) == (32, 128, 2)
    assert (found.warm.warm_addresses, found.warm.minimum_addresses, found.warm.delay) == (None, None, 300.0)
    assert (found.range, found.most, found.is_fixed) == ("pods", 150, False)


def test_the_largest_range_is_no_smaller_than_the_usual_one() -> None:
    """It would mean nothing."""
    backend = backends.load("gcp-alias")
    (found,) = backend.contradictions(GcpTable(prefix=26, largest_prefix=28))
    assert found == Wrong(
        "gcp.largest_prefix", "allowed: at most gcp.prefix, 26: the largest range that is asked for is no smaller", 28
    )


def test_status_shows_the_ranges_and_who_answers_for_them() -> None:
    """And nothing where nothing was told."""
    cloud = {"cloud": "GCP", "interfaces": 1, "most": 1, "obstacles": ["o"], "under_way": []}
    gcp = {"ranges": {"10.4.0.0/28": "pods"}, "most": 150, "not_for_pods": ["10.0.0.9/32"], "answered_by_host": []}
    assert list(shown({"cloud": cloud, "gcp": gcp}).lines) == [
        "GCP: 1 of 1 interfaces",
        "  o",
        "  1 of 150 alias ranges",
        "  not for pods: 10.0.0.9/32",
    ]
    answered = shown({"cloud": cloud, "gcp": {**gcp, "answered_by_host": ["10.4.0.0/28"]}}).lines[-1]
    assert "the guest agent has the host answer for 10.4.0.0/28" in answered
    assert shown({}).lines == ()


def test_how_many_pods_a_node_can_have(capsys: pytest.CaptureFixture[str]) -> None:
    """By the ranges that its interface takes, and how large they may become; never more than such a machine should
    run."""
    assert ctl.main(["max-pods-gcp"]) == 0
    assert capsys.readouterr().out == "110\n"
    assert ctl.main(["max-pods-gcp", "--processors", "32"]) == 0
    assert capsys.readouterr().out == "250\n"
    assert ctl.main(["max-pods-gcp", "--max-ranges", "2", "--uncapped", "--headroom", "8"]) == 0
    assert capsys.readouterr().out == f"{16 + 64 - 8 + 2}\n"
    assert ctl.main(["max-pods-gcp", "--max-ranges", "10", "--uncapped", "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["pod_addresses"] == 816
    assert "leave as many as pods change in that time" in told.err
