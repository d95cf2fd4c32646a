"""The emulated Compute Engine: what it must be strict about, asked in memory."""

from __future__ import annotations

import pytest
from netaddr import IPNetwork

from tests.gcp.estate import RESERVED
from tests.gcp.ranges import Exhausted, Ranges
from tests.gcp.role import Role
from tests.gcp.scene import Scene, request, row
from tests.gcp.strangers import Hands
from tests.gcp.unkindness import Unkind


@pytest.fixture
def scene() -> Scene:
    """As kind as can be."""
    return Scene()


def code(operation: dict[str, object]) -> str:
    """Of what is inside of an operation."""
    error = operation["error"]
    assert isinstance(error, dict)
    return str(error["errors"][0]["code"])


# --- the list of ranges -------------------------------------------------------------------------------------------


def test_the_list_replaces_the_old_one(scene: Scene) -> None:
    """What is in it and was there stays as it is; what is not in it goes; a netmask is a range of Google's choice."""
    scene.patch([row("/28"), row("10.1.4.0/24")])
    assert scene.ranges() == ["10.1.0.0/28", "10.1.4.0/24"]
    scene.patch([row("10.1.4.0/24"), row("/28"), row("/28")])
    assert scene.ranges() == ["10.1.4.0/24", "10.1.0.16/28", "10.1.0.32/28"]
    scene.patch([row("/28"), *map(row, scene.ranges())])
    assert scene.ranges() == ["10.1.0.0/28", "10.1.4.0/24", "10.1.0.16/28", "10.1.0.32/28"]
    changes = [(one.gained, one.lost) for one in scene.project.log if one.instance == "node-a"]
    assert changes[1] == ((IPNetwork("10.1.0.16/28"), IPNetwork("10.1.0.32/28")), (IPNetwork("10.1.0.0/28"),))


def test_an_empty_list_takes_all_away_and_no_list_changes_nothing(scene: Scene) -> None:
    """PATCH: the client that never sends an empty list gets an operation that is DONE, and all is as it was."""
    scene.patch([row("/28")])
    done = scene.got(scene.patch(None))
    assert (done["status"], "error" in done) == ("DONE", False)
    assert scene.ranges() == ["10.1.0.0/28"]
    scene.patch([])
    assert "aliasIpRanges" not in scene.nic()
    assert scene.project.truth("node-a") == frozenset()


def test_an_address_is_a_range_of_one_and_the_primary_range_has_no_name(scene: Scene) -> None:
    """A range without a name is of the subnet's primary one, between the machines' own addresses."""
    scene.patch([row("10.1.2.3"), row("/32", "")])
    assert scene.nic()["aliasIpRanges"] == [row("10.1.2.3/32"), row("10.0.15.252/32", "")]
    scene.project.run_instance("node-c", "nodes")
    assert scene.nic("node-c")["networkIP"] == "10.0.15.253"


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (row("10.2.0.0/28"), "not within 10.1.0.0/16"),
        (row("10.1.0.0/28", ""), "not within 10.0.0.0/20"),
        (row("10.1.0.1/28"), "first address"),
        (row("/8"), "Must be a CIDR range"),
        (row("/"), "Must be a CIDR range"),
        (row(""), "Must be a CIDR range"),
        (row("2001:db8::/64"), "IPv4"),
        (row("/28", "services"), "no such secondary range"),
        ({"cidr": "/28"}, "Unknown name"),
    ],
)
def test_what_cannot_be_is_refused_at_once(scene: Scene, asked: dict[str, str], why: str) -> None:
    """400, and nothing is changed."""
    refused = scene.refused(scene.patch, [asked])
    assert (refused.status, why in refused.message) == (400, True), refused.message
    assert not scene.project.operations.by_name


def test_ranges_do_not_overlap(scene: Scene) -> None:
    """Within a list it is refused at once; with what another machine has, only the operation says so, and of such a
    list nothing is changed."""
    refused = scene.refused(scene.patch, [row("10.1.0.0/24"), row("10.1.0.16/28")])
    assert (refused.status, refused.code) == (400, "invalid")
    scene.patch([row("10.1.0.0/24")])
    done = scene.got(scene.patch([row("/28"), row("10.1.0.16/28")], "node-b"))
    assert (code(done), done["httpErrorStatusCode"]) == ("IP_IN_USE_BY_ANOTHER_RESOURCE", 400)
    assert done["error"]["errors"][0]["message"] == "IP '10.1.0.16/28' is already being used by another resource."
    assert scene.project.truth("node-b") == frozenset()
    scene.patch([row("/28")], "node-b")
    assert scene.ranges("node-b") == ["10.1.1.0/28"]


