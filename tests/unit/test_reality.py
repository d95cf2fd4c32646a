"""What the kernel would do with packets is compared with what is meant: differences are told, with what is to blame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from netaddr import IPAddress, IPNetwork

from agent.keep.reality import Question, Reality, questions
from agent.keep.survey import Surroundings
from backends.aws.wiring import EniWiring
from backends.podlink import link_name, pod_mac
from backends.site import Nic, Options, Site
from backends.static.wiring import StaticWiring
from backends.vxlan.wiring import VxlanWiring
from backends.wiring import Wiring
from cluster.peers import Peer
from cni.errors import Failure, KernelRefused
from cni.spec import Attachment
from dataplane.items import HOST, Route, plan
from dataplane.meant import Meant
from dataplane.uplink import Uplink
from dataplane.ways import Course, Packet
from ipam.lease import Block, Lease, Leased
from ipam.moment import Moment
from ipam.store import Record


def peer(number: int) -> Peer:
    """A dual-stack node."""
    return Peer(
        f"node-{number}",
        (IPAddress(f"192.0.2.{number}"), IPAddress(f"2001:db8:ffff::{number}")),
        (IPNetwork(f"10.244.{number}.0/24"), IPNetwork(f"2001:db8:{number}::/64")),
    )


def pod(name: str, *addresses: str) -> Record:
    """A pod's record."""
    ips = [IPAddress(one) for one in addresses]
    leased = tuple(Leased(ip, Block(IPNetwork(ip), "")) for ip in ips)
    lease = Lease(Attachment("pods", name, "eth0"), leased)
    return Record(lease, f"/run/netns/{name}", pod_mac(ips), 1500, "", Moment(0.0, 0.0))


UPLINK = Uplink("eth0", 1500, (IPNetwork("192.0.2.1/24"), IPNetwork("2001:db8:ffff::1/64")))
SITE = Site(peer(1), UPLINK, Options())
PEERS = frozenset(map(peer, range(1, 9)))
PODS = [pod(f"pod-{number}", f"10.244.1.{number}", f"2001:db8:1::{number}") for number in range(1, 6)]
ENI = Nic("ens6", 1, "02:00:00:00:00:06", IPAddress("192.0.3.9"), IPNetwork("192.0.3.0/24"))
VPC = replace(
    SITE,
    here=Peer("node-1", (IPAddress("192.0.2.1"),), ()),
    interfaces=(
        Nic(
            "eth0", 0, "02:00:00:00:00:05", IPAddress("192.0.2.1"), IPNetwork("192.0.2.0/24"),
            frozenset((IPNetwork("192.0.2.16/28"),)),
        ),
        replace(ENI, blocks=frozenset((IPNetwork("192.0.3.32/28"),))),
    ),
)  # fmt: skip
ENI_PODS = [pod("first", "192.0.2.17"), pod("second", "192.0.3.33")]


def around(site: Site, wiring: Wiring, peers: frozenset[Peer]) -> Surroundings:
    """What surrounds the node."""
    return Surroundings(site, peers, wiring, wiring.node(peers), frozenset())


def static() -> tuple[Surroundings, list[Record]]:
    return around(SITE, StaticWiring(SITE), PEERS), PODS


def vxlan() -> tuple[Surroundings, list[Record]]:
    return around(SITE, VxlanWiring(SITE), PEERS), PODS


def aws() -> tuple[Surroundings, list[Record]]:
    return around(VPC, EniWiring(VPC), frozenset((VPC.here,))), ENI_PODS


class Kernel:
    """Does what is meant, but for packets in *wrong*; the host itself sends what is beyond by the gateway."""

    def __init__(self, surroundings: Surroundings, records: Sequence[Record]) -> None:
        pods = {key: item for one in records for key, item in surroundings.wiring.pod(one).items()}
        self._meant = Meant({**surroundings.wired.plan, **pods})
        self.wrong: dict[str, Course] = {}
        self.asked: list[Packet] = []
        self.hooks: list[Failure] = []
        self.refusal: Failure | None = None

    def ask(self, packets: Sequence[Packet]) -> list[Course]:
        if self.refusal is not None:
            raise self.refusal
        self.asked += packets
        gateway = Course("unicast", "eth0", "192.0.2.254", 254)
        return [self.wrong.get(one.dst) or self._meant.way(one) or gateway for one in packets]

    def reality(self) -> Reality:
        return Reality(
            ask=self.ask,
            explain=lambda packet, way: f"blame {way.table}",
            hooks=lambda networks, is_asymmetric: self.hooks,
        )


@pytest.fixture(params=[static, vxlan, aws])
def case(request: pytest.FixtureRequest) -> Iterator[tuple[Surroundings, list[Record], Kernel]]:
    """Each backend, and a kernel that does what it wants."""
    surroundings, records = request.param()
    yield surroundings, records, Kernel(surroundings, records)


