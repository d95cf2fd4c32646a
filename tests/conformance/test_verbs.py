"""Every verb in every cniVersion, called as a runtime calls the executable, against a real agent and kernel."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cni.spec import VERSIONS
from demo.lab import Node, built, eventually
from demo.place import Place
from demo.runtime import Pod, Refused, Runtime
from tests.conformance import forms

SINCE = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}


@pytest.fixture(scope="module", params=["c", "python"])
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    """One dual-stack node, by the executable in each of its forms."""
    with built(nodes=1, family="dual", form=request.param, settings={"ipam": {"cooldown": 0.0}}) as lab:
        yield lab.nodes[0]


@pytest.fixture
def place(node: Node) -> Iterator[Place]:
    """A pod's namespace."""
    place = node.pod_place()
    yield place
    node.runtime.call("DEL", place.name)
    place.remove()


def traces(node: Node) -> tuple[int, int, int, int, int]:
    """What pods leave on a node: links, neighbours, routes of both families, leases."""

    def count(words: str) -> int:
        return sum(" rt" in f" {line}" for line in node.place.ip(words).splitlines())

    routes = count("-4 route show"), count("-6 route show")
    return count("-br link show"), count("neigh show nud permanent"), *routes, len(node.status()["leases"])


NOTHING = (0, 0, 0, 0, 0)


def refusal(node: Node, verb: str, *arguments: Any, **options: Any) -> Refused:
    """The error that a call ends with."""
    with pytest.raises(Refused) as caught:
        node.runtime.call(verb, *arguments, **options)
    document = caught.value.document
    assert set(document) == {"cniVersion", "code", "msg", "details"}, "an error document has these keys"
    return caught.value


# --- forms of results -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_a_pods_life_in_every_version(node: Node, place: Place, version: str) -> None:
    """ADD answers in exactly that version's form; CHECK and DEL accept that answer; nothing is left."""
    dns = {"nameservers": ["192.0.2.53"], "search": ["example.org"], "options": ["ndots:5"]}
    pod = node.runtime.add(place.name, place, config={"cniVersion": version, "dns": dns})
    assert forms.problems(pod.result, version) == []
    assert pod.result["cniVersion"] == version
    assert pod.result["dns"] == dns
    host, inside = pod.result["interfaces"]
    assert host["name"] in node.place.ip(f"-br link show {host['name']}")
    assert host["mac"] in node.place.ip(f"link show {host['name']}")
    assert "sandbox" not in host
    assert (inside["name"], inside["sandbox"]) == ("eth0", str(place.path))
    assert inside["mac"] in place.ip("link show eth0")
    assert [ip["interface"] for ip in pod.result["ips"]] == [1, 1]
    assert [ip["gateway"] for ip in pod.result["ips"]] == ["169.254.1.1", "fe80::1"]
    assert [route["dst"] for route in pod.result["routes"]] == ["0.0.0.0/0", "::/0"]
    if version >= SINCE["CHECK"]:
        node.runtime.check(pod, config={"cniVersion": version})
    node.runtime.delete(pod, config={"cniVersion": version})
    assert traces(node) == NOTHING


@pytest.mark.parametrize("version", VERSIONS)
def test_version_names_all_versions(node: Node, version: str) -> None:
    """In the asked version's name, as the specification wants; junk in the other variables does not matter."""
    for container in ("", "dummy"):
        answer = node.runtime.call("VERSION", container, "dummy", config={"cniVersion": version})
        assert answer == {"cniVersion": version, "supportedVersions": list(VERSIONS)}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("verb", ["CHECK", "GC", "STATUS"])
def test_a_verb_younger_than_the_configurations_version_is_refused(
    node: Node, place: Place, verb: str, version: str
) -> None:
    """And served from its version on."""
    config = {"cniVersion": version, "cni.dev/valid-attachments": [], "prevResult": {}}
    arguments = (place.name, str(place.path)) if verb == "CHECK" else ()
    if version < SINCE[verb]:
        assert refusal(node, verb, *arguments, config=config).code == 1
    elif verb == "CHECK":
        assert refusal(node, verb, *arguments, config=config).code == 3
    else:
        assert node.runtime.call(verb, config=config) is None


