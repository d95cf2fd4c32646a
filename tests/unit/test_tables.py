"""What routablectl prints for people."""

from __future__ import annotations

from typing import Any

import pytest

from agent.ctl import tables
from backends.cloud import report as cloud
from backends.cloud.report import Report
from backends.told import Shown, Table

NOW = 1_000_000.0


def document(**changes: Any) -> dict[str, Any]:
    return {
        "node": "node-a",
        "backend": "static",
        "version": "0.1.0",
        "problems": [],
        "site": {
            "uplink": "eth0",
            "uplink_mtu": 1500,
            "addresses": ["192.0.2.1/24"],
            "pod_mtu": 1500,
            "pod_cidrs": ["10.244.1.0/24"],
        },
        "pool": [{"block": "10.244.1.0/24", "owner": "node-a", "total": 254, "used": 1, "cooling": 2, "free": 251}],
        "leases": [
            {
                "addresses": ["10.244.1.1"],
                "network": "pods",
                "container": "0123456789abcdef",
                "ifname": "eth0",
                "pod": "default/web",
                "netns": "/run/netns/a",
                "mac": "0a:58:0a:f4:01:01",
                "mtu": 1500,
                "since": NOW - 7260,
            }
        ],
        "peers": [
            {"name": "node-b", "addresses": ["192.0.2.2"], "pod_cidrs": ["10.244.2.0/24"], "unserved": []},
            {
                "name": "node-c",
                "addresses": ["198.51.100.3"],
                "pod_cidrs": ["10.244.3.0/24"],
                "unserved": ["it is not on-link"],
            },
        ],
        "nodes_error": "",
        "repairs": {},
        "events": [],
        "spooled": 0,
        "waiting": 0,
        "cloud": None,
        "switch": change(),
        **changes,
    }


def change(**changes: Any) -> dict[str, Any]:
    """How far a change of backend is."""
    return {
        "from": "static",
        "to": "static",
        "configured": "static",
        "phase": "at rest",
        "peers": 2,
        "moved": 0,
        "waiting": {},
        "rounds": 0,
        **changes,
    }


def test_a_healthy_node_in_one_screen() -> None:
    """Everything a person looks for, in aligned columns, whom the backend cannot reach first."""
    assert tables.status(document(), NOW) == (
        "node node-a, backend static, version 0.1.0\n"
        "uplink eth0 mtu 1500 (192.0.2.1/24), pods' mtu 1500\n"
        "ready, no problems\n"
        "\n"
        "POOL (1)\n"
        "BLOCK          TOTAL  USED  COOLING  FREE\n"
        "10.244.1.0/24  254    1     2        251\n"
        "\n"
        "LEASES (1)\n"
        "ADDRESS     POD          CONTAINER      IFNAME  AGE\n"
        "10.244.1.1  default/web  0123456789abc  eth0    2h\n"
        "\n"
        "PEERS (2)\n"
        "NODE    ADDRESSES     POD CIDRS      STATE\n"
        "node-c  198.51.100.3  10.244.3.0/24  it is not on-link\n"
        "node-b  192.0.2.2     10.244.2.0/24  reachable"
    )


def test_troubles_are_told_at_the_top_and_the_mending_at_the_end() -> None:
    """Problems with their code, spooled DELs; then what was mended and when."""
    text = tables.status(
        document(
            site=None,
            pool=[],
            leases=[],
            peers=[],
            problems=[
                {"kind": "journal", "by_status": True, "code": 50, "msg": "no room", "details": ""},
                {"kind": "pods", "by_status": False, "code": 51, "msg": "a", "details": "b"},
            ],
            spooled=2,
            repairs={"route": 2, "link": 1},
            events=[{"time": 0.0, "text": "mended: + route 10.244.2.0/24\n- route x"}],
        ),
        NOW,
    )
    assert text == (
        "node node-a, backend static, version 0.1.0\n"
        "not ready, CNI STATUS fails\n"
        "problem 50: no room\n"
        "problem 51: a: b\n"
        "2 DELs wait in the spool\n"
        "\n"
        "POOL: none\n"
        "\n"
        "LEASES: none\n"
        "\n"
        "PEERS: none\n"
        "\n"
        "mended since the start: 1 link, 2 route\n"
        "\n"
        "last events:\n"
        "  1970-01-01 00:00:00Z  mended: + route 10.244.2.0/24\n"
        "      - route x"
    )


def test_what_others_chose_is_shown_and_tells_a_terminal_nothing() -> None:
    """A pod's name comes with the runtime's arguments, and could hold anything: it breaks no row."""
    lease = {**document()["leases"][0], "pod": "\u00fc/we\nb\x1b[2J\udcff"}
    problem = {"kind": "pods", "by_status": False, "code": 51, "msg": "a\x1b[1m", "details": "b\nc"}
    event = {"time": 0.0, "text": "released\x07"}
    text = tables.status(document(leases=[lease], problems=[problem], events=[event]), NOW)
    assert "\n10.244.1.1  \u00fc/we\\nb\\x1b[2J\\udcff  0123456789abc  eth0    2h\n" in text
    assert "\nproblem 51: a\\x1b[1m: b\nc\n" in text
    assert text.endswith("released\\x07")


def test_what_status_does_not_tell_leaves_the_node_ready() -> None:
    """A full pool is a problem, and the node is ready all the same."""
    full = {"kind": "pool", "by_status": False, "code": 100, "msg": "no free address", "details": ""}
    text = tables.status(document(problems=[full]), NOW)
    assert "ready, CNI STATUS succeeds; but\nproblem 100: no free address\n" in text


