"""The parts of ``aws-eni`` that are pure: instance types, the pace of calls, what stands in the way, the plan."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import resources
from typing import Any

import pytest
from netaddr import IPAddress, IPNetwork

from backends.aws import typetable
from backends.aws.calls import ATTACH, CAPACITY, REFILL, failed
from backends.aws.inventory import JOURNAL, Intent, Inventory
from backends.aws.limits import COLUMNS, known, max_pods, pod_addresses
from backends.aws.refusals import FRAGMENTED, Refusals
from backends.aws.table import SPARE, AwsTable, wanted
from backends.aws.wiring import EniWiring
from backends.cloud import pacing
from backends.cloud.failures import Lost, Refused, Throttled
from backends.cloud.maxpods import spare
from backends.cloud.obstacles import FOR_NOW, SOON
from backends.cloud.pacing import Pacer
from backends.site import Nic, Options, Site
from cluster.peers import Peer
from cni.errors import Exhausted, FabricRefused
from dataplane.items import Item, Key, NftTable
from dataplane.uplink import Uplink
from ipam.warmpool import Pool, Pooled, actions

# --- how many pods ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "pods"),
    [("t3.small", 11), ("t3.medium", 17), ("m5.large", 29), ("c5.xlarge", 58), ("m6i.4xlarge", 234), ("r5.metal", 737)],
)
def test_with_single_addresses_they_are_as_many_as_amazons_list_says(name: str, pods: int) -> None:
    """eni-max-pods.txt: interfaces x (addresses - 1) + 2."""
    limits = known(name)
    assert limits is not None
    assert max_pods(limits, pod_addresses(limits, is_prefix_mode=False), is_capped=False) == pods


def test_with_prefixes_the_machine_is_the_limit() -> None:
    """110, or 250 from 30 processors on, as Amazon's calculator has it; less where less can be had."""
    small, large = known("m5.large"), known("m5.24xlarge")
    assert small is not None and large is not None
    assert max_pods(small, pod_addresses(small, is_prefix_mode=True)) == 110
    assert max_pods(large, pod_addresses(large, is_prefix_mode=True)) == 250
    assert max_pods(small, pod_addresses(small, is_prefix_mode=True), is_capped=False) == 3 * 9 * 16 + 2
    assert max_pods(small, pod_addresses(small._replace(has_prefixes=False), is_prefix_mode=True)) == 29
    assert max_pods(small, pod_addresses(small, is_prefix_mode=False, reserved=1)) == 20
    assert max_pods(small, pod_addresses(small, is_prefix_mode=False, most=2)) == 20
    assert max_pods(small, pod_addresses(small, is_prefix_mode=False, most=1, reserved=3)) == 2


def test_headroom_is_left_where_addresses_are_the_limit() -> None:
    """Of 27 addresses four are kept; of 432 the machine's cap leaves more than that anyway; never less than nothing."""
    small = known("m5.large")
    assert small is not None
    few, many = (pod_addresses(small, is_prefix_mode=prefixes) for prefixes in (False, True))
    assert (max_pods(small, few, headroom=4), spare(few, 25)) == (25, 4)
    assert (max_pods(small, many, headroom=4), spare(many, 110)) == (110, 324)
    assert max_pods(small, few, headroom=100) == 2
    assert spare(few, max_pods(small, few)) == 0


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("t3.medium", (3, 6, True)),
        ("m5.large", (3, 10, True)),
        ("m5.xlarge", (4, 15, True)),
        ("m5.4xlarge", (8, 30, True)),
        ("m5.24xlarge", (15, 50, True)),
        ("t2.medium", (3, 6, False)),
        ("t3a.small", (2, 4, True)),
        ("p4d.24xlarge", (15, 50, True)),
        ("p5.48xlarge", (2, 50, True)),
        ("trn1.32xlarge", (5, 50, True)),
        ("mac1.metal", (8, 30, True)),
    ],
)
def test_the_table_has_what_the_documentation_says(name: str, numbers: tuple[int, int, bool]) -> None:
    """Of the first network card, where there are several: the sum over all is more."""
    limits = known(name)
    assert limits is not None
    assert (limits.interfaces, limits.addresses, limits.has_prefixes) == numbers