@pytest.mark.parametrize("version", [None, "0.1.0", "0.2.0", "1.2.0", "2.0.0", "x"])
def test_a_version_that_is_not_ours_is_refused_with_those_that_are(node: Node, place: Place, version: Any) -> None:
    """The user sees which to choose from; a configuration without a version is of 0.1.0."""
    error = refusal(node, "ADD", place.name, str(place.path), config={"cniVersion": version})
    assert error.code == 1
    assert "0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0" in error.document["details"]
    assert traces(node) == NOTHING


def test_the_list_of_versions_beside_the_chosen_one_is_accepted(node: Node, place: Place) -> None:
    """cniVersions is for the runtime, which has chosen by the time it calls."""
    config = {"cniVersion": "1.0.0", "cniVersions": ["0.4.0", "1.0.0", "1.1.0"]}
    pod = node.runtime.add(place.name, place, config=config)
    assert forms.problems(pod.result, "1.0.0") == []


# --- ADD --------------------------------------------------------------------------------------------------------------


def test_add_for_an_interface_that_exists_is_an_error_and_harms_nothing(node: Node, place: Place) -> None:
    """The same attachment again, another container in the same namespace, and an interface that is not ours."""
    pod = node.runtime.add(place.name, place)
    before = place.ip("address show eth0")
    assert refusal(node, "ADD", place.name, str(place.path)).code == 105
    assert refusal(node, "ADD", "another", str(place.path)).code == 105
    place.ip("link add net1 type veth peer name net2")
    error = refusal(node, "ADD", place.name, str(place.path), "net1")
    assert "CNI_IFNAME 'net1' exists already" in error.document["msg"]
    assert place.ip("address show eth0") == before
    assert "net1" in place.ip("link show net1")
    node.runtime.check(pod)
    assert len(node.status()["leases"]) == 1


def test_another_attachment_of_the_same_interface_is_refused_wholly(node: Node, place: Place) -> None:
    """On another network: nothing of it stays, and the first attachment is as it was."""
    pod = node.runtime.add(place.name, place)
    error = refusal(node, "ADD", place.name, str(place.path), config={"name": "others"})
    assert error.code == 105
    assert traces(node) == (1, 2, 1, 1, 1)
    node.runtime.check(pod)


def test_another_interface_of_the_same_pod_leaves_the_first_as_it_is(node: Node, place: Place) -> None:
    """Its default routes stay the pod's, so the second has none; either goes by itself, and nothing is left over."""
    pod = node.runtime.add(place.name, place)
    second = node.runtime.add(place.name, place, ifname="net1")
    assert "routes" not in second.result
    assert "default via 169.254.1.1 dev eth0 " in place.ip("route show")
    assert "default" not in place.ip("route show dev net1")
    for one in (pod, second):
        node.runtime.check(one)
    node.runtime.delete(second)
    assert "net1" not in place.ip("link show")
    assert traces(node) == (1, 2, 1, 1, 1)
    node.runtime.check(pod)


def test_requested_addresses_and_mac_are_honoured(node: Node, place: Place) -> None:
    """By the capabilities ips and mac (CONVENTIONS.md), and by the older CNI_ARGS."""
    config = {
        "capabilities": {"ips": True, "mac": True},
        "runtimeConfig": {"ips": ["10.244.1.77/24", "2001:db8:1::77"], "mac": "0A:58:00:00:00:77"},
    }
    pod = node.runtime.add(place.name, place, config=config)
    assert pod.addresses == ["10.244.1.77", "2001:db8:1::77"]
    assert "0a:58:00:00:00:77" in place.ip("link show eth0")
    node.runtime.check(pod)
    node.runtime.delete(pod)
    arguments = "IgnoreUnknown=1;IP=10.244.1.78;MAC=0a:58:00:00:00:78"
    pod = node.runtime.add(place.name, place, arguments=arguments)
    assert pod.address(4) == "10.244.1.78"
    assert "0a:58:00:00:00:78" in place.ip("link show eth0")


