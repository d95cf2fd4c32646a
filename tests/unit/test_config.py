"""The agent's configuration: defaults, limits, and complaints that say what to do."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from netaddr import IPNetwork

import backends
from agent.config import load as config
from agent.config import schema
from agent.config.load import Config
from cni.errors import ConfigInvalid

WHOLE = schema.whole(frozenset(backends.BACKENDS))
LEAST = 'backend = "vxlan"\n[nodes]\nfile = "/etc/routable/nodes.toml"\n'


def load(path: Path, text: str) -> Config:
    """The configuration that a file with this text gives on the machine "host-1"."""
    path.write_text(text)
    return config.load(str(path), hostname="host-1")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file under test is."""
    return tmp_path / "agent.toml"


def refusal(path: Path, text: str) -> str:
    """The complaint about a file with this text, without the directory."""
    with pytest.raises(ConfigInvalid) as caught:
        load(path, text)
    return str(caught.value).replace(f"{path.parent}/", "")


def tables(found: Config) -> dict[str, object]:
    """What it says of each backend that has a table, whether or not that is the one that was chosen."""
    tables = {table: found.of(backends.load(name)) for name, table in backends.BACKENDS.items()}
    return {name: table for name, table in tables.items() if table.__struct_fields__}


def test_fills_in_every_default(path: Path) -> None:
    """A file with the two keys that have no default gives the documented defaults, and the host's name as the node."""
    found = load(path, LEAST)
    assert msgspec.to_builtins({**msgspec.to_builtins(found, enc_hook=str), **tables(found)}, enc_hook=str) == {
        "backend": "vxlan",
        "node": "host-1",
        "uplink": "",
        "mtu": 0,
        "ipam": {"cooldown": 30.0},
        "nodes": {"source": "file", "file": "/etc/routable/nodes.toml", "kubeconfig": "", "server": ""},
        "masquerade": {"enabled": False, "routable": ()},
        "vxlan": {"vni": 4096, "port": 4789, "direct": False, "underlay": "auto"},
        "bgp": {
            "topology": "mesh",
            "asn": 0,
            "reflectors": (),
            "router": (),
            "hops": 8,
            "accept": (),
            "accept_default": True,
            "accept_own_asn": False,
            "announce": (),
            "communities": (),
            "max_prefixes": 10000,
            "ecmp": 8,
            "uplinks": (),
            "extended_next_hop": False,
            "password_file": "",
            "ttl_security": False,
            "hold_time": 90,
            "graceful_restart": True,
            "restart_time": 120,
            "bfd": "off",
            "bfd_interval": 100,
            "bfd_multiplier": 3,
            "bird": "/usr/sbin/bird",
            "start_bird": True,
            "directory": "/run/routable/bgp",
        },
        "gcp": {
            "range": "",
            "prefix": 28,
            "largest_prefix": 24,
            "max_ranges": 150,
            "warm_ranges": 1,
            "warm_addresses": 0,
            "minimum_addresses": 0,
            "shrink_delay": 300.0,
            "fixed": False,
            "foreign_ranges": (),
            "guest_routes": "tell",
            "endpoint": "",
        },
        "aws": {
            "mode": "prefix",
            "warm_prefixes": 1,
            "warm_enis": 0,
            "warm_addresses": 0,
            "minimum_addresses": 0,
            "max_enis": 15,
            "reserved_enis": 0,
            "shrink_delay": 60.0,
            "cluster": "routable",
            "subnets": (),
            "subnet_tags": {},
            "security_group_tags": {},
            "security_groups": (),
            "ipv6": False,
            "snat": "none",
            "snat_exclude": (),
            "foreign_addresses": (),
        },
        "cni": {"conflist": "", "template": "", "executables": ""},
        "kubernetes": {
            "announce": False,
            "taint": "routable.io/agent-not-ready",
            "advertise_capacity": False,
            "capacity": "routable.io/pod-addresses",
            "kubeconfig": "",
            "server": "",
        },
        "paths": {
            "socket": "/run/routable/agent.sock",
            "state": "/var/lib/routable/routable.db",
            "spool": "/var/lib/routable/spool",
                "sysctls": "/proc/sys",
        },
        "metrics": {"listen": "127.0.0.1:9472"},
        "log": {"level": "info", "format": "text"},
    }


def test_reads_every_kind_of_value(path: Path) -> None:
    """Given values replace the defaults; CIDRs are networks, a whole number of seconds is fine."""
    found = load(
        path,
        'node = "n"\nuplink = "eth0.100"\nmtu = 9000\n' + LEAST + "[ipam]\ncooldown = 0\n"
        '[masquerade]\nenabled = true\nroutable = ["10.0.0.0/8", "2001:db8::/32"]\n[log]\nformat = "json"\n',
    )
    assert (found.node, found.uplink, found.mtu, found.ipam.cooldown) == ("n", "eth0.100", 9000, 0)
    assert found.masquerade.routable == (IPNetwork("10.0.0.0/8"), IPNetwork("2001:db8::/32"))
    assert found.log.format == "json"