def test_a_range_is_added_or_taken_away_but_not_changed(scene: Scene) -> None:
    """A larger one in its place needs two calls."""
    scene.patch([row("10.1.0.0/28")])
    assert "cannot be updated" in scene.refused(scene.patch, [row("10.1.0.0/24")]).message
    scene.patch([])
    scene.patch([row("10.1.0.0/24")])
    assert scene.ranges() == ["10.1.0.0/24"]


def test_an_interface_has_so_many_ranges_at_most(scene: Scene) -> None:
    """Of any size; older projects have fewer."""
    scene.project.most_ranges = 3
    scene.patch([row("/28")] * 3)
    assert scene.refused(scene.patch, [*map(row, scene.ranges()), row("/32")]).status == 400
    scene.project.most_ranges = 4
    scene.patch([*map(row, scene.ranges()), row("/32")])
    assert len(scene.ranges()) == 4


@pytest.mark.parametrize("with_details", [False, True])
def test_a_full_range_is_said_inside_of_the_operation(with_details: bool) -> None:
    """Which range it is, in each of its two forms; nothing is taken where not all can be."""
    scene = Scene(pods="10.1.0.0/27", unkind=Unkind(with_details=with_details))
    done = scene.got(scene.patch([row("/28")] * 3))
    assert code(done) == ("IP_SPACE_EXHAUSTED_WITH_DETAILS" if with_details else "IP_SPACE_EXHAUSTED")
    message = done["error"]["errors"][0]["message"]
    assert "regions/europe-west1/subnetworks/nodes-pods-" in message
    assert ("10.1.0.0/27" in message) == with_details
    assert scene.project.subnetworks["nodes"].range("pods").free == 32


# --- fingerprints, requests, operations ---------------------------------------------------------------------------


def test_a_fingerprint_is_needed_and_must_be_the_last(scene: Scene) -> None:
    """400 without, 412 with an old one; the same contents have the same."""
    first = scene.nic()["fingerprint"]
    refused = scene.refused(
        scene.call, "instances.updateNetworkInterface", instance="node-a", networkInterface="nic0", body={}
    )
    assert (refused.status, refused.code) == (400, "required")
    scene.patch([row("/28")])
    refused = scene.refused(scene.patch, [], fingerprint=first)
    assert (refused.status, refused.code) == (412, "conditionNotMet")
    scene.patch([])
    assert scene.nic()["fingerprint"] == first


@pytest.mark.parametrize("name", ["accessConfigs", "networkIP", "nonsense"])
def test_a_body_has_the_ranges_and_the_fingerprint_alone(scene: Scene, name: str) -> None:
    """What instances.get answered cannot be sent back as it is."""
    assert scene.refused(scene.patch, [], body={name: []}).status == 400
    scene.patch([], body={"name": "nic0"})


def test_the_same_request_is_done_once(scene: Scene) -> None:
    """The second answer is the first one's operation, whatever its fingerprint; a zero UUID and no UUID are refused."""
    asked = {"requestId": request(), "fingerprint": scene.nic()["fingerprint"]}
    first = scene.patch([row("/28")], **asked)
    assert scene.patch([row("/28")], **asked)["name"] == first["name"]
    assert len(scene.ranges()) == 1
    assert first["clientOperationId"] == asked["requestId"]
    for bad in ("00000000-0000-0000-0000-000000000000", "once"):
        assert scene.refused(scene.patch, [], requestId=bad).status == 400


def test_an_operation_is_pending_then_running_then_done(scene: Scene) -> None:
    """And the change is there when it is done."""
    scene.project.operations.pending, scene.project.operations.running = 2.0, 3.0
    operation = scene.patch([row("/28")])
    seen = []
    for _ in range(6):
        found = scene.got(operation)
        seen.append((found["status"], len(scene.ranges())))
        scene.virtual.now += 1.0
    assert seen == [("PENDING", 0)] * 2 + [("RUNNING", 0)] * 3 + [("DONE", 1)]
    assert found["endTime"] > found["startTime"] > found["insertTime"]
    assert found["targetId"] == str(scene.project.instances["node-a"].id)


