"""Who answers for a range, asked of a real kernel: routes of the table local, another program's and ours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from socket import AF_INET

import pytest
from netaddr import IPNetwork

from dataplane import routemsg
from dataplane.answered import GUEST_AGENT, _range, answered
from dataplane.diff import diff
from dataplane.items import HOST, LOCAL, MAIN, Route, plan
from dataplane.kernel import Kernel
from dataplane.netns import Netns
from dataplane.nft import Nft
from dataplane.observe import OnHost
from dataplane.ways import Packet, ways
from demo.lab import place
from demo.place import Place

THROWS = plan(*(Route(HOST, f"10.4.0.{first}/29", table=LOCAL, throw=True) for first in (0, 8)))


@pytest.fixture
def host() -> Iterator[Place]:
    """A router on which a guest agent answers for a range, in which there is a pod."""
    with ExitStack() as cleanup:
        made = place(cleanup, f"answered{os.getpid()}")
        for name in ("ens4", "pod"):
            made.ip(f"link add {name} type veth peer name {name}-peer")
            for end in (name, f"{name}-peer"):
                made.ip(f"link set {end} up")
        made.ip("address add 10.0.0.2/24 dev ens4")
        made.ip("route add local 10.4.0.0/28 dev ens4 proto 66")
        made.ip("route add local 10.5.0.0/28 dev ens4 proto 67")
        made.ip("route add 10.6.0.0/28 dev ens4 proto 66")
        made.ip("route add 10.4.0.5/32 dev pod")
        yield made


def course(host: Place) -> str:
    """Where the kernel sends what is for the pod."""
    return host.within(lambda: ways([Packet("10.4.0.5")]))[0].kind


def test_the_guest_agents_ranges_are_found(host: Place) -> None:
    """Its alone, and only those for which it has the host answer."""
    assert host.within(answered) == {IPNetwork("10.4.0.0/28")}
    assert host.within(lambda: answered(67)) == {IPNetwork("10.5.0.0/28")}


def test_a_rule_of_anybodys_has_the_host_answer_for_its_pods(host: Place) -> None:
    """Until then the pod's route is the more specific one; from then on, and for good, the table local comes first."""
    assert course(host) == "unicast"
    host.ip("rule add to 192.0.2.0/24 lookup 52 priority 100")
    assert course(host) == "local"
    host.ip("rule del to 192.0.2.0/24 lookup 52 priority 100")
    assert course(host) == "local"


@pytest.mark.parametrize("is_ruled", [False, True])
def test_throw_routes_override_that(host: Place, *, is_ruled: bool) -> None:
    """Whether or not somebody has a rule already: pods are found, what no pod has is unreachable; they are ours, seen
    and removed as such, and the guest agent's route stays."""
    if is_ruled:
        host.ip("rule add to 192.0.2.0/24 lookup 52 priority 100")

    def override() -> None:
        with closing(Netns()) as netns, closing(Kernel(netns, Nft())) as kernel:
            kernel.apply(diff({}, THROWS))
            assert {key: one for key, one in kernel.observe([OnHost()]).items() if one in THROWS.values()} == THROWS

    def undo() -> None:
        with closing(Netns()) as netns, closing(Kernel(netns, Nft())) as kernel:
            kernel.apply(diff(kernel.observe([OnHost()]), {}))

    host.within(override)
    assert course(host) == "unicast"
    assert host.within(lambda: ways([Packet("10.4.0.6")]))[0].kind != "local"
    host.ip("rule add to 192.0.3.0/24 lookup 52 priority 101")
    assert course(host) == "unicast"
    host.within(undo)
    assert course(host) == "local"
    assert host.within(answered) == {IPNetwork("10.4.0.0/28")}


def test_a_kernel_that_filters_nothing_is_filtered_here() -> None:
    """Before Linux 4.20 a dump has all routes, whatever was asked for."""
    body = routemsg.RTMSG.pack(AF_INET, 28, 0, 0, MAIN, GUEST_AGENT, 0, routemsg.RTN_UNICAST, 0)
    assert _range(GUEST_AGENT, body) is None
