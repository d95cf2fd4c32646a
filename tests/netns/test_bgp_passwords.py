"""Sessions with passwords, which differ, are changed, and are never said; real BIRDs, the real kernel's TCP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.lab import Lab, Node, eventually
from demo.speaking import are_up, mesh, socket_of

PATIENCE = 60.0
SECRETS = ("correct horse", "battery staple")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two nodes that speak with each other by a password, with TTL security and IPv4 routes over IPv6 next hops."""
    choices = {"ttl_security": True, "extended_next_hop": True}
    with mesh("dual", 2, choices, is_started=False) as lab:
        for node in lab.nodes:
            path = node.directory / "password"
            node.settings["bgp"]["password_file"] = str(path)
            write(node, SECRETS[0])
            node.write_config()
            node.launch()
        for node in lab.nodes:
            node.await_ready()
        for node in lab.nodes:
            eventually(f"{node.name} has its session", lambda node=node: are_up(socket_of(node), 1), PATIENCE)
        yield lab


def write(node: Node, secret: str) -> None:
    """That is the password from now on."""
    path = Path(node.settings["bgp"]["password_file"])
    path.touch(mode=0o600)
    path.write_text(f"{secret}\n")


def told(node: Node) -> str:
    """What is wrong with sessions."""
    found = (one for one in node.status()["problems"] if one["kind"] in ("sessions", "speaker"))
    return "\n".join(f"{one['msg']}: {one['details']}" for one in found)


def test_ipv4_goes_by_ipv6_next_hops(lab: Lab) -> None:
    """RFC 8950: one session, and routes of both families."""
    node = lab.nodes[0]
    eventually("there are routes", lambda: "10.244.2.0/24" in node.place.ip("-4 route show proto 12"), PATIENCE)
    assert "10.244.2.0/24 via inet6 " in node.place.ip("-4 route show proto 12")
    assert "ok    node-b.v6:     IPv4: both ends" in node.ctl("bgp", "check")
    assert "ok    node-b.v6:     IPv6: both ends" in node.ctl("bgp", "check")


def test_a_password_may_be_changed_and_one_that_differs_is_told(lab: Lab) -> None:
    """With the peer's name, and what the kernel knows; it is never said, wherever one looks."""
    node, other = lab.nodes
    write(other, SECRETS[1])
    eventually("it is told", lambda: "signed with another password" in told(node), PATIENCE)
    assert "no BGP session with node-b (2001:db8:ffff::2)" in told(node)
    write(node, SECRETS[1])
    for one in lab.nodes:
        eventually("the session is back", lambda one=one: are_up(socket_of(one), 1), PATIENCE)
    eventually("nothing is wrong", lambda: not told(node), PATIENCE)
    write(node, 'with "quotes"')
    eventually("it is told", lambda: "a character that BIRD cannot read" in told(node), PATIENCE)
    assert are_up(socket_of(node), 1)
    write(node, SECRETS[1])
    for one in lab.nodes:
        said = one.log.read_text() + one.ctl("status", "--json") + one.metrics()
        directory = socket_of(one).parent
        said += "".join(path.read_text() for path in directory.iterdir() if path.suffix in (".log", ".err"))
        assert not [secret for secret in SECRETS if secret in said]
        assert {oct(path.stat().st_mode & 0o777) for path in directory.glob("bird.conf*")} == {"0o600"}
