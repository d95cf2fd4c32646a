"""How a node with alias ranges is wired: the plan as a person would check it."""

from __future__ import annotations

import pytest
from netaddr import IPAddress, IPNetwork

from backends.gcp.wiring import AliasWiring
from backends.site import Nic, Options, Site
from cluster.peers import Peer
from cni.errors import ConfigInvalid
from dataplane.host import NOTHING, Facts
from dataplane.items import NftTable, Rule
from dataplane.uplink import Uplink

PLAIN = Options()
NODE = Peer("node-a", (IPAddress("10.0.0.2"),), ())
BLOCKS = ("10.4.0.0/28", "10.4.0.64/26")


def site(*, options: Options = PLAIN, host: Facts = NOTHING, blocks: tuple[str, ...] = BLOCKS) -> Site:
    nic = Nic(
        "ens4", 0, "42:01:0a:00:00:02", NODE.addresses[0], IPNetwork("10.0.0.0/16"), frozenset(map(IPNetwork, blocks))
    )
    uplink = Uplink("ens4", 1460, (IPNetwork("10.0.0.2/32"),))
    return Site(NODE, uplink, options, (nic,), (nic.subnet,), host=host)


def lines(wiring: AliasWiring) -> set[str]:
    return {str(item) for item in wiring.node([]).plan.values() if not isinstance(item, NftTable)}


def nft(wiring: AliasWiring) -> str:
    (table,) = (item for item in wiring.node([]).plan.values() if isinstance(item, NftTable))
    return table.text


def test_a_node_has_a_route_per_range_and_no_rule() -> None:
    """A rule of ours would part the tables local and main, and the guest agent's routes would come first."""
    wiring = AliasWiring(site())
    assert lines(wiring) == {
        "route unreachable 10.4.0.0/28",
        "route unreachable 10.4.0.64/26",
        "sysctl net/ipv4/ip_forward = 1",
        "sysctl net/ipv4/conf/ens4/forwarding = 1",
    }
    assert "chain outbound" not in nft(wiring)
    assert wiring.mtu == 1460
    assert wiring.node([NODE]).unserved == ()


def test_other_programs_rules_come_after_ours() -> None:
    """Where somebody has rules before the main table, as a VPN client does, pods are found before those."""
    plan = AliasWiring(site(host=Facts(ruled=frozenset({4})))).node([]).plan
    assert {(one.priority, one.dst) for one in plan.values() if isinstance(one, Rule)} == {
        (82, "10.4.0.0/28"),
        (82, "10.4.0.64/26"),
    }


def test_routes_by_which_the_host_answers_are_overridden_if_wanted() -> None:
    """By one for each half of a range: more specific than whatever the guest agent makes for the whole."""
    plain, overriding = (lines(AliasWiring(site(), is_overriding=one)) for one in (False, True))
    assert overriding - plain == {
        "route throw 10.4.0.0/29 table 255",
        "route throw 10.4.0.8/29 table 255",
        "route throw 10.4.0.64/27 table 255",
        "route throw 10.4.0.96/27 table 255",
    }


def test_a_single_address_cannot_be_halved() -> None:
    """It has a pod's route alone."""
    wiring = AliasWiring(site(blocks=("10.4.0.7/32",)), is_overriding=True)
    assert not [one for one in lines(wiring) if one.startswith("route")]


def test_masquerade_is_for_what_leaves_the_routable_ranges() -> None:
    """Nothing else is translated."""
    options = Options(masquerade=(IPNetwork("10.0.0.0/8"),))
    text = nft(AliasWiring(site(options=options)))
    assert "ip saddr { 10.4.0.0/28, 10.4.0.64/26 } ip daddr != { 10.0.0.0/8 } masquerade" in text


def test_an_mtu_that_the_interface_does_not_carry_is_refused() -> None:
    """The VPC's own is smaller than elsewhere."""
    with pytest.raises(ConfigInvalid, match="mtu is 1500"):
        AliasWiring(site(options=Options(mtu=1500)))