def test_the_table_has_every_current_type() -> None:
    """Each once, in order, with numbers that make sense."""
    rows = [line.split("\t") for line in resources.files("backends.aws").joinpath("types.tsv").read_text().splitlines()]
    assert tuple(rows[0]) == COLUMNS
    names = [row[0] for row in rows[1:]]
    assert len(names) > 1390
    assert names == sorted(set(names))
    assert all(int(row[1]) >= 1 and int(row[2]) >= 2 and row[4] in ("yes", "no") for row in rows[1:])


def test_a_table_is_made_of_what_ec2_answers() -> None:
    """By the script that made the one that is installed."""
    card = [{"NetworkCardIndex": index, "MaximumNetworkInterfaces": most} for index, most in ((0, 4), (1, 3))]
    network = {"NetworkCards": card, "MaximumNetworkInterfaces": 7, "Ipv4AddressesPerInterface": 9}
    answer = {"InstanceType": "z9.large", "Hypervisor": "nitro", "NetworkInfo": network}
    old = answer | {"InstanceType": "a0.large", "Hypervisor": "xen", "VCpuInfo": {"DefaultVCpus": 2}}
    lines = typetable.table([answer, old]).splitlines()
    assert lines[1:] == ["a0.large\t4\t9\t0\tno\t2", "z9.large\t4\t9\t0\tyes\t0"]


def test_what_the_table_does_not_have_it_does_not_guess() -> None:
    """EC2 is asked instead."""
    assert [known(name) for name in ("z9.large", "m5.huge", "m5", "", "t3.metal")] == [None] * 5


@pytest.mark.parametrize(
    ("settings", "warm", "minimum"),
    [
        ({}, None, None),
        ({"mode": "address"}, SPARE, None),
        ({"mode": "address", "warm_addresses": 9}, 9, None),
        ({"mode": "address", "minimum_addresses": 10}, None, 10),
        ({"mode": "address", "warm_enis": 1}, None, None),
    ],
)
def test_a_node_has_something_warm_in_either_mode(
    settings: dict[str, Any], warm: int | None, minimum: int | None
) -> None:
    """Prefixes, or a few addresses: or else every pod would wait for a call."""
    found = wanted(AwsTable(**settings)).warm
    assert (found.warm_addresses, found.minimum_addresses) == (warm, minimum)
    pool = Pool((Pooled("eni-0", 9, is_fixed=True),), slots_of_new=9, interfaces_left=2)
    assert actions(pool, found)


# --- the pace ----------------------------------------------------------------------------------------------------


def test_a_burst_then_a_steady_rate_for_each_action() -> None:
    """The bucket of one action is not that of another."""
    pacer = Pacer(CAPACITY, REFILL, lambda: 1.0)
    for _ in range(int(CAPACITY)):
        assert pacer.delay("A", 100.0) == 0
        pacer.spend("A", 100.0)
    assert pacer.delay("A", 100.0) == pytest.approx(1 / REFILL)
    assert pacer.delay("B", 100.0) == 0
    assert pacer.delay("A", 100.0 + 1 / REFILL) == pytest.approx(0)


def test_throttling_doubles_the_pause_and_an_answer_ends_it() -> None:
    """Between half of it and all, by chance; of this action alone."""
    for random, share in ((0.0, 0.5), (1.0, 1.0)):
        pacer = Pacer(CAPACITY, REFILL, lambda random=random: random)  # type: ignore[misc]
        now, pauses = 0.0, []
        for _ in range(9):
            pacer.throttled("A", now)
            pauses.append(pacer.delay("A", now))
            now += pauses[-1]
        longest = [min(pacing.LONGEST, pacing.FIRST * 2**n) for n in range(9)]
        assert pauses == pytest.approx([one * share for one in longest])
        assert pacer.delay("B", now) == 0
        pacer.answered("A")
        pacer.throttled("A", now)
        assert pacer.delay("A", now) == pytest.approx(pacing.FIRST * share)