@pytest.mark.parametrize(
    ("runtime", "code", "words"),
    [
        ({"ips": ["192.0.2.7"]}, 7, "192.0.2.7 is not an address of this node"),
        ({"ips": ["10.244.1.0"]}, 7, "10.244.1.0 is reserved"),
        ({"ips": ["10.244.1.9", "10.244.1.10"]}, 7, "runtimeConfig.ips"),
        ({"ips": ["300.1.1.1"]}, 7, "300.1.1.1"),
        ({"ips": "10.244.1.9"}, 7, "runtimeConfig.ips"),
        ({"mac": "01:00:5e:00:00:01"}, 7, "runtimeConfig.mac"),
        ({"mac": "hello"}, 7, "runtimeConfig.mac"),
    ],
)
def test_what_cannot_be_given_is_refused_in_words(
    node: Node, place: Place, runtime: dict[str, Any], code: int, words: str
) -> None:
    """The message names the key and the value; nothing is given instead."""
    error = refusal(node, "ADD", place.name, str(place.path), config={"runtimeConfig": runtime})
    assert error.code == code
    assert words in str(error)
    assert traces(node) == NOTHING


def test_a_requested_address_that_is_taken_is_refused_by_name(node: Node, place: Place) -> None:
    """Whose it is, so that somebody can act."""
    node.runtime.add(place.name, place, config={"runtimeConfig": {"ips": ["10.244.1.50"]}})
    other = node.pod_place()
    try:
        error = refusal(node, "ADD", "b", str(other.path), config={"runtimeConfig": {"ips": ["10.244.1.50"]}})
        assert error.code == 100
        assert f"in use by pods/{place.name}/eth0" in error.document["msg"]
    finally:
        other.remove()


# --- DEL --------------------------------------------------------------------------------------------------------------


def test_del_succeeds_again_and_again(node: Node, place: Place) -> None:
    """With the namespace there, with it gone, without CNI_NETNS, without prevResult, and of what never was."""
    pod = node.runtime.add(place.name, place)
    node.runtime.delete(pod)
    node.runtime.delete(pod)
    assert node.runtime.call("DEL", place.name, str(place.path)) is None
    assert node.runtime.call("DEL", place.name) is None
    assert node.runtime.call("DEL", "never-seen", "/run/netns/never-seen") is None
    assert traces(node) == NOTHING


@pytest.mark.parametrize("netns", ["", "gone"])
def test_del_after_the_namespace_is_gone_releases_everything(node: Node, netns: str) -> None:
    """As after a crash of the runtime, or at RemovePodSandbox, which names no namespace."""
    place = node.pod_place()
    node.runtime.add(place.name, place)
    place.remove()
    assert node.runtime.call("DEL", place.name, str(place.path) if netns else "") is None
    eventually("the kernel has removed the namespace's links", lambda: traces(node) == NOTHING)


def test_del_does_not_judge_what_it_does_not_need(node: Node, place: Place) -> None:
    """A broken prevResult or runtimeConfig does not keep a pod in Terminating."""
    node.runtime.add(place.name, place)
    config = {"prevResult": {"ips": "none"}, "runtimeConfig": [], "ipam": {"type": "host-local"}}
    assert node.runtime.call("DEL", place.name, str(place.path), config=config) is None
    assert traces(node) == NOTHING


# --- CHECK ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "words", "named"),
    [
        ("pod", "address del {v4}/32 dev eth0", "addr 10.244.1."),
        ("pod", "address del {v6}/128 dev eth0", "addr 2001:db8:1::"),
        ("pod", "link set eth0 down", "link eth0"),
        ("pod", "route del default", "route 0.0.0.0/0"),
        ("pod", "neigh del 169.254.1.1 dev eth0", "neigh 169.254.1.1"),
        ("pod", "link set eth0 mtu 1400", "mtu"),
        ("pod", "link set eth0 address 0a:58:00:00:00:99", "address 0a:58:00:00:00:99"),
        ("host", "route del {v4}/32", "route 10.244.1."),
        ("host", "-6 route del {v6}/128", "route 2001:db8:1::"),
        ("host", "neigh del {v4} dev {link}", "neigh 10.244.1."),
        ("host", "link set {link} mtu 1400", "mtu 1400"),
        ("host", "link set {link} down", "link rt"),
        ("host", "link del {link}", "link rt"),
    ],
)
def test_check_names_the_difference(node: Node, place: Place, where: str, words: str, named: str) -> None:
    """Whatever of an attachment is not as it should be, CHECK fails with 103 and shows it."""
    pod = node.runtime.add(place.name, place)
    node.runtime.check(pod)
    changed = words.format(v4=pod.address(4), v6=pod.address(6), link=pod.result["interfaces"][0]["name"])
    error = drifted(node, pod, (place if where == "pod" else node.place), changed)
    assert error.code == 103
    assert named in error.document["details"]