def test_wait_blocks_until_the_operation_is_done_but_two_minutes_at_most(scene: Scene) -> None:
    """For so long does the caller let time pass, before it calls."""
    scene.project.operations.running = 130.0
    operation = scene.patch([row("/28")])
    assert scene.project.blocks("zoneOperations.wait", {"operation": operation["name"]}) == 120.0
    scene.virtual.now += 120.0
    assert scene.call("zoneOperations.wait", operation=operation["name"])["status"] == "RUNNING"
    assert scene.project.blocks("zoneOperations.wait", {"operation": operation["name"]}) == 10.0
    scene.virtual.now += 10.0
    assert scene.call("zoneOperations.wait", operation=operation["id"])["status"] == "DONE"


def test_of_two_operations_with_one_fingerprint_the_second_fails_inside(scene: Scene) -> None:
    """Both were accepted: the fingerprint was good then."""
    scene.project.operations.running = 5.0
    first = scene.patch([row("/28")])
    scene.virtual.now += 1.0
    second = scene.patch([row("10.1.9.0/28")])
    scene.virtual.now += 10.0
    assert "error" not in scene.got(first)
    done = scene.got(second)
    assert (done["httpErrorStatusCode"], done["httpErrorMessage"]) == (412, "PRECONDITION FAILED")
    assert scene.ranges() == ["10.1.0.0/28"]


def test_an_operation_on_a_machine_that_was_made_anew_changes_nothing(scene: Scene) -> None:
    """It has the same name and another id; its ranges went with the old one."""
    scene.project.operations.running = 5.0
    operation = scene.patch([row("/28")])
    before = scene.project.instances["node-a"].id
    Hands(scene.project).recreate("node-a")
    scene.virtual.now += 10.0
    assert scene.got(operation)["httpErrorStatusCode"] == 404
    assert scene.project.truth("node-a") == frozenset()
    assert scene.call("instances.get", instance="node-a")["id"] != str(before)


def test_what_is_not_there_is_not_found(scene: Scene) -> None:
    """Instance, zone, project, operation, subnet, interface; and a parameter that no method has is refused."""
    for method, asked in (
        ("instances.get", {"instance": "node-z"}),
        ("instances.get", {"instance": "node-a", "zone": "europe-west1-c"}),
        ("instances.get", {"instance": "node-a", "project": "another"}),
        ("zoneOperations.get", {"operation": "operation-0"}),
        ("subnetworks.get", {"subnetwork": "none"}),
    ):
        assert scene.refused(scene.call, method, **asked).status == 404, (method, asked)
    assert scene.refused(scene.patch, [], networkInterface="nic1").status == 400
    assert scene.refused(scene.call, "instances.get", instance="node-a", depth=1).status == 400


def test_a_network_may_be_another_projects(scene: Scene) -> None:
    """Shared VPC: only the subnet's URL says so, and there it is asked for. A project has a number, too."""
    scene.project.host = "the-networks"
    url = scene.nic()["subnetwork"]
    assert "/projects/the-networks/regions/europe-west1/subnetworks/nodes" in url
    assert scene.refused(scene.call, "subnetworks.get", subnetwork="nodes").status == 404
    found = scene.call("subnetworks.get", subnetwork="nodes", project="the-networks")
    assert found["secondaryIpRanges"] == [{"rangeName": "pods", "ipCidrRange": "10.1.0.0/16"}]
    assert scene.call("instances.get", instance="node-a", project="123456789012")["name"] == "node-a"


def test_a_machine_may_have_several_interfaces(scene: Scene) -> None:
    """Each has a fingerprint of its own; the metadata has them in the same order."""
    scene.project.add_subnetwork("others", "10.9.0.0/24")
    scene.project.add_nic("node-a", "others")
    scene.patch([row("/28")])
    first, second = scene.call("instances.get", instance="node-a")["networkInterfaces"]
    assert (first["name"], second["name"], second["networkIP"]) == ("nic0", "nic1", "10.9.0.2")
    assert "aliasIpRanges" not in second
    told = scene.project.metadata("node-a")["instance"]["network-interfaces"]
    assert [(one["ip"], one["ip-aliases"]) for one in told] == [("10.0.0.2", ["10.1.0.0/28"]), ("10.9.0.2", [])]
    Hands(scene.project).recreate("node-a")
    assert scene.project.subnetworks["others"].primary.free == 252


# --- quotas and permissions ---------------------------------------------------------------------------------------