def test_a_cloud_that_gives_no_answers_is_left_alone_for_a_while() -> None:
    """All of it, after some in a row; it is asked once between pauses, and the first answer ends them."""
    pacer = Pacer(CAPACITY, REFILL, lambda: 1.0)
    for _ in range(pacing.FAILURES - 1):
        pacer.lost(0.0)
    assert (pacer.is_open, pacer.delay("A", 0.0)) == (False, 0)
    pacer.lost(0.0)
    assert (pacer.is_open, pacer.delay("A", 0.0)) == (True, 2.0)
    pacer.lost(2.0)
    assert pacer.delay("B", 2.0) == 4.0
    pacer.answered("A")
    pacer.lost(6.0)
    assert (pacer.is_open, pacer.delay("A", 6.0)) == (False, 0)


def test_an_error_says_what_is_known_afterwards() -> None:
    """Throttled and refused: nothing was done. An internal error: who knows."""
    assert type(failed("A", "RequestLimitExceeded", "", 503)) is Throttled
    assert type(failed("A", "InternalError", "", 500)) is Lost
    assert type(failed("A", "UnauthorizedOperation", "no", 403)) is Refused
    assert type(failed("A", "RequestTimeout", "", 400)) is Lost


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("EC2ThrottledException", 503),
        ("RequestThrottled", 400),
        ("RequestThrottledException", 400),
        ("ThrottledException", 400),
        ("SlowDown", 503),
        ("PriorRequestNotComplete", 400),
        ("BandwidthLimitExceeded", 509),
        ("", 429),
    ],
)
def test_throttling_has_many_names(code: str, status: int) -> None:
    """Those that the AWS SDKs know, and the status that stands for it."""
    assert type(failed("A", code, "", status)) is Throttled


# --- what stands in the way --------------------------------------------------------------------------------------


ASK, ENI, WHERE = "AssignPrivateIpAddresses", "eni-1", "subnet-1"


@pytest.mark.parametrize(
    ("code", "action", "about", "seconds", "kind", "words"),
    [
        ("InsufficientCidrBlocks", "prefixes", "", FRAGMENTED, Exhausted, "no prefix is free in subnet subnet-1"),
        ("InsufficientFreeAddressesInSubnet", ASK, WHERE, FOR_NOW, Exhausted, "subnet subnet-1 has no free address"),
        ("NetworkAddressUsageLimitExceeded", ASK, "", FOR_NOW, Exhausted, "the VPC has no more network address units"),
        ("AttachmentLimitExceeded", ATTACH, "", FRAGMENTED, Exhausted, "the instance can have no more interfaces"),
        ("PrivateIpAddressLimitExceeded", ASK, ENI, FOR_NOW, Exhausted, "interface eni-1 takes no more addresses"),
        ("UnauthorizedOperation", ASK, ENI, FOR_NOW, FabricRefused, f"EC2 refused {ASK}"),
        ("ExpiredToken", "Any", "", SOON, FabricRefused, "EC2 does not accept this node's credentials"),
        ("NoCredentialsError", "Any", "", SOON, FabricRefused, "EC2 does not accept this node's credentials"),
    ],
)
def test_which_limit_was_reached_is_told_and_believed_for_a_while(
    code: str, action: str, about: str, seconds: float, kind: type[Exception], words: str
) -> None:
    """By the code that EC2 answers, with EC2's own words in the details; then it is tried again."""
    now = 100.0
    obstacles = Refusals(lambda: now)
    error = Refused(ASK, code, "its words")
    obstacles.noticed(error, ENI)
    obstacles.refused(error, WHERE, ENI)
    (found,) = obstacles.all()
    assert found is obstacles.of(action, about)
    assert (type(found), found.message) == (kind, words)
    assert f"EC2 says {code}: its words" in found.details
    assert obstacles.pause(action, about) == seconds
    now += seconds - 1
    assert obstacles.all() == [found]
    now += 2
    assert (obstacles.all(), obstacles.of(action, about), obstacles.pause(action, about)) == ([], None, 0)


