"""Results, errors and versions as bytes. Each version's form is checked against the executable in tests/conformance."""

from __future__ import annotations

import json
from typing import Any

import pytest
from netaddr import IPAddress, IPNetwork

from cni import result
from cni.errors import Failure, Undecodable
from cni.result import Interface, Ip, Result, Route
from cni.spec import VERSIONS

RESULT = Result(
    (Interface("rt1", "ee:ee:ee:ee:ee:ee", 1450), Interface("eth0", "0a:58:0a:01:01:05", 1450, "/run/netns/a")),
    (
        Ip(IPNetwork("10.1.1.5/32"), IPAddress("169.254.1.1"), 1),
        Ip(IPNetwork("2001:db8:1::5/128"), IPAddress("fe80::1"), 1),
    ),
    (Route(IPNetwork("0.0.0.0/0"), IPAddress("169.254.1.1")), Route(IPNetwork("2001:db8::/32"))),
    {"nameservers": ["192.0.2.53"]},
)


def test_the_newest_form_in_full() -> None:
    """Key by key, in the specification's order; one line."""
    text = result.encode(RESULT, "1.1.0")
    assert text.endswith(b"}\n")
    assert text.count(b"\n") == 1
    assert json.loads(text) == {
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": "rt1", "mac": "ee:ee:ee:ee:ee:ee", "mtu": 1450},
            {"name": "eth0", "mac": "0a:58:0a:01:01:05", "mtu": 1450, "sandbox": "/run/netns/a"},
        ],
        "ips": [
            {"address": "10.1.1.5/32", "gateway": "169.254.1.1", "interface": 1},
            {"address": "2001:db8:1::5/128", "gateway": "fe80::1", "interface": 1},
        ],
        "routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}, {"dst": "2001:db8::/32"}],
        "dns": {"nameservers": ["192.0.2.53"]},
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_what_was_written_can_be_read(version: str) -> None:
    """But for the MTU, which only 1.1.0 tells."""
    read = result.decode(json.loads(result.encode(RESULT, version)))
    if version != "1.1.0":
        assert [one.mtu for one in read.interfaces] == [0, 0]
        read = Result(RESULT.interfaces, read.ips, read.routes, read.dns)
    assert read == RESULT


def test_a_minimal_result_can_be_read() -> None:
    """Keys may be missing or null; unknown ones are ignored."""
    assert result.decode({}) == Result()
    assert result.decode({"interfaces": None, "ips": None, "x": 1, "dns": None}) == Result()


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ([], "prevResult is not an object"),
        ({"ips": {}}, "prevResult.ips is not a list"),
        ({"ips": [1]}, "prevResult.ips[0] is not an object"),
        ({"ips": [{"address": "10.0.0.1/33"}]}, "prevResult.ips[0].address"),
        ({"ips": [{"address": 7}]}, "prevResult.ips[0].address is not a string"),
        ({"ips": [{}]}, "prevResult.ips[0].address"),
        ({"ips": [{"address": "10.0.0.1/32", "interface": "1"}]}, "prevResult.ips[0].interface is not a number"),
        ({"ips": [{"address": "10.0.0.1/32", "interface": True}]}, "prevResult.ips[0].interface is not a number"),
        ({"routes": [{"dst": "0.0.0.0/0", "gw": "x"}]}, "prevResult.routes[0].gw is no address"),
        ({"interfaces": [{"mtu": "1500"}]}, "prevResult.interfaces[0].mtu is not a number"),
        ({"interfaces": [{"name": 1}]}, "prevResult.interfaces[0].name is not a string"),
        ({"dns": []}, "prevResult.dns is not an object"),
    ],
)
def test_what_cannot_be_read_is_named(value: Any, where: str) -> None:
    """The key, so that somebody can find it."""
    with pytest.raises(Undecodable) as caught:
        result.decode(value)
    assert where in caught.value.message


def test_an_error_is_valid_json_whatever_is_in_it() -> None:
    """Lone surrogates, control characters, a megabyte: one document of bounded length."""
    text = result.error(Failure("bad \udcff \x00 \u2028", "x" * (1 << 20)), "1.0.0")
    document = json.loads(text)
    assert document["cniVersion"] == "1.0.0"
    assert document["code"] == 999
    assert document["msg"].startswith("bad \\udcff")
    assert document["details"].endswith("(1048576 characters)")
    assert len(text) < 10_000


def test_versions_are_those_that_we_speak() -> None:
    """In the version that was asked for."""
    assert json.loads(result.versions("0.4.0")) == {"cniVersion": "0.4.0", "supportedVersions": list(VERSIONS)}