def drifted(node: Node, pod: Pod, place: Place, words: str) -> Refused:
    """What CHECK says just after a change. A pass of the agent may be faster once, but not again and again: there is
    one each second."""
    for _ in range(3):
        place.ip(words)
        try:
            node.runtime.check(pod)
        except Refused as error:
            return error
    raise AssertionError(f"CHECK does not see: {words}")


def test_check_of_what_has_no_lease(node: Node, place: Place) -> None:
    """Code 3, the specification's for an unknown container."""
    error = refusal(node, "CHECK", place.name, str(place.path), config={"prevResult": {"cniVersion": "1.1.0"}})
    assert error.code == 3


def test_check_needs_the_result_of_the_add(node: Node, place: Place) -> None:
    """Without prevResult it says so; with another attachment's, too."""
    pod = node.runtime.add(place.name, place)
    assert "prevResult" in str(refusal(node, "CHECK", place.name, str(place.path)))
    foreign = {**pod.result, "ips": [{"address": "10.244.1.250/32", "interface": 1}]}
    error = refusal(node, "CHECK", place.name, str(place.path), config={"prevResult": foreign})
    assert error.code == 103
    assert pod.address(4) in str(error)


def test_what_the_pod_has_besides_is_no_difference(node: Node, place: Place) -> None:
    """A second address, more routes, another interface: the pod's own business."""
    pod = node.runtime.add(place.name, place)
    place.ip("address add 203.0.113.9/32 dev eth0")
    place.ip("route add 198.51.100.0/24 via 169.254.1.1 dev eth0 onlink")
    place.ip("link add dummy0 type veth peer name dummy1")
    node.runtime.check(pod)


# --- not the first in the chain, and what other plugins are told ------------------------------------------------------


@pytest.mark.parametrize("version", ["0.3.1", "1.0.0", "1.1.0"])
def test_what_the_plugins_before_made_is_passed_on(node: Node, place: Place, version: str) -> None:
    """Interfaces, addresses, routes, DNS, with keys that we do not know; our addresses point to our interface."""
    family = {"version": "4"} if version == "0.3.1" else {}
    before: dict[str, Any] = {
        "cniVersion": version,
        "interfaces": [{"name": "net1", "mac": "02:00:00:00:00:01", "sandbox": str(place.path), "pciID": "0000:01"}],
        "ips": [{**family, "address": "198.51.100.9/24", "interface": 0}],
        "routes": [{"dst": "198.51.100.0/24", "priority": 7}],
        "dns": {"nameservers": ["198.51.100.1"]},
    }
    own = {"dns": {"domain": "cluster.example"}}
    pod = node.runtime.add(place.name, place, config={"cniVersion": version, "prevResult": before, **own})
    assert pod.result["interfaces"][0] == before["interfaces"][0]
    assert pod.result["ips"][0] == before["ips"][0]
    assert pod.result["routes"][0] == before["routes"][0]
    assert pod.result["dns"] == {"nameservers": ["198.51.100.1"], "domain": "cluster.example"}
    for ip in pod.result["ips"][1:]:
        end = pod.result["interfaces"][ip["interface"]]
        assert (end["name"], end["sandbox"]) == ("eth0", str(place.path))
    assert len(pod.result["ips"]) == 3
    if version != "0.3.1":
        node.runtime.check(pod, config={"cniVersion": version})


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"mtu": 1400}, "mtu is 1400"),
        ({"ipMasq": True}, "ipMasq is True"),
        ({"ipam": {"subnet": "10.9.0.0/24"}}, "ipam.subnet is '10.9.0.0/24'"),
        ({"hairpinMode": True}, "hairpinMode is True"),
        ({"delegate": {"isDefaultGateway": True}}, "delegate is {'isDefaultGateway': True}"),
        ({"runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 80}]}}, "runtimeConfig.portMappings is"),
    ],
)
def test_keys_of_other_plugins_are_refused_by_name(
    node: Node, place: Place, config: dict[str, Any], words: str
) -> None:
    """Whoever wrote them would miss their effect; nothing is left of the ADD, and DEL does not judge them."""
    error = refusal(node, "ADD", place.name, str(place.path), config=config)
    assert error.code == 2
    assert words in error.document["msg"]
    assert error.document["details"]
    assert traces(node) == NOTHING
    node.runtime.call("DEL", place.name, str(place.path), config=config)