def test_an_obstacle_is_in_the_way_of_its_action_on_its_object_alone() -> None:
    """Not of the same on another, nor of another on the same; and a subnet without addresses not of another."""
    obstacles = Refusals(lambda: 100.0)
    obstacles.noticed(Refused("CreateNetworkInterface", "UnauthorizedOperation", ""), WHERE)
    obstacles.noticed(Refused("DeleteNetworkInterface", "UnauthorizedOperation", ""), ENI)
    obstacles.noticed(Refused("CreateNetworkInterface", "NetworkInterfaceLimitExceeded", ""), "subnet-2")
    obstacles.refused(Refused(ASK, "InsufficientFreeAddressesInSubnet", ""), "subnet-3")
    barred = {
        (action, about)
        for action in (ASK, "CreateNetworkInterface", "DeleteNetworkInterface", "DetachNetworkInterface")
        for about in (ENI, "eni-2", WHERE, "subnet-2", "subnet-3", "subnet-4")
        if obstacles.of(action, about) is not None
    }
    assert barred == {
        ("CreateNetworkInterface", WHERE),
        ("CreateNetworkInterface", "subnet-2"),
        ("CreateNetworkInterface", "subnet-3"),
        ("DeleteNetworkInterface", ENI),
        (ASK, "subnet-3"),
    }


@pytest.mark.parametrize("chance", [0.0, 1.0])
@pytest.mark.parametrize(
    ("code", "pauses"),
    [
        ("UnauthorizedOperation", [60, 120, 240, 480, 600, 600]),
        ("InvalidParameterValue", [0, 2, 4, 8, 16, 32]),
        ("ExpiredToken", [2, 4, 8, 15, 15, 15]),
    ],
)
def test_what_is_refused_again_is_tried_later(code: str, pauses: list[float], chance: float) -> None:
    """Twice as late each time, within bounds, between half of it and all by chance; what EC2 does, ends it."""
    now = 100.0
    obstacles = Refusals(lambda: now, lambda: chance)
    seen = []
    for _ in pauses:
        obstacles.noticed(Refused(ASK, code, ""), ENI)
        seen.append(obstacles.pause(ASK, ENI))
        now += seen[-1]
    share = 0.5 + 0.5 * chance
    assert seen == pytest.approx([one * share for one in pauses])
    obstacles.passed(ASK, ENI)
    obstacles.noticed(Refused(ASK, code, ""), ENI)
    assert obstacles.pause(ASK, ENI) == pytest.approx(pauses[0] * share)


# --- the plan ----------------------------------------------------------------------------------------------------

HERE = Peer("a", (IPAddress("10.0.0.4"),), ())
UPLINK = Uplink("ens5", 9001, (IPNetwork("10.0.0.4/20"),))
SUBNET = IPNetwork("10.0.0.0/20")
FIRST = Nic("ens5", 0, "02:00:00:00:00:04", IPAddress("10.0.0.4"), SUBNET, frozenset({IPNetwork("10.0.0.16/28")}))
SECOND = Nic(
    "ens6", 1, "02:00:00:00:00:09", IPAddress("10.0.1.9"), SUBNET, frozenset({IPNetwork("10.0.1.32/28")})
)
NETWORKS = (IPNetwork("10.0.0.0/16"),)


def planned(*interfaces: Nic, masquerade: tuple[IPNetwork, ...] | None = None) -> tuple[list[str], str]:
    site = Site(HERE, UPLINK, Options(masquerade=masquerade), interfaces, NETWORKS)
    plan: dict[Key, Item] = EniWiring(site).node(()).plan
    (table,) = (item for item in plan.values() if isinstance(item, NftTable))
    return [str(item) for item in plan.values() if not isinstance(item, NftTable)], table.text


def test_with_the_primary_interface_alone_nothing_is_routed_specially() -> None:
    """The main table does it."""
    lines, chains = planned(FIRST)
    assert lines == ["sysctl net/ipv4/ip_forward = 1", "sysctl net/ipv4/conf/ens5/forwarding = 1"]
    assert "arriving" not in chains and "snat" not in chains


