"""iptables' chain FORWARD, in both forms: what drops there is seen, and our accepts are made, found and taken away."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from cni.errors import KernelRefused
from dataplane.forward import Accept, Chain, Chains, Forward, accepts
from dataplane.program import Done, Program, call
from demo.lab import place
from demo.place import Place

PROGRAMS = {
    Chain(4, "nft"): "iptables-nft",
    Chain(6, "nft"): "ip6tables-nft",
    Chain(4, "legacy"): "iptables-legacy",
    Chain(6, "legacy"): "ip6tables-legacy",
}
CIDRS = ("10.244.1.0/24", "10.244.2.1/32", "2001:db8::/64", "2001:db8:1::1/128")


@pytest.fixture
def host() -> Iterator[Place]:
    """A host without any rule."""
    with ExitStack() as cleanup:
        yield place(cleanup, f"forward{os.getpid()}")


def listed(host: Place, chain: Chain) -> list[str]:
    """The chain as iptables lists it."""
    return host.run(PROGRAMS[chain], "-S", "FORWARD").splitlines()


@pytest.fixture
def forward() -> Forward:
    """Looks at legacy tables whenever it is asked to."""
    ticks = iter(range(0, 10_000, 100))
    return Forward(clock=lambda: float(next(ticks)))


def test_a_host_without_such_a_chain_gets_none(host: Place, forward: Forward) -> None:
    """A look makes nothing."""
    assert host.within(forward.look) == Chains()
    assert host.run("nft", "list", "ruleset") == ""


@pytest.mark.parametrize("chain", PROGRAMS, ids=str)
def test_what_drops_is_seen_and_what_is_ours_comes_and_goes(host: Place, forward: Forward, chain: Chain) -> None:
    """In a chain with others' rules, which stay as they are and where they are, as iptables itself tells."""
    program = PROGRAMS[chain]
    host.run(program, "-A", "FORWARD", "-i", "rt+", "-m", "comment", "--comment", "not ours", "-j", "ACCEPT")
    assert host.within(forward.look) == Chains()
    host.run(program, "-P", "FORWARD", "DROP")
    before = listed(host, chain)
    assert host.within(forward.look) == Chains(frozenset((chain,)))
    wanted = list(accepts([chain], CIDRS))
    assert {one.cidr for one in wanted} == {cidr for cidr in CIDRS if (":" in cidr) == (chain.family == 6)}
    for one in wanted:
        host.within(partial(forward.put, one))
    assert set(host.within(forward.look).accepts) == set(wanted)
    now = listed(host, chain)
    assert now[len(wanted) + 1 :] == before[1:]
    assert {line.split()[line.split().index("-j") + 1] for line in now[1:]} == {"ACCEPT"}
    for one in wanted:
        host.within(partial(forward.drop, one))
        host.within(partial(forward.drop, one))
    assert listed(host, chain) == before
    assert host.within(forward.look) == Chains(frozenset((chain,)))


@pytest.mark.parametrize("chain", PROGRAMS, ids=str)
def test_one_of_ours_that_somebody_changed_is_to_go(host: Place, forward: Forward, chain: Chain) -> None:
    """It has the comment, so it is ours to remove."""
    host.run(PROGRAMS[chain], "-A", "FORWARD", "-i", "eth7", "-m", "comment", "--comment", "routable", "-j", "DROP")
    (changed,) = host.within(forward.look).accepts
    assert changed.direction == ""
    host.within(lambda: forward.drop(changed))
    assert listed(host, chain) == ["-P FORWARD ACCEPT"]


def test_nftables_is_asked_only_after_a_change(host: Place) -> None:
    """The generation tells; a change by others is seen at the next look."""
    calls: list[Sequence[str]] = []

    def run(arguments: Sequence[str], text: str) -> Done:
        calls.append(arguments)
        return call(["nft", *arguments], text)

    forward = Forward(Program("nft", "nftables", run))
    for _ in range(3):
        host.within(forward.look)
    assert len(calls) == 2
    host.run("iptables-nft", "-P", "FORWARD", "DROP")
    assert host.within(forward.look).dropping == {Chain(4, "nft")}
    assert len(calls) == 4


def test_what_iptables_refuses_is_told(host: Place) -> None:
    """In its own words; and a host without its legacy form has none of its tables."""

    def refuses(arguments: Sequence[str], text: str) -> Done:
        return Done(4, "", "Another app is currently holding the xtables lock.")

    chain = Chain(4, "nft")
    host.run("iptables-nft", "-P", "FORWARD", "DROP")
    forward = Forward(iptables={chain: Program("iptables", "iptables", refuses)}, names=Path("/nowhere"))

    def complaint() -> str:
        try:
            return str(forward.look())
        except KernelRefused as failure:
            return str(failure)

    assert host.within(complaint).startswith("iptables FORWARD (nft) cannot be listed: Another app")
    with pytest.raises(KernelRefused, match=r"iptables refused: \+ accept from pods of 10\.0\.0\.0/8"):
        forward.put(Accept(chain, "from", "10.0.0.0/8"))


def test_an_accept_of_no_pods_family_is_not_wanted() -> None:
    """IPv6's chain lets nothing of IPv4's through."""
    assert list(accepts([Chain(6, "nft")], ["10.0.0.0/8"])) == []
    assert [str(one) for one in accepts([Chain(4, "legacy")], ["10.0.0.0/8"])] == [
        "accept from pods of 10.0.0.0/8 in iptables FORWARD (legacy)",
        "accept to pods of 10.0.0.0/8 in iptables FORWARD (legacy)",
    ]
    assert Accept(Chain(4, "nft"), "from", "10.0.0.0/8").link == ""