def test_keys_that_mean_nothing_are_told_once(node: Node, place: Place) -> None:
    """A typing error, perhaps; comments, names of others' and values that are those of absence are not."""
    quiet: dict[str, Any] = {"_comment": "x", "example.com/a": 1, "mtu": 0, "ipMasq": False, "ipam": {"type": ""}}
    wrong: dict[str, Any] = {"mtuu": 1400, "runtimeConfig": {"frob": [1]}}
    for number, config in enumerate((quiet, wrong, wrong)):
        node.runtime.delete(node.runtime.add(f"{place.name}-{number}", place, config=config))

    def told() -> list[str]:
        return [line for line in node.log.read_text().splitlines() if "keys of the network configuration" in line]

    eventually("it is told", told)
    node.stop()
    assert len(told()) == 1
    assert "mtuu, runtimeConfig.frob" in told()[0]
    node.start()


# --- GC and STATUS ----------------------------------------------------------------------------------------------------


def test_gc_releases_what_the_runtime_does_not_know(node: Node) -> None:
    """Lease, link, routes and neighbours of whatever is not listed, on this network alone."""
    places = [node.pod_place() for _ in range(3)]
    try:
        kept, _, _ = (node.runtime.add(place.name, place) for place in places)
        valid = [{"containerID": kept.container, "ifname": "eth0"}]
        assert node.runtime.call("GC", config={"name": "others", "cni.dev/valid-attachments": []}) is None
        assert len(node.status()["leases"]) == 3
        assert node.runtime.call("GC", config={"cni.dev/valid-attachments": valid}) is None
        assert [lease["container"] for lease in node.status()["leases"]] == [kept.container]
        assert traces(node) == (1, 2, 1, 1, 1)
        node.runtime.check(kept)
        assert node.runtime.call("GC", config={"cni.dev/valid-attachments": []}) is None
        assert traces(node) == NOTHING
    finally:
        for place in places:
            place.remove()


def test_gc_with_null_for_an_empty_list_collects_all(node: Node, place: Place) -> None:
    """As Go writes a list that was never made: the specification's key has a value, and it names nobody."""
    node.runtime.add(place.name, place)
    document = {"cniVersion": "1.1.0", "name": "pods", "type": "routable", "cni.dev/valid-attachments": None}
    assert node.runtime.call("GC", stdin=json.dumps(document).encode()) is None
    assert node.status()["leases"] == []


@pytest.mark.parametrize("valid", [None, {}, "x", [1], [{"containerID": "a"}], [{"containerID": 1, "ifname": "eth0"}]])
def test_gc_without_a_good_list_collects_nothing(node: Node, place: Place, valid: Any) -> None:
    """A list that cannot be read must not count as an empty one."""
    node.runtime.add(place.name, place)
    error = refusal(node, "GC", config={"cni.dev/valid-attachments": valid})
    assert error.code == 7
    assert "cni.dev/valid-attachments" in error.document["msg"]
    assert len(node.status()["leases"]) == 1


