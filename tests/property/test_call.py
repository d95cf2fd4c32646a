"""Whatever arrives becomes a call, or one failure that names the variable or key; never anything else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni import result
from cni.call import Call, parse, version_for_error
from cni.errors import Failure
from cni.frame import Request
from cni.spec import VERSIONS, Verb

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=20))
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3)
)
KEYS = (
    "cniVersion", "name", "type", "dns", "ipam", "args", "runtimeConfig", "prevResult", "capabilities",
    "cni.dev/valid-attachments", "cniVersions",
)  # fmt: skip
GOOD: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "pods",
    "type": "routable",
    "dns": {"nameservers": ["192.0.2.53"]},
    "runtimeConfig": {"ips": ["10.0.0.5"], "mac": "0a:58:00:00:00:01"},
    "args": {"cni": {"ips": ["10.0.0.6/24"]}},
    "prevResult": {"cniVersion": "1.1.0", "interfaces": [{"name": "eth0"}], "ips": [{"address": "10.0.0.5/32"}]},
    "cni.dev/valid-attachments": [{"containerID": "a", "ifname": "eth0"}],
}
INNER = st.dictionaries(
    st.sampled_from(["ips", "mac", "cni", "type", "interfaces", "routes", "dns", "address"]), JSON, max_size=3
)
DOCUMENTS = st.dictionaries(st.sampled_from(KEYS), JSON | INNER, max_size=4).map(lambda changes: {**GOOD, **changes})
VALUES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"eth0", b"a", b"/run/netns/a", b"", b"..", b"x" * 5000]),
    st.sampled_from([b"IgnoreUnknown=1;IP=10.0.0.7;MAC=0a:58:00:00:00:02", b"X=1", b"IP=x"]),
)
VERBS = st.sampled_from([verb.encode() for verb in Verb]) | st.binary(max_size=8)
ENVIRONMENTS = st.fixed_dictionaries(
    {"CNI_COMMAND": VERBS},
    optional=dict.fromkeys(("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH"), VALUES),
)


def judged(request: Request) -> Call | Failure:
    """The call, or the failure, whose document must be one that a runtime can read."""
    try:
        return parse(request)
    except Failure as failure:
        document = json.loads(result.error(failure, version_for_error(request)))
        assert document["cniVersion"] in VERSIONS
        assert document["msg"]
        return failure


@given(ENVIRONMENTS, st.binary(max_size=200))
@settings(max_examples=500)
def test_arbitrary_bytes(env: dict[str, bytes], stdin: bytes) -> None:
    """In variables and on standard input."""
    judged(Request(env, stdin))


@given(ENVIRONMENTS, DOCUMENTS)
@settings(max_examples=1500)
def test_almost_right_configurations(env: dict[str, bytes], document: dict[str, Any]) -> None:
    """A good configuration with one to four keys replaced by anything."""
    found = judged(Request(env, json.dumps(document).encode()))
    if isinstance(found, Call) and found.verb is Verb.ADD:
        assert found.network
        assert found.container
        assert 0 < len(found.ifname.encode()) < 16
        assert found.netns.startswith("/")
        assert len({address.version for address in found.ips}) == len(found.ips)


@given(DOCUMENTS)
def test_a_del_of_a_named_attachment_is_never_refused_for_what_it_does_not_need(document: dict[str, Any]) -> None:
    """Version and name must be good; nothing else matters."""
    document = {**document, "cniVersion": "1.0.0", "name": "pods"}
    env = {"CNI_COMMAND": b"DEL", "CNI_CONTAINERID": b"a", "CNI_IFNAME": b"eth0", "CNI_ARGS": b"broken"}
    found = judged(Request(env, json.dumps(document).encode()))
    assert isinstance(found, Call), str(found)
    assert str(found.attachment) == "pods/a/eth0"


def good(verb: Verb, **changes: Any) -> Call:
    """A call of *verb* with everything right but *changes*."""
    env = {"CNI_CONTAINERID": b"a", "CNI_NETNS": b"/run/netns/a", "CNI_IFNAME": b"eth0"}
    call = judged(Request({"CNI_COMMAND": verb.encode(), **env}, json.dumps({**GOOD, **changes}).encode()))
    assert isinstance(call, Call), str(call)
    return call


def test_what_a_good_call_holds() -> None:
    """Each verb's fields."""
    call = good(Verb.ADD)
    assert (str(call.ips[0]), call.mac, call.dns) == ("10.0.0.5", "0a:58:00:00:00:01", GOOD["dns"])
    assert [str(ip.address) for ip in (good(Verb.CHECK).prev or result.Result()).ips] == ["10.0.0.5/32"]
    assert good(Verb.GC).valid == frozenset([("a", "eth0")])
    assert good(Verb.STATUS).network == "pods"
    assert good(Verb.VERSION).version == "1.1.0"


def test_who_is_asked_first_for_addresses_and_mac() -> None:
    """runtimeConfig before args.cni (CONVENTIONS.md)."""
    assert [str(one) for one in good(Verb.ADD, runtimeConfig={}).ips] == ["10.0.0.6"]
    assert good(Verb.ADD, runtimeConfig={}, args={}).ips == ()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (b"IgnoreUnknown=1;broken", "CNI_ARGS holds 'broken'"),
        (b"K8S_POD_NAME=web-0;COLOUR=red", "put IgnoreUnknown=1 into CNI_ARGS"),
        (b"IgnoreUnknown=0;COLOUR=red", "CNI_ARGS holds 'COLOUR'"),
        (b"IgnoreUnknown=true;COLOUR=red;", ""),
        (b"", ""),
    ],
)
def test_an_add_is_strict_with_its_arguments(args: bytes, words: str) -> None:
    """As the convention wants: what is not known is an error, unless it is to be ignored (CONVENTIONS.md, CNI_ARGS)."""
    env = {"CNI_CONTAINERID": b"a", "CNI_NETNS": b"/run/netns/a", "CNI_IFNAME": b"eth0", "CNI_ARGS": args}
    found = judged(Request({"CNI_COMMAND": b"ADD", **env}, json.dumps(GOOD).encode()))
    assert isinstance(found, Call) is not bool(words)
    assert words in str(found)