def test_quotas_are_the_projects_and_are_there_again_at_the_full_minute(scene: Scene) -> None:
    """Each group of methods has its own; every machine draws on the same."""
    scene.virtual.now = 60_000_015.0
    scene.project.quotas.limits["read_requests_per_region"] = 3
    scene.nic("node-a"), scene.nic("node-b"), scene.call("subnetworks.get", subnetwork="nodes")
    refused = scene.refused(scene.nic)
    assert (refused.status, refused.code) == (403, "rateLimitExceeded")
    assert "read_requests_per_region" in refused.message
    scene.refused(scene.call, "zoneOperations.get", operation="none")
    scene.virtual.now = 60_000_059.9
    scene.refused(scene.nic)
    scene.virtual.now = 60_000_060.0
    assert scene.nic()["name"] == "nic0"
    scene.project.become(neighbour=3)
    scene.virtual.now = 60_000_119.0
    scene.refused(scene.nic)


def test_so_many_operations_are_under_way_at_most(scene: Scene) -> None:
    """403 with the reason in its details, and for no longer than they last."""
    scene.project.operations.running, scene.project.most_operations = 5.0, 1
    scene.patch([row("/28")])
    refused = scene.refused(scene.patch, [row("/28")], "node-b")
    assert refused.status == 403
    assert "CONCURRENT_OPERATIONS_QUOTA_EXCEEDED" in (refused.page or ("", ""))[1]
    scene.virtual.now += 5.0
    scene.patch([row("/28")], "node-b")


def test_a_role_is_held_to_every_call(scene: Scene) -> None:
    """What it does not include is refused, by the permission's name; what was used is known."""
    scene.project.role = Role({"title": "t", "includedPermissions": ["compute.instances.get"]})
    assert scene.ranges() == []
    refused = scene.refused(scene.patch, [row("/28")])
    assert (refused.status, refused.code) == (403, "forbidden")
    assert "compute.instances.updateNetworkInterface" in refused.message
    assert scene.project.role.used == scene.project.role.all
    scene.project.role = None
    scene.project.denied.add("compute.subnetworks.use")
    scene.patch([])
    assert "compute.subnetworks.use" in scene.refused(scene.patch, [row("/28")]).message
    with pytest.raises(ValueError, match="permissions"):
        Role({"title": "t", "permissions": []})


# --- strangers ----------------------------------------------------------------------------------------------------


def test_strangers_take_add_move_and_fill(scene: Scene) -> None:
    """All of it is in the log as theirs, and every fingerprint is another one then."""
    hands, before = Hands(scene.project), scene.nic()["fingerprint"]
    new = hands.add("node-a", range_="pods")
    assert scene.project.truth("node-a") == {new}
    assert scene.nic()["fingerprint"] != before
    touched = scene.nic()["fingerprint"]
    hands.touch("node-a")
    assert scene.nic()["fingerprint"] != touched
    assert scene.project.truth("node-a") == {new}
    hands.move(new, "node-a", "node-b")
    assert not scene.project.truth("node-a")
    assert scene.project.truth("node-b") == {new}
    hands.take("node-b", new)
    assert {one.who for one in scene.project.log} == {"somebody"}
    assert [one.action for one in scene.project.lost("node-b", new)] == ["take"]
    held = hands.exhaust("nodes", "pods", leave=2)
    scene.patch([row("/28")] * 2)
    assert code(scene.got(scene.patch([*map(row, scene.ranges()), row("/28")]))) == "IP_SPACE_EXHAUSTED"
    hands.release("nodes", held, "pods")
    scene.patch([*map(row, scene.ranges()), row("/24")])
    assert len(scene.ranges()) == 3


def test_addresses_are_exact_whatever_is_taken_and_given_back() -> None:
    """All are given, none twice; blocks are aligned, the lowest that fits comes first, and halves become one again."""
    found = Ranges(IPNetwork("10.0.0.0/24"), RESERVED)
    assert found.free == 252
    blocks = [found.take(28) for _ in range(14)]
    assert blocks[0] == IPNetwork("10.0.0.16/28")
    assert not found.take_this(IPNetwork("10.0.0.16/29"))
    assert not found.take_this(IPNetwork("10.0.1.0/28"))
    singles = [found.take(32) for _ in range(found.free)]
    with pytest.raises(Exhausted):
        found.take(32)
    assert found.free == 0
    for one in (*blocks, *singles):
        found.give_back(one)
    assert found.take_this(IPNetwork("10.0.0.128/26"))
    assert found.take(26) == IPNetwork("10.0.0.64/26")
    with pytest.raises(Exhausted):
        found.take(26)
    assert found.take(27) == IPNetwork("10.0.0.32/27")
