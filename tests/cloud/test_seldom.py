"""What EC2 refuses seldom, at calls that are seldom made: each is told, and costs nobody an address."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import ThreadingHTTPServer

import pytest

from backends.aws import check
from backends.aws.inventory import STALE, Intent
from backends.aws.live import Live
from backends.aws.model import CLUSTER_TAG, MADE_TAG
from backends.aws.options import EniOptions
from backends.aws.sweep import AGE, INTERVAL
from backends.cloud.failures import Lost
from backends.cloud.steps import Call
from backends.verdict import Mark
from ipam.warmpool import Targets
from tests.cloud.machine import Machine
from tests.cloud.region import Refusal
from tests.cloud.test_fabric import REST, Place, well
from tests.cloud.test_metadata import FIRST, Service, handler
from tests.cloud.test_others import foreign
from tests.cloud.test_refusals import DENIED, Scene
from tests.fakes.descriptors import descriptors as few_descriptors


def told(machine: Machine, seconds: float = 0.0) -> str:
    """All that was told within these seconds."""
    said = list(machine.fabric.report().obstacles)
    for _ in range(int(seconds / 5)):
        machine.run(5)
        said += machine.fabric.report().obstacles
    return "; ".join(said)


@pytest.mark.parametrize(
    ("options", "action"),
    [
        (EniOptions(subnet_tags={"for": "pods"}), "DescribeSubnets"),
        (EniOptions(group_tags={"for": "pods"}), "DescribeSecurityGroups"),
    ],
)
def test_where_an_interface_could_be_made_may_not_be_asked(options: EniOptions, action: str) -> None:
    """It is told by the call that is not permitted, and what is there is filled meanwhile."""
    scene = Scene(options=options)
    scene.machine.run(30)
    scene.refuse(DENIED, action)
    scene.machine.add(150)
    scene.machine.run(60)
    assert len(scene.machine.pods) == 9 * 16
    assert "UnauthorizedOperation" in told(scene.machine)
    assert scene.machine.fabric.inventory.intents == ()


def test_an_ipv6_prefix_that_is_throttled_comes_later() -> None:
    """Nothing is thought to be under way meanwhile."""
    place = Place(cidr6="2001:db8:0:1::/64")
    place.region.fail("AssignIpv6Addresses", 1, "throttle")
    machine = place.machine(options=EniOptions(ipv6=True))
    machine.add(1)
    machine.run(60)
    (lease,) = machine.allocator.leases.values()
    assert [address.version for address in lease.addresses] == [4, 6]
    well(machine)


def test_an_interface_of_which_is_not_known_whether_it_was_made_may_not_be_made() -> None:
    """The answer was lost, and the next says that it is not permitted: the intent ends, and that is told."""
    scene = Scene()
    scene.machine.run(30)
    fault = scene.region.fail("CreateNetworkInterface", 1, "lost_before")
    scene.machine.add(12)
    while not fault.is_consumed:
        scene.machine.run(0.1)
    assert [(one.kind, one.eni) for one in scene.machine.fabric.inventory.intents] == [("create", "")]
    scene.refuse(DENIED, "CreateNetworkInterface")
    assert "CreateNetworkInterface" in told(scene.machine, 120)
    assert scene.machine.fabric.inventory.intents == ()
    scene.refuse("none", "none")
    scene.machine.run(REST)
    assert len(scene.machine.pods) == 12
    well(scene.machine)


def test_what_was_cut_off_may_not_be_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    """Whether the blocks are there is not known: nothing is given from them, and it is asked again later."""
    scene = Scene()
    scene.machine.run(30)
    scene.region.fail("AssignPrivateIpAddresses", 1, "lost_after")
    scene.machine.add(5)
    scene.machine.run(1)
    scene.refuse(DENIED, "DescribeNetworkInterfaces")
    scene.machine.run(30)
    assert "a change that was cut off is refused" in caplog.text
    scene.refuse("none", "none")
    scene.machine.run(REST)
    assert len(scene.machine.pods) == 5
    well(scene.machine)


def test_an_interface_that_never_appears_is_forgotten() -> None:
    """It was made, says EC2's answer, and is never known to it again: another is made, and that one is swept if it
    comes after all."""
    scene = Scene()
    scene.machine.run(30)
    hidden = Refusal("InvalidNetworkInterfaceID.NotFound", "no", 400)
    scene.region.refuse = lambda action, asked: (
        hidden
        if action == "AttachNetworkInterface" or (action == "DescribeNetworkInterfaces" and "Filters" not in asked)
        else None
    )
    scene.machine.add(12)
    assert "does not appear" in told(scene.machine, STALE + 60)
    scene.region.refuse = lambda action, asked: None
    scene.machine.run(2 * REST)
    assert len(scene.machine.pods) == 12


@pytest.mark.parametrize("is_ours", [True, False])
def test_what_seemed_left_behind_may_be_wanted_or_gone(is_ours: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Between the look and the deletion: it turns out to be on its way here, or somebody else was faster."""
    scene = Scene()
    region, clock, machine = scene.region, scene.clock, scene.machine
    machine.run(30)
    tags = {CLUSTER_TAG: "routable", MADE_TAG: f"{clock.now - 2 * AGE:.0f}"}
    left = {region.add_nic(scene.subnet, tags) for _ in range(2)}
    until = clock.now + 3 * INTERVAL
    while not region.calls["DeleteNetworkInterface", ""]:
        machine.run(0.1)
        assert clock.now < until
    (other,) = left & region.nics.keys()
    if is_ours:
        # It is not known to all of EC2 yet, so it is not attached at once.
        scene.refuse("InvalidNetworkInterfaceID.NotFound", "AttachNetworkInterface", status=400)
        machine.fabric.inventory.begin(Intent("create", clock.now, other))
    else:
        region.call("DeleteNetworkInterface", {"NetworkInterfaceId": other})
        caplog.set_level("INFO")
    machine.run(30)
    assert (other in region.nics) is is_ours
    assert ("left behind was not deleted" in caplog.text) is not is_ours