@pytest.mark.parametrize(
    ("top", "rest", "complaint"),
    [
        ("mtu = 575", "", "line 1: mtu is 575: allowed: 0 (the uplink's less the overhead) or 576 to 65535"),
        ("mtu = 65536", "", "line 1: mtu is 65536: allowed: 0"),
        ("mtu = -1", "", "line 1: mtu is -1: allowed: 0"),
        ('mtu = "1500"', "", 'line 1: mtu is "1500": allowed: 0'),
        ("mtu = true", "", "line 1: mtu is true: allowed: 0"),
        ('node = "a b"', "", 'line 1: node is "a b": allowed: at most 253 letters'),
        ('uplink = "eth0/1"', "", 'line 1: uplink is "eth0/1": allowed: 1 to 15 characters'),
        ('uplink = "abcdefghijklmnop"', "", 'line 1: uplink is "abcdefghijklmnop": allowed: 1 to 15 characters'),
        ('uplink = ".."', "", 'line 1: uplink is "..": allowed: 1 to 15 characters'),
        ('uplink = "rt0"', "", 'not beginning with "rt" as the links of pods do'),
        ("vxlan = 3", "", "line 1: vxlan is 3: allowed: a table, [vxlan]"),
        ("uplnk = 3", "", "line 1: uplnk: unknown key; did you mean uplink?"),
        ("cooldown = 3", "", "line 1: cooldown: unknown key; did you mean ipam.cooldown?"),
        ("zzz = 3", "", "line 1: zzz: unknown key; allowed in the top of the file: backend, nodes, node, uplink"),
        ('"a\\nb" = 3', "", 'agent.toml, line 1: "a\\nb": unknown key; allowed in'),
        ("vxlan.vni = 0", "", "agent.toml: vxlan.vni is 0: allowed: a number from 1 to 16777215"),
        ("", "[vxlna]\nvni = 1", "line 5: vxlna: unknown key; did you mean [vxlan]?"),
        ("", "[vxlan]\nvnid = 1", "line 6: vxlan.vnid: unknown key; did you mean vxlan.vni?"),
        ("", "[vxlan]\nvni = 16777216", "line 6: vxlan.vni is 16777216: allowed: a number from 1 to 16777215"),
        ("", "[vxlan]\nport = 0", "line 6: vxlan.port is 0: allowed: a port from 1 to 65535"),
        ("", '[vxlan]\nunderlay = "ipv5"', 'line 6: vxlan.underlay is "ipv5": allowed: "auto", "ipv4" or "ipv6"'),
        ("", "[vxlan]\ndirect = 1", "line 6: vxlan.direct is 1: allowed: true or false"),
        ("", "[ipam]\ncooldown = 3601", "line 6: ipam.cooldown is 3601: allowed: seconds, 0 to 3600"),
        ("", "[ipam]\ncooldown = -0.1", "line 6: ipam.cooldown is -0.1: allowed: seconds, 0 to 3600"),
        ("", "[ipam]\ncooldown = nan", "line 6: ipam.cooldown is NaN: allowed: seconds, 0 to 3600"),
        ("", "[ipam]\ncooldown = inf", "line 6: ipam.cooldown is Infinity: allowed: seconds, 0 to 3600"),
        ("", "[ipam]\ncooldown = 1979-05-27", "line 6: ipam.cooldown is 1979-05-27: allowed: seconds, 0 to 3600"),
        ("", '[paths]\nsocket = "agent.sock"', 'line 6: paths.socket is "agent.sock": allowed: an absolute path of'),
        ("", f'[paths]\nsocket = "/{"é" * 54}"', 'é": allowed: an absolute path of at most 107 bytes'),
        ("", '[paths]\nstate = "/a\\u0000"', 'line 6: paths.state is "/a\\u0000": allowed: an absolute path'),
        ("", '[paths]\nstate = "/"', 'line 6: paths.state is "/": allowed: an absolute path, of a file'),
        ("", '[paths]\nspool = "/etc/routable/nodes.toml"', "line 4: nodes.file is"),
        ("", 'source = "kubernetes"', 'line 4: nodes.file: is not for nodes.source = "kubernetes"'),
        ("", 'source = "consul"', 'line 5: nodes.source is "consul": allowed: "file" or "kubernetes"'),
        ("", 'server = "https://192.0.2.1:6443"', 'line 5: nodes.server: is not for nodes.source = "file"'),
        ("", 'server = "http://192.0.2.1"', 'server is "http://192.0.2.1": allowed: a URL such as https://192.0.2.1:6443'),
        ("", 'kubeconfig = "/a"', 'line 5: nodes.kubeconfig: is not for nodes.source = "file"'),
        ("", 'kubeconfig = "admin.conf"', 'line 5: nodes.kubeconfig is "admin.conf": allowed: an absolute path'),
        ("", '[cni]\nconflist = "/etc/cni/net.d/10-routable"', 'allowed: an absolute path that ends with ".conflist"'),
        ("", '[cni]\ntemplate = "/a"', "line 6: cni.template: needs cni.conflist, where the agent is to write"),
        ("", '[cni]\ntemplate = "/a.conflist"\nconflist = "/a.conflist"', "cni.template is"),
        ("", "[cni]\nexecutables = true", "line 6: cni.executables is true: allowed: an absolute path"),
        ("", "[kubernetes]\nadvertise_capacity = true", "kubernetes.advertise_capacity: needs kubernetes.announce"),
        ("", '[kubernetes]\ntaint = "a b"', "line 6: kubernetes.taint is"),
        ("", '[kubernetes]\ncapacity = "pods"', "allowed: an extended resource, as example.com/name"),
        ("", '[kubernetes]\ncapacity = "kubernetes.io/pods"', "allowed: an extended resource, as example.com/name"),
        ("", '[kubernetes]\nserver = "192.0.2.1"', "kubernetes.server is"),
        ("", '[metrics]\nlisten = "9472"', 'line 6: metrics.listen is "9472": allowed: "address:port" with an IP'),
        ("", '[metrics]\nlisten = "localhost:9472"', 'line 6: metrics.listen is "localhost:9472": allowed:'),
        ("", '[metrics]\nlisten = "127.0.0.1:65536"', 'metrics.listen is "127.0.0.1:65536": allowed:'),
        ("", '[metrics]\nlisten = "::1:9472"', 'metrics.listen is "::1:9472": allowed:'),
        ("", '[metrics]\nlisten = "[127.0.0.1]:80"', 'metrics.listen is "[127.0.0.1]:80": allowed:'),
        ("", "[log]\nlevel = 10", 'line 6: log.level is 10: allowed: "debug", "info", "warning" or "error"'),
        ("", '[log]\nformat = "xml"', 'line 6: log.format is "xml": allowed: "text" or "json"'),
        ("", '[masquerade]\nroutable = "10.0.0.0/8"', 'routable is "10.0.0.0/8": allowed: a list of CIDRs'),
        (
            "",
            '[masquerade]\nroutable = [\n"10.0.0.0/8",\n"10.0.0.1/8"]',
            'line 8: masquerade.routable[1] is "10.0.0.1/8": has host bits set; the range that holds this address is '
            "10.0.0.0/8; allowed: a list of CIDRs",
        ),
        ("", "[masquerade]\nroutable = [10]", "routable[0] is 10: is not a string, in quotes; allowed: a list"),
        ("", "[masquerade]\nenabled = true", "masquerade.routable: is empty while masquerade.enabled is true; list"),
    ],
)
def test_names_file_line_key_value_and_what_is_allowed(path: Path, top: str, rest: str, complaint: str) -> None:
    """A wrong value or an unknown key is refused with where it is, what was found and what is allowed."""
    text = refusal(path, f"{top}\n{LEAST}{rest}\n")
    assert text.startswith("agent.toml")
    assert complaint in text