def test_a_secondary_interface_has_a_table_and_a_rule_for_each_block() -> None:
    """So has the primary one then, since the main table's default route may be another's; and replies leave by the
    interface that the connection came in on."""
    lines, chains = planned(FIRST, SECOND)
    assert lines == [
        "sysctl net/ipv4/ip_forward = 1",
        "sysctl net/ipv4/conf/ens5/forwarding = 1",
        "rule ipv4 82: from all lookup main suppress_ifgroup 0",
        "sysctl net/ipv4/conf/ens5/rp_filter = 2",
        "route 10.0.0.0/20 dev ens5 table 8200",
        "route 0.0.0.0/0 via 10.0.0.1 dev ens5 onlink table 8200",
        "rule ipv4 8220: from all fwmark 0x10/0xf0 lookup 8200",
        "rule ipv4 8230: from 10.0.0.16/28 lookup 8200",
        "link ens6 mtu 9001 address 02:00:00:00:00:09 up",
        "sysctl net/ipv4/conf/ens6/rp_filter = 2",
        "addr 10.0.1.9/32 dev ens6",
        "route 10.0.0.0/20 dev ens6 table 8201",
        "route 0.0.0.0/0 via 10.0.0.1 dev ens6 onlink table 8201",
        "rule ipv4 8220: from all fwmark 0x20/0xf0 lookup 8201",
        "rule ipv4 8230: from 10.0.1.9/32 lookup 8201",
        "rule ipv4 8230: from 10.0.1.32/28 lookup 8201",
    ]
    assert 'iifname "ens6" ct state new ct mark set ct mark and 0xffffff0f or 0x20' in chains
    assert "ct direction reply ct mark and 0xf0 == 0x10 meta mark set mark and 0xffffff0f or 0x10" in chains


def test_translation_is_for_what_leaves_the_vpc_by_the_primary_interface() -> None:
    """So pods of the other interfaces go there by their own only within the VPC and what is excluded, and else by the
    primary one, whatever the main table says."""
    lines, chains = planned(FIRST, SECOND, masquerade=(IPNetwork("192.168.0.0/16"),))
    assert "rule ipv4 8240: from 10.0.1.32/28 lookup 8200" in lines
    assert lines[-2:] == [
        "rule ipv4 8230: from 10.0.1.32/28 to 10.0.0.0/16 lookup 8201",
        "rule ipv4 8230: from 10.0.1.32/28 to 192.168.0.0/16 lookup 8201",
    ]
    assert (
        'ip saddr { 10.0.0.16/28, 10.0.1.32/28 } ip daddr != { 10.0.0.0/16, 192.168.0.0/16 } '
        'oifname "ens5" snat ip to 10.0.0.4' in chains
    )


def test_an_order_of_interfaces_makes_no_other_plan() -> None:
    """A pure function of what there is: the same for the same set of blocks, however it was collected."""
    blocks = frozenset(IPNetwork(f"10.0.1.{number}/32") for number in range(40, 60))
    many = replace(SECOND, blocks=blocks)
    again = replace(SECOND, blocks=frozenset(sorted(blocks, reverse=True)))
    assert sorted(planned(FIRST, many)[0]) == sorted(planned(FIRST, again)[0])
    assert planned(FIRST, many)[1] == planned(FIRST, again)[1]


# --- the journal ------------------------------------------------------------------------------------------------


class Kept:
    """A journal in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    def recall(self, name: str) -> str | None:
        return self.kept.get(name)

    def remember(self, name: str, value: str) -> None:
        self.kept[name] = value


def test_an_earlier_boots_intents_are_of_before_this_one() -> None:
    """The clock is the seconds since the boot: after another, what was entered counts as of its begin; within the same
    one it is as it was. What the tag of an interface says is the same for ever: its token is good for that alone."""
    kept = Kept()
    inventory = Inventory(kept, lambda: 5000.0, "boot-1")
    inventory.arrived("i-1")
    intent = Intent("create", 5000.0, token="t", made=1_700_000_000.0)
    inventory.begin(intent)
    assert Inventory(kept, lambda: 5001.0, "boot-1").intents == (intent,)
    (later,) = Inventory(kept, lambda: 10.0, "boot-2").intents
    assert later == intent._replace(since=0.0)


def test_an_earlier_agents_journal_is_gone_on_with() -> None:
    """It kept no instance, no boot, and one time, the wall clock's, which the tag had, too."""
    kept = Kept()
    names = {"eni": "", "token": "t", "subnet": "s", "chunks": 1, "size": 28, "blocks": [], "groups": ["g"]}
    old = {"kind": "create", "since": 1_700_000_000.0, **names}
    kept.remember(JOURNAL, json.dumps({"intents": [old], "gone": {"eni-1": 1_700_000_000.0}, "made": ["eni-2"]}))
    inventory = Inventory(kept, lambda: 400.0, "boot-1")
    inventory.arrived("i-1")
    assert inventory.intents == (Intent("create", 0.0, "", "t", "s", 1, 28, (), ("g",), 1_700_000_000.0),)
    assert not inventory.is_new