def test_status_is_silent_when_all_is_well(node: Node) -> None:
    """Success is no output at all."""
    assert node.runtime.call("STATUS") is None


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("", "{netns}"), 4, "CNI_CONTAINERID is missing"),
        (("-a", "{netns}"), 4, "CNI_CONTAINERID is '-a'"),
        (("a/b", "{netns}"), 4, "CNI_CONTAINERID"),
        (("a" * 300, "{netns}"), 4, "CNI_CONTAINERID"),
        (("c", ""), 4, "CNI_NETNS is missing"),
        (("c", "relative"), 4, "CNI_NETNS"),
        (("c", "/run/netns/none"), 4, "CNI_NETNS names nothing: '/run/netns/none'"),
        (("c", "/proc/self/ns/net"), 4, "CNI_NETNS is the node's own"),
        (("c", "/proc/self/ns/mnt"), 4, "CNI_NETNS is not a network namespace"),
        (("c", "/etc/passwd"), 4, "CNI_NETNS is not a network namespace"),
        (("c", "/dev/zero"), 4, "CNI_NETNS is not a network namespace"),
        (("c", "{netns}", ""), 4, "CNI_IFNAME is missing"),
        (("c", "{netns}", "sixteen-letters-"), 4, "CNI_IFNAME is 'sixteen-letters-'"),
        (("c", "{netns}", "a b"), 4, "CNI_IFNAME"),
        (("c", "{netns}", "a/b"), 4, "CNI_IFNAME"),
        (("c", "{netns}", ".."), 4, "CNI_IFNAME"),
        (("c", "{netns}", "eth%d"), 4, "CNI_IFNAME"),
        (("c", "{netns}", "all"), 4, "CNI_IFNAME"),
    ],
)
def test_a_bad_variable_is_named(node: Node, place: Place, arguments: tuple[str, ...], code: int, words: str) -> None:
    """One error document that names the variable; nothing was changed."""
    container, netns, ifname = (*arguments, "eth0")[:3]
    # The agent's own namespace is the node's: that of its process is what must be refused.
    own = f"/proc/{node.agent.pid}" if node.agent is not None else ""
    netns = netns.format(netns=place.path).replace("/proc/self", own)
    with pytest.raises(Refused) as caught:
        node.runtime.call("ADD", container, netns, ifname)
    assert caught.value.code == code
    assert words in str(caught.value)
    assert traces(node) == NOTHING


@pytest.mark.parametrize(
    ("stdin", "code", "words"),
    [
        (b"", 6, "not JSON"),
        (b"{", 6, "not JSON"),
        (b"[]", 6, "not a JSON object"),
        (b"null", 6, "not a JSON object"),
        (b"\xff\xfe{}", 6, "not JSON"),
        (b'{"cniVersion": "1.1.0", "name": "a\xff"}', 6, "not JSON"),
        (b"[" * 100_000, 6, "not JSON"),
        (b'{"cniVersion": 1, "name": "pods"}', 7, "cniVersion is 1"),
        (b'{"cniVersion": "1.1.0"}', 7, "name is missing"),
        (b'{"cniVersion": "1.1.0", "name": ""}', 7, "name is missing"),
        (b'{"cniVersion": "1.1.0", "name": "a b"}', 7, "name is 'a b'"),
        (b'{"cniVersion": "1.1.0", "name": "' + b"x" * 1000 + b'"}', 7, "name is"),
        (b'{"cniVersion": "1.1.0", "name": {}}', 7, "name is {}"),
        (b'{"cniVersion": "1.1.0", "name": "pods", "runtimeConfig": []}', 7, "runtimeConfig is []"),
        (b'{"cniVersion": "1.1.0", "name": "pods", "dns": "x"}', 7, "dns is 'x'"),
        (b'{"cniVersion": "1.1.0", "name": "pods", "ipam": {"type": "host-local"}}', 2, "ipam.type is 'host-local'"),
        (b'{"name": "' + b"x" * (1 << 20) + b'"}', 6, "1048576"),
    ],
)
def test_a_bad_configuration_is_named(node: Node, place: Place, stdin: bytes, code: int, words: str) -> None:
    """Malformed, huge, deep, of another encoding or another type: one error document, nothing changed."""
    error = refusal(node, "ADD", place.name, str(place.path), stdin=stdin)
    assert error.code == code
    assert words in str(error)
    assert traces(node) == NOTHING