def test_the_subnet_of_an_interface_that_only_ec2_shows_is_asked_for() -> None:
    """The metadata, which has the others', stands still."""
    place = Place()
    machine = place.machine()
    machine.run(30)
    frozen = machine._look()
    machine._look = lambda: frozen  # type: ignore[method-assign]
    place.subnet = place.region.add_subnet(place.vpc, "10.0.32.0/20")
    name = foreign(place, machine, 1)
    machine.run(REST)
    assert name in machine.fabric.inventory.enis
    assert place.calls("DescribeSubnets") == 1


def test_a_block_is_where_it_was_put_last() -> None:
    """By EC2's own answer to a change that was made here."""
    place = Place()
    machine = place.machine()
    machine.run(5)
    machine.add(150)
    machine.run(30)
    inventory = machine.fabric.inventory
    first, second = sorted(inventory.enis.values(), key=lambda one: one.index or 0)
    block = next(iter(first.blocks))
    inventory.put(replace(second, blocks=second.blocks | {block}))
    assert block not in inventory.enis[first.id].blocks
    assert block in inventory.enis[second.id].blocks


def test_an_interface_of_which_nothing_may_be_known_is_kept() -> None:
    """Whether its addresses are used is only half of what must be known before it goes."""
    scene = Scene(options=EniOptions(warm=Targets(delay=1.0)))
    scene.machine.run(30)
    scene.machine.add(150)
    scene.machine.run(60)
    scene.machine.delete(150)
    scene.refuse(DENIED, "DescribeNetworkInterfaces")
    scene.machine.run(REST)
    assert len(scene.region.held(scene.machine.instance)) == 2
    scene.refuse("none", "none")
    scene.machine.run(REST)
    assert len(scene.region.held(scene.machine.instance)) == 1
    well(scene.machine)


def test_before_the_metadata_said_where_this_is_ec2_cannot_be_asked() -> None:
    """There is no endpoint without a region."""
    live = Live(Place().machine().fabric, {})
    with pytest.raises(Lost, match="has not said yet where this is"):
        live.perform(Call("DescribeSubnets", {}))


# --- routable-agent --check -------------------------------------------------------------------------------------


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """Where the metadata of an instance is whose primary interface is on no link here."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(Service())) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield {"AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}
        server.shutdown()
        thread.join()


def test_a_check_elsewhere_than_in_the_nodes_own_namespace(environment: dict[str, str]) -> None:
    """The metadata can be read there, too, but the interfaces are not there."""
    first, second, *_ = check.verdicts(environment)
    assert (first.mark, first.what) == (Mark.GOOD, "metadata")
    assert (second.mark, second.what) == (Mark.WRONG, "uplink")
    assert f"no link here has the hardware address {FIRST}" in second.said
    assert "hostNetwork" in second.said


def test_a_check_that_cannot_look_says_so(environment: dict[str, str]) -> None:
    """As for want of descriptors."""
    found = check.verdicts(environment)
    assert next(found).mark is Mark.GOOD
    with few_descriptors(0):
        (last,) = found
    assert (last.mark, last.what) == (Mark.WRONG, "uplink")


def test_a_check_without_the_library(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install is said, and nothing else is looked at."""
    monkeypatch.setitem(sys.modules, "boto3", None)
    (only,) = check.verdicts(environment)
    assert (only.mark, only.what) == (Mark.WRONG, "library")
    assert "install routable[aws]" in only.said