def test_a_list_from_the_api_server_needs_no_file(path: Path) -> None:
    """Nor anything else, in a pod with a service account."""
    found = load(path, 'backend = "static"\n[nodes]\nsource = "kubernetes"\n').nodes
    assert (found.source, found.file, found.server) == ("kubernetes", "", "")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "agent.toml: backend is missing: it must be given: the name of a backend"),
        ('backend = "static"', "agent.toml: nodes.file is missing: it must be given: an absolute path"),
        ('backend = "static"\n[nodes]\n', "agent.toml: nodes.file is missing: it must be given: an absolute path"),
        (
            LEAST.replace("vxlan", "vxlam"),
            'is "vxlam": allowed: "aws-eni", "bgp", "gcp-alias", "static", "vxlan"; did you mean "vxlan"?',
        ),
        (
            LEAST.replace("vxlan", "gre"),
            'line 1: backend is "gre": allowed: "aws-eni", "bgp", "gcp-alias", "static", "vxlan"',
        ),
        (LEAST.replace('"vxlan"', "vxlan"), "agent.toml, line 1, column 11: is not TOML: Invalid value"),
        (LEAST + LEAST, "agent.toml, line 5, column 7: is not TOML: Cannot declare"),
        (LEAST.replace("[nodes]", "[[nodes]]"), "agent.toml, line 2: nodes is "),
    ],
)
def test_names_what_is_missing_or_no_toml(path: Path, text: str, complaint: str) -> None:
    """A missing key, an unknown backend and a slip of syntax are refused with their place."""
    assert complaint in refusal(path, text)