def test_an_unknown_verb_is_refused(node: Node) -> None:
    """With those that exist."""
    error = refusal(node, "UPDATE")
    assert error.code == 4
    assert "ADD, DEL, CHECK, GC, STATUS, VERSION" in error.document["details"]


# --- the agent away ---------------------------------------------------------------------------------------------------


@pytest.fixture
def lonely(node: Node) -> Iterator[Node]:
    """The node with its agent stopped; it runs again afterwards."""
    node.stop()
    try:
        yield node
    finally:
        if node.agent is None:
            node.start()


def waiting(node: Node, seconds: str) -> Runtime:
    """A runtime whose executable waits that long for the agent."""
    environment = {**node.runtime.environment, "ROUTABLE_WAIT": seconds}
    return replace(node.runtime, environment=environment)


def test_version_needs_no_agent(lonely: Node) -> None:
    """kubelet asks before anything runs."""
    assert lonely.runtime.call("VERSION")["supportedVersions"] == list(VERSIONS)


@pytest.mark.parametrize("stdin", [b"", b"{}", b'{"cniVersion": "0.4.0"}', b'{"cniVersion": "9.9.9"}', b"nonsense"])
def test_version_is_alike_with_and_without_an_agent(node: Node, stdin: bytes) -> None:
    """It asks what the plugin speaks, and that does not depend on who answers."""
    served = node.runtime.call("VERSION", stdin=stdin)
    node.stop()
    try:
        assert node.runtime.call("VERSION", stdin=stdin) == served
    finally:
        node.start()


def test_status_without_an_agent_is_not_ready(lonely: Node) -> None:
    """After some seconds in which one could start."""
    started = time.monotonic()
    with pytest.raises(Refused) as caught:
        waiting(lonely, "1").call("STATUS")
    assert caught.value.code == 50
    assert 1 <= time.monotonic() - started < 10


def test_a_restart_of_the_agent_is_not_told_by_status(node: Node) -> None:
    """Killed and started anew: the STATUS that is under way meanwhile succeeds."""
    node.stop(signal.SIGKILL)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(node.runtime.call, "STATUS")
        node.launch()
        node.await_ready()
        assert asked.result() is None


def test_add_waits_for_the_agent(lonely: Node, place: Place) -> None:
    """It is served as soon as the agent is there; and when it does not come, try again is the answer."""
    with pytest.raises(Refused) as caught:
        waiting(lonely, "0.2").add(place.name, place)
    assert caught.value.code == 11
    lonely.launch()
    pod = lonely.runtime.add(place.name, place)
    assert pod.addresses
    lonely.await_ready()


def test_del_without_an_agent_is_spooled_and_replayed(node: Node) -> None:
    """The runtime has its success, the address stays reserved, and the next agent releases it."""
    place = node.pod_place()
    pod = node.runtime.add(place.name, place)
    node.stop(signal.SIGKILL)
    try:
        node.runtime.delete(pod)
        place.remove()
        assert len(list(Path(node.runtime.spool).glob("del-*"))) == 1
    finally:
        node.start()
    assert traces(node) == NOTHING
    assert list(Path(node.runtime.spool).iterdir()) == []
    (tenure,) = (one for one in json.loads(node.ctl("ip", pod.address(4), "--json")) if one["container"] == place.name)
    assert tenure["until"] is not None


def test_leases_outlive_the_agent(node: Node, place: Place) -> None:
    """After a restart the pod's lease is there, CHECK succeeds, and the address is given to nobody else."""
    pod = node.runtime.add(place.name, place)
    node.stop(signal.SIGKILL)
    node.start()
    node.runtime.check(pod)
    other = node.pod_place()
    try:
        added = node.runtime.add(other.name, other)
        assert set(added.addresses).isdisjoint(pod.addresses)
        node.runtime.delete(added)
    finally:
        other.remove()