@pytest.mark.parametrize(
    ("switch", "line"),
    [
        (
            change(to="vxlan", phase="waiting for peers", moved=1, waiting={"node-c": "no answer"}),
            "static -> vxlan: waiting for peers, 1 of 2 peers moved\n  node-c: no answer\n",
        ),
        (
            change(**{"from": "vxlan", "to": "vxlan"}),
            "the configuration still says static: set backend to vxlan there\n",
        ),
    ],
)
def test_a_change_of_backend_is_told_in_the_status(switch: dict[str, Any], line: str) -> None:
    """Under way, whom it waits for; done, that the configuration is behind."""
    assert line in tables.status(document(switch=switch), NOW)


@pytest.mark.parametrize(
    ("phase", "line"),
    [
        ("preparing", "static -> vxlan: preparing"),
        ("moving", "static -> vxlan: moving, 1 of 2 peers moved"),
        ("finishing", "vxlan: every peer has moved, here and there; the old way is taken away"),
        ("at rest", "vxlan: at rest"),
    ],
)
def test_the_progress_of_a_change_is_one_line(phase: str, line: str) -> None:
    """For each phase."""
    assert tables.progress(change(to="vxlan", phase=phase, moved=1)) == line


def test_who_is_not_ready_is_listed() -> None:
    """With the reason and what to do; of thousands the first."""
    waiting = {f"node-{number:02}": "no answer" for number in range(60)}
    text = tables.left(change(waiting=waiting))
    assert text.startswith("NODE     WHY\nnode-00  no answer\n")
    assert "and 10 more" in text
    assert "switch them, too" in text


def test_a_dry_run_shows_the_changes_and_how_many_more_there_are() -> None:
    """Nothing was changed, it says first."""
    text = tables.dry_run(change(to="vxlan", pod_mtu={"now": 1500, "then": 1450}, changes=["+ a", "- b"], more=7))
    assert text.startswith("from static to vxlan; nothing was changed\nMTU of new pods 1450 instead of 1500;")
    assert text.endswith("+ a\n- b\nand 7 more; --json has the first 2")


def test_a_long_table_is_cut_and_says_so() -> None:
    """Thousands of peers do not scroll the rest away."""
    peer = {"addresses": ["192.0.2.2"], "pod_cidrs": [], "unserved": []}
    text = tables.status(document(peers=[{"name": f"node-{number}", **peer} for number in range(60)]), NOW)
    assert "PEERS (60)" in text
    assert "… and 10 more: see --json" in text
    assert "\nnode-59 " not in text


def test_the_history_of_an_address() -> None:
    """Who has it now, and who had it before."""
    one = {"network": "pods", "container": "c1", "ifname": "eth0", "pod": "", "netns": "/n", "mac": "0a:58:0a:00:00:01"}
    assert tables.history(
        "10.0.0.1", [{**one, "since": 60.0, "until": None}, {**one, "since": 0.0, "until": 30.0}]
    ) == (
        "SINCE                 UNTIL                 POD  CONTAINER  IFNAME  MAC\n"
        "1970-01-01 00:01:00Z  now                   -    c1         eth0    0a:58:0a:00:00:01\n"
        "1970-01-01 00:00:00Z  1970-01-01 00:00:30Z  -    c1         eth0    0a:58:0a:00:00:01"
    )
    assert "never given" in tables.history("10.0.0.1", [])


def test_the_history_of_a_pod() -> None:
    """Which addresses it has and had."""
    one = {"network": "pods", "container": "c1", "ifname": "eth0", "pod": "shop/web-0", "mac": "0a:58:0a:00:00:01"}
    assert tables.history("shop/web-0", [{**one, "address": "10.0.0.1", "since": 60.0, "until": None}]) == (
        "SINCE                 UNTIL  ADDRESS   POD         CONTAINER  IFNAME  MAC\n"
        "1970-01-01 00:01:00Z  now    10.0.0.1  shop/web-0  c1         eth0    0a:58:0a:00:00:01"
    )
    assert tables.history("shop/web-9", []).startswith("shop/web-9 never had an address on this node")


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1.0, "0s"), (59.9, "59s"), (60.0, "1m"), (7199.0, "1h"), (86400.0, "1d"), (200_000.0, "2d")]
)
def test_an_age_is_told_in_its_largest_unit(seconds: float, text: str) -> None:
    """As kubectl does."""
    assert tables.age(seconds) == text


def test_where_the_peers_are_of_is_told() -> None:
    """In the source's own words; an agent that does not say so is no error."""
    text = tables.status(document(nodes_source="the Kubernetes API (https://192.0.2.1:6443)"), NOW)
    assert "\npeers are of the Kubernetes API (https://192.0.2.1:6443)\n" in text


def test_a_backend_is_shown_in_its_own_words() -> None:
    """Lines at the top, before what is wrong, and tables of its own after the peers; a cloud's obstacles are lines."""
    report = Report("EC2", 2, 3, ("denied",), ("create eni-1",), {})
    sessions = Table("SESSIONS", ("PEER", "STATE"), [("192.0.2.1", "up"), ("198.51.100.7", "down")])
    text = tables.status(document(), NOW, [cloud.shown(report.told().sections), Shown(["AS 64512"], [sessions])])
    assert (
        "pods' mtu 1500\n"
        "EC2: 2 of 3 interfaces\n"
        "  denied\n"
        "  under way: create eni-1\n"
        "AS 64512\n"
        "ready, no problems\n"
    ) in text
    assert text.endswith(
        "10.244.2.0/24  reachable\n"
        "\n"
        "SESSIONS (2)\n"
        "PEER          STATE\n"
        "192.0.2.1     up\n"
        "198.51.100.7  down"
    )
    assert cloud.shown({"cloud": None}) == Shown()