def test_refuses_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, a directory and a FIFO are refused by name, at once."""
    os.mkfifo(tmp_path / "fifo")
    for name, why in (
        ("none", "cannot be read: No such file or directory"),
        (".", "cannot be read: Is a directory"),
        ("fifo", "is not a regular file"),
        ("a\0b", "cannot be read: embedded null byte"),
    ):
        with pytest.raises(ConfigInvalid, match=why):
            config.load(f"{tmp_path}/{name}", hostname="host-1")


def test_refuses_a_host_name_that_is_no_node_name(path: Path) -> None:
    """Where the file names no node and the machine's name cannot stand in for it, the complaint says what to set."""
    path.write_text(LEAST)
    with pytest.raises(ConfigInvalid, match=r'node is not given: .* "\(none\)" cannot stand in for it; set node'):
        config.load(str(path), hostname="(none)")


@pytest.mark.parametrize(
    ("text", "node"),
    [
        (LEAST, "Web-1.Example"),
        ('backend = "static"\n[nodes]\nsource = "kubernetes"', "web-1.example"),
        (f"{LEAST}[kubernetes]\nannounce = true", "web-1.example"),
        (f'node = "WEB"\n{LEAST}[kubernetes]\nannounce = true', "WEB"),
    ],
)
def test_a_node_of_kubernetes_is_called_as_kubelet_calls_it(path: Path, text: str, node: str) -> None:
    """The host's name in small letters; where the file names the node, or no Node is asked for, as it stands there."""
    path.write_text(text)
    assert config.load(str(path), hostname="Web-1.Example").node == node


@pytest.mark.parametrize(
    ("listen", "endpoint"),
    [("", None), ("0.0.0.0:1", ("0.0.0.0", 1)), ("[2001:DB8::0]:65535", ("2001:db8::", 65535))],
)
def test_reads_where_to_listen(path: Path, listen: str, endpoint: tuple[str, int] | None) -> None:
    """The metrics' address and port are split for the socket; an empty string is off."""
    assert load(path, f'{LEAST}[metrics]\nlisten = "{listen}"').metrics.endpoint == endpoint


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[masquerade]\nenabled = true", 'line 3: masquerade.enabled: is not for aws-eni: use aws.snat = "external"'),
        (
            "[kubernetes]\nannounce = true\nadvertise_capacity = true",
            "kubernetes.advertise_capacity: is not for aws-eni, whose addresses become more and fewer",
        ),
        ("[aws]\nmax_enis = 2\nreserved_enis = 2", "aws.reserved_enis is 2: allowed: fewer than aws.max_enis, 2"),
        ('[aws]\nsubnets = ["subnet-1"]\nsubnet_tags = { a = "b" }', "aws.subnet_tags: is given together with"),
        (
            '[aws]\nsecurity_groups = ["sg-1"]\nsecurity_group_tags = { a = "b" }',
            "aws.security_group_tags: is given together with aws.security_groups",
        ),
        ('[aws]\nmode = "prefixes"', 'aws.mode is "prefixes": allowed: "prefix" or "address"'),
        ("[aws]\nmax_enis = 16", "aws.max_enis is 16: allowed: a number from 1 to 15"),
        ('[aws]\ncluster = ""', "aws.cluster is"),
        ('[aws]\nsnat_exclude = ["10.0.0.1/8"]', "aws.snat_exclude[0]"),
        ("[aws]\nwarm_prefix = 1", "did you mean aws.warm_prefixes?"),
    ],
)
def test_the_cloud_has_rules_of_its_own(path: Path, text: str, complaint: str) -> None:
    """It needs no list of nodes; what contradicts it is refused by its key."""
    aws = backends.load("aws-eni")
    assert load(path, 'backend = "aws-eni"').of(aws).mode == "prefix"
    assert complaint in refusal(path, f'backend = "aws-eni"\n{text}')


def test_every_key_says_what_is_allowed() -> None:
    """No key of the schema lacks the sentence that a complaint about it ends with."""
    assert len(schema.keys(WHOLE)) == 91
    assert [key for key, one in schema.keys(WHOLE).items() if not one.allowed] == []


@given(st.text(max_size=60))
def test_any_text_is_an_endpoint_or_a_value_error(text: str) -> None:
    """Where to listen is read from arbitrary text without another failure than ValueError."""
    try:
        host, port = schema.endpoint(text)
    except ValueError:
        return
    assert (bool(host), 1 <= port <= 65535) == (True, True)