def test_where_all_is_as_meant_nothing_is_found(case: tuple[Surroundings, list[Record], Kernel]) -> None:
    """And in the end every pod was asked for, and every peer, a few at a time."""
    surroundings, records, kernel = case
    reality = kernel.reality()
    for _ in range(12):
        before = len(kernel.asked)
        reality.look(surroundings, records)
        assert 0 < len(kernel.asked) - before < 120
    assert reality.findings == ()
    assert not reality.is_suspicious
    asked = {packet.dst for packet in kernel.asked}
    assert {str(one) for record in records for one in record.lease.addresses} <= asked
    ranges = [one.pod_cidrs[0] for one in surroundings.peers if one.pod_cidrs]
    assert all(any(IPAddress(dst) in cidr for dst in asked) for cidr in ranges)


def test_every_kind_of_way_is_asked_for() -> None:
    """To a pod from its node, from another node and from a neighbour; from it to others, and beyond."""
    found: dict[str, Question] = {one.what.replace("pods/", ""): one for one in questions(*static(), 0)}
    assert {
        "from pod pod-1/eth0 to pods of node-2",
        "from pods of node-2 to pod pod-1/eth0",
        "from pod pod-1/eth0 to beyond",
        "from this node to pod pod-1/eth0",
        "from pod pod-1/eth0 to one of this node",
    } <= found.keys()
    back = found["from pods of node-2 to pod pod-1/eth0"]
    assert back.packet.iif == "eth0"
    assert back.meant is not None
    assert back.meant.dev == link_name(PODS[0].lease.who)


def test_a_pod_of_an_interface_leaves_by_that() -> None:
    """Beyond, too: there the rules of the backend decide, and not the main table."""
    beyond: list[Question] = [one for one in questions(*aws(), 0) if one.what.endswith("beyond")]
    assert [way and (way.dev, way.via) for _, _, way in beyond] == [
        ("eth0", "192.0.2.1"),
        ("ens6", "192.0.3.1"),
    ]


def test_what_is_found_twice_is_told_and_ends_with_its_cause(
    case: tuple[Surroundings, list[Record], Kernel], caplog: pytest.LogCaptureFixture
) -> None:
    """Once it may be a change under way. It says where the packet goes, where it should, and what is to blame."""
    surroundings, records, kernel = case
    reality = kernel.reality()
    victim = str(records[0].lease.addresses[0])
    kernel.wrong[victim] = Course("unicast", "vpn0", "", 52)
    reality.look(surroundings, records)
    assert not reality.findings
    assert reality.is_suspicious
    for _ in range(3):
        reality.look(surroundings, records)
    texts = [str(one) for one in reality.findings]
    own = f"dev {link_name(records[0].lease.who)}"
    assert any("from this node to pod" in one and "says dev vpn0 (table 52)" in one and own in one for one in texts)
    assert all("blame 52" in one for one in texts)
    assert len([one for one in caplog.messages if "do not go where they should" in one]) == len(texts)
    kernel.wrong.clear()
    reality.look(surroundings, records)
    assert reality.findings == ()


def test_a_pod_goes_beyond_as_its_node_does() -> None:
    """Where the host has no way there, a pod needs none; where it has one, a pod's may not be another."""
    surroundings, records = static()
    kernel = Kernel(surroundings, records)
    reality = kernel.reality()
    kernel.wrong["203.0.113.1"] = Course("no route")
    for _ in range(2):
        reality.look(surroundings, records)
    assert reality.findings == ()


def test_what_cannot_be_asked_is_a_finding(case: tuple[Surroundings, list[Record], Kernel]) -> None:
    """It keeps nobody from anything."""
    surroundings, records, kernel = case
    reality = kernel.reality()
    kernel.refusal = KernelRefused("the kernel does not answer")
    for _ in range(2):
        reality.look(surroundings, records)
    assert [str(one) for one in reality.findings] == ["the kernel does not answer"]


def test_chains_that_drop_are_told(case: tuple[Surroundings, list[Record], Kernel]) -> None:
    """Like everything else."""
    surroundings, records, kernel = case
    reality = kernel.reality()
    kernel.hooks = [Failure("a chain drops")]
    for _ in range(2):
        reality.look(surroundings, records)
    assert reality.findings == (kernel.hooks[0],)


def test_what_is_meant_to_go_nowhere() -> None:
    """A range of which no address is anybody's yet."""
    meant = Meant(plan(Route(HOST, "10.244.1.0/24", unreachable=True)))
    assert meant.way(Packet("10.244.1.9")) == Course("no route", table=254)
