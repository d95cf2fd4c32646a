"""What the emulated EC2 does to its callers when it is told to, asked by boto3 over HTTP where the wire matters."""

from __future__ import annotations

import contextlib
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError
from netaddr import IPNetwork

from tests.cloud.addresses import Addresses, Fragmented, SubnetFull
from tests.cloud.endpoint import PAGES, Ec2, Imds
from tests.cloud.hands import Hands
from tests.cloud.machine import Clock
from tests.cloud.region import NoAnswer, Refusal, Region
from tests.cloud.unkind import KIND, Unkind, worst
from tests.cloud.world import SOMEBODY

AN_HOUR = 3600.0


class Place:
    """A region with one subnet of 59 addresses and one m5.large; *ec2* is boto3's client of it."""

    def __init__(self, type_: str = "m5.large") -> None:
        self.clock = Clock()
        self.region = Region(self.clock)
        self.vpc = self.region.add_vpc("10.0.0.0/16")
        self.subnet = self.region.add_subnet(self.vpc, "10.0.0.0/26")
        self.instance = self.region.run_instance(type_, self.subnet)
        (self.primary,) = self.region.nics
        self.ec2: Any = None

    def create(self, **more: Any) -> str:
        """An interface."""
        answer = self.region.call("CreateNetworkInterface", {"SubnetId": self.subnet, **more})
        return str(answer["NetworkInterface"]["NetworkInterfaceId"])

    def attach(self, nic: str, index: int, **more: Any) -> str:
        """It, to the instance."""
        asked = {"NetworkInterfaceId": nic, "InstanceId": self.instance, "DeviceIndex": index, **more}
        return str(self.region.call("AttachNetworkInterface", asked)["AttachmentId"])

    def assign(self, **wanted: int) -> list[str]:
        """To the primary interface."""
        answer = self.region.call("AssignPrivateIpAddresses", {"NetworkInterfaceId": self.primary, **wanted})
        prefixes = [one["Ipv4Prefix"] for one in answer["AssignedIpv4Prefixes"]]
        return prefixes + [one["PrivateIpAddress"] for one in answer["AssignedPrivateIpAddresses"]]

    def described(self, **asked: Any) -> list[dict[str, Any]]:
        """Interfaces."""
        return list(self.region.call("DescribeNetworkInterfaces", asked)["NetworkInterfaces"])

    def refused(self, action: str, **asked: Any) -> tuple[str, str]:
        """The code and the message of a call that must be refused."""
        with pytest.raises(Refusal) as caught:
            self.region.call(action, asked)
        return caught.value.code, caught.value.message


@pytest.fixture
def place() -> Place:
    """As kind as can be."""
    return Place()


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Over HTTP."""
    mine = {"AWS_ACCESS_KEY_ID": "AKIDTEST", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_CONFIG_FILE": os.devnull}
    for name, value in {**mine, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}.items():
        monkeypatch.setenv(name, value)
    found = Place()
    with Ec2(found.region) as endpoint:
        config = Config(region_name="eu-west-1", retries={"total_max_attempts": 1}, read_timeout=5)
        found.ec2 = boto3.client("ec2", endpoint_url=endpoint.url, config=config)
        yield found


def test_the_lowest_free_address_is_given(place: Place) -> None:
    """So what was given back comes again at once, alone and as a prefix."""
    first = place.assign(SecondaryPrivateIpAddressCount=3)
    assert first == ["10.0.0.5", "10.0.0.6", "10.0.0.7"]
    asked = {"NetworkInterfaceId": place.primary, "PrivateIpAddresses": [first[1]]}
    place.region.call("UnassignPrivateIpAddresses", asked)
    assert place.assign(SecondaryPrivateIpAddressCount=2) == ["10.0.0.6", "10.0.0.8"]
    (prefix,) = place.assign(Ipv4PrefixCount=1)
    place.region.call("UnassignPrivateIpAddresses", {"NetworkInterfaceId": place.primary, "Ipv4Prefixes": [prefix]})
    assert place.assign(Ipv4PrefixCount=2) == [prefix, "10.0.0.32/28"] == ["10.0.0.16/28", "10.0.0.32/28"]


def test_what_was_given_back_last_may_be_given_next(place: Place) -> None:
    """Although lower ones are free."""
    place.region.become(last_first=True)
    prefixes = place.assign(Ipv4PrefixCount=2)
    for one in prefixes:
        place.region.call("UnassignPrivateIpAddresses", {"NetworkInterfaceId": place.primary, "Ipv4Prefixes": [one]})
    assert place.assign(Ipv4PrefixCount=2) == prefixes[::-1]


def test_addresses_are_exact_whatever_is_taken_and_given_back() -> None:
    """All are given, none twice, none that is reserved; a prefix is aligned and wholly free."""
    addresses = Addresses(IPNetwork("10.0.0.0/24"))
    prefixes = [addresses.take_prefix() for _ in range(14)]
    with pytest.raises(Fragmented):
        addresses.take_prefix()
    singles = [addresses.take() for _ in range(addresses.free)]
    with pytest.raises(SubnetFull):
        addresses.take()
    taken = {address for one in prefixes for address in one} | set(singles)
    assert len(taken) == 14 * 16 + len(singles) == 256 - 5
    for single in singles:
        addresses.give_back(IPNetwork(single))
    addresses.give_back(prefixes[3])
    assert addresses.take_prefix() == prefixes[3]
    assert [addresses.take() for _ in singles] == singles


def test_a_reservation_gives_prefixes_alone_or_nothing() -> None:
    """Of a subnet's CIDR reservation of type "prefix" no single addresses come, of type "explicit" nothing at all."""
    addresses = Addresses(IPNetwork("10.0.0.0/26"))
    addresses.reserve(IPNetwork("10.0.0.16/28"), is_for_prefixes=False)
    addresses.reserve(IPNetwork("10.0.0.32/28"), is_for_prefixes=True)
    assert addresses.take_prefix() == IPNetwork("10.0.0.32/28")
    with pytest.raises(Fragmented):
        addresses.take_prefix()
    addresses.give_back(IPNetwork("10.0.0.32/28"))
    singles = {addresses.take() for _ in range(12 + 15)}
    assert not singles & {*IPNetwork("10.0.0.16/28"), *IPNetwork("10.0.0.32/28")}
    with pytest.raises(SubnetFull):
        addresses.take()


def test_an_index_in_use_is_refused_in_ec2s_words(served: Place) -> None:
    """Whoever attached what is there."""
    served.attach(served.create(), 1)
    with pytest.raises(ClientError) as caught:
        served.ec2.attach_network_interface(
            NetworkInterfaceId=served.create(), InstanceId=served.instance, DeviceIndex=1
        )
    error = caught.value.response["Error"]
    words = f"Instance '{served.instance}' already has an interface attached at device index '1'."
    assert (error["Code"], error["Message"]) == ("InvalidParameterValue", words)


def test_an_index_is_of_a_network_card() -> None:
    """Each card has its own indices and its own limit; what names no card may be held to the indices of all."""
    place = Place("p4d.24xlarge")
    place.attach(place.create(), 1, NetworkCardIndex=1)
    place.region.become(index_of_any_card=True)
    asked = {"NetworkInterfaceId": place.create(), "InstanceId": place.instance, "DeviceIndex": 1}
    assert place.refused("AttachNetworkInterface", **asked)[0] == "InvalidParameterValue"
    place.region.call("AttachNetworkInterface", {**asked, "NetworkCardIndex": 0})
    cards = [row["Attachment"]["NetworkCardIndex"] for row in place.described()]
    assert cards == [0, 1, 0]
    asked = {"NetworkInterfaceId": place.create(), "InstanceId": place.instance, "DeviceIndex": 2}
    assert place.refused("AttachNetworkInterface", **asked, NetworkCardIndex=4)[0] == "InvalidParameterValue"


def test_a_new_interface_is_pending_and_not_seen_for_a_while(served: Place) -> None:
    """By its id it is not found, by a filter it is not listed; then it is there."""
    served.region.become(unseen=(5.0, 5.0))
    made = served.ec2.create_network_interface(SubnetId=served.subnet)["NetworkInterface"]
    assert made["Status"] == "pending"
    name = made["NetworkInterfaceId"]
    calls = [
        ("describe_network_interfaces", {"NetworkInterfaceIds": [name]}),
        ("attach_network_interface", {"InstanceId": served.instance, "DeviceIndex": 1, "NetworkInterfaceId": name}),
        ("assign_private_ip_addresses", {"NetworkInterfaceId": name, "Ipv4PrefixCount": 1}),
        ("delete_network_interface", {"NetworkInterfaceId": name}),
    ]
    for method, asked in calls:
        with pytest.raises(ClientError) as caught:
            getattr(served.ec2, method)(**asked)
        assert caught.value.response["Error"]["Code"] == "InvalidNetworkInterfaceID.NotFound"
    assert [row["NetworkInterfaceId"] for row in served.described()] == [served.primary]
    served.clock.now += 5
    for method, asked in calls[:3]:
        getattr(served.ec2, method)(**asked)


def test_what_is_not_seen_may_be_a_list_of_none(place: Place) -> None:
    """Where it is asked for by its id; every other call says that there is none."""
    place.region.become(unseen=(5.0, 5.0), unseen_empty=1.0)
    name = place.create()
    assert place.described(NetworkInterfaceIds=[name]) == []
    assert place.refused("DeleteNetworkInterface", NetworkInterfaceId=name)[0] == "InvalidNetworkInterfaceID.NotFound"
    place.clock.now += 5
    assert len(place.described(NetworkInterfaceIds=[name])) == 1


def test_what_is_not_seen_may_be_seen_by_some() -> None:
    """There is more than one server: found, not found, found; the seed decides."""

    def seen(seed: int) -> list[bool]:
        place = Place()
        place.region.become(seed=seed, unseen=(60.0, 60.0), flickers=True)
        name = place.create()
        return [any(row["NetworkInterfaceId"] == name for row in place.described()) for _ in range(12)]

    first = seen(1)
    assert set(first) == {True, False}
    assert seen(1) == first != seen(2)


def test_coming_and_going_take_a_while(place: Place) -> None:
    """ "attaching" and then "attached"; "detaching" and then gone, and in use until then, in either of EC2's words."""
    place.region.become(attaching=(4.0, 10.0), detaching=(4.0, 10.0), attached_words=True)
    name = place.create()
    attachment = place.attach(name, 1)

    def status() -> str:
        return str(place.described(NetworkInterfaceIds=[name])[0].get("Attachment", {}).get("Status"))

    assert status() == "attaching"
    assert len(place.region.attached(place.instance)) == 1
    place.clock.now += 10
    assert status() == "attached"
    assert len(place.region.attached(place.instance)) == 2
    place.region.call("DetachNetworkInterface", {"AttachmentId": attachment})
    assert status() == "detaching"
    refused = place.refused("DeleteNetworkInterface", NetworkInterfaceId=name)
    assert refused == ("InvalidParameterValue", f"Network interface '{name}' is currently in use.")
    place.region.become(attached_words=False)
    assert place.refused("DeleteNetworkInterface", NetworkInterfaceId=name)[0] == "InvalidNetworkInterface.InUse"
    place.clock.now += 10
    assert status() == "None"
    place.region.call("DeleteNetworkInterface", {"NetworkInterfaceId": name})


def test_answers_lag_each_in_its_own_way(place: Place) -> None:
    """After a change one answer shows it, the next does not; when the time is over all do."""
    place.region.become(describe_lag=(0.0, 10.0))
    place.clock.now += AN_HOUR
    place.assign(Ipv4PrefixCount=1)
    place.clock.now += 5
    counts = [len(place.described()[0]["Ipv4Prefixes"]) for _ in range(20)]
    assert set(counts) == {0, 1}
    assert counts != sorted(counts)
    place.clock.now += 5
    assert {len(place.described()[0]["Ipv4Prefixes"]) for _ in range(20)} == {1}


def test_an_old_record_tells_of_its_attachment_as_it_was_then(place: Place) -> None:
    """ "attaching" ends in answers that lag, too."""
    place.region.attach_delay, place.region.staleness = 3.0, 5.0
    name = place.create()
    place.attach(name, 1)
    found = []
    for _ in range(3):
        place.clock.now += 4
        rows = [row for row in place.described() if row["NetworkInterfaceId"] == name]
        found.append(rows[0]["Attachment"]["Status"] if rows else "")
    assert found == ["", "attached", "attached"]


@pytest.mark.parametrize(("kind", "status"), [("html503", 503), ("empty502", 502), ("expired", 400)])
@pytest.mark.parametrize("is_after", [False, True])
def test_errors_and_error_pages_come_as_they_are(served: Place, kind: str, status: int, is_after: bool) -> None:
    """With their status, whatever the page; what failed "after" was done nevertheless."""
    served.region.fail("AssignPrivateIpAddresses", 1, kind + "_after" * is_after)
    with pytest.raises(ClientError) as caught:
        served.ec2.assign_private_ip_addresses(NetworkInterfaceId=served.primary, Ipv4PrefixCount=1)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert len(served.region.nics[served.primary].blocks) == is_after


def test_a_page_that_is_no_document_is_the_sdks_own_error(served: Place) -> None:
    """botocore cannot read it, whatever its status says."""
    served.region.fail("AssignPrivateIpAddresses", 1, "text500_after")
    with pytest.raises(ResponseParserError):
        served.ec2.assign_private_ip_addresses(NetworkInterfaceId=served.primary, Ipv4PrefixCount=1)
    assert len(served.region.nics[served.primary].blocks) == 1


def test_a_call_may_come_twice(place: Place) -> None:
    """Assigning then gives two, and the second is answered; making with a token gives one."""
    place.region.fail("AssignPrivateIpAddresses", 1, "twice")
    assert place.assign(Ipv4PrefixCount=1) == ["10.0.0.32/28"]
    assert len(place.region.nics[place.primary].blocks) == 2
    place.region.fail("CreateNetworkInterface", 1, "twice")
    place.create(ClientToken="t")
    assert len(place.region.nics) == 2


def test_what_is_denied_is_denied_alone(place: Place) -> None:
    """By action and by resource."""
    place.region.denied += [("CreateNetworkInterface", "*"), ("Assign*", place.primary)]
    other = place.region.add_nic(place.subnet, {})
    assert place.refused("CreateNetworkInterface", SubnetId=place.subnet)[0] == "UnauthorizedOperation"
    refused = place.refused("AssignPrivateIpAddresses", NetworkInterfaceId=place.primary, Ipv4PrefixCount=1)
    assert refused[0] == "UnauthorizedOperation"
    place.region.call("AssignPrivateIpAddresses", {"NetworkInterfaceId": other, "Ipv4PrefixCount": 1})


def test_the_regions_quota_of_interfaces(place: Place) -> None:
    """Then none is made until one goes."""
    place.region.most_interfaces = 2
    name = place.create()
    assert place.refused("CreateNetworkInterface", SubnetId=place.subnet)[0] == "NetworkInterfaceLimitExceeded"
    place.region.call("DeleteNetworkInterface", {"NetworkInterfaceId": name})
    place.create()


def test_a_neighbour_draws_on_the_same_bucket(place: Place) -> None:
    """Who makes nearly as many calls as the account may leaves little; throttling has all the SDKs' codes."""
    place.region.become(neighbour=4.5, throttling_codes=True)
    codes = set()
    for _ in range(300):
        try:
            place.region.call("UnassignPrivateIpAddresses", {"NetworkInterfaceId": place.primary})
        except Refusal as refusal:
            codes.add(refusal.code)
    assert len(codes) > 5
    place.clock.now += 10
    done = place.region.calls["UnassignPrivateIpAddresses", ""]
    for _ in range(20):
        with contextlib.suppress(Refusal):
            place.region.call("UnassignPrivateIpAddresses", {"NetworkInterfaceId": place.primary})
    assert place.region.calls["UnassignPrivateIpAddresses", ""] - done == 5


def test_drawn_faults_are_the_seeds() -> None:
    """Of every kind, and the same again with the same seed."""

    def calls(seed: int) -> dict[tuple[str, str], int]:
        place = Place()
        place.region.become(seed=seed, losing=0.1, failing=0.1, throttling=0.1, doubling=0.1, taking=(0.0, 5.0))
        for _ in range(80):
            with contextlib.suppress(Refusal, NoAnswer):
                place.described()
        assert 0 < place.region.took < 5
        return dict(place.region.calls)

    first = calls(1)
    assert {"", "lost", "RequestLimitExceeded", "InternalError", "Unavailable", "503"} <= {one for _, one in first}
    assert calls(1) == first != calls(2)


def test_an_instance_may_start_with_prefixes(place: Place) -> None:
    """As a launch template gives them to the primary interface: without any call."""
    instance = place.region.run_instance("m5.large", place.subnet, wanted=(0, 2))
    (blocks,) = place.region.truth(instance).values()
    assert blocks == {IPNetwork("10.0.0.16/28"), IPNetwork("10.0.0.32/28")}
    assert not place.region.calls


def test_the_log_tells_who_took_what(place: Place) -> None:
    """Each address that left an instance, by which call of whom."""
    (prefix,) = place.assign(Ipv4PrefixCount=1)
    block, asked = IPNetwork(prefix), {"NetworkInterfaceId": place.primary, "Ipv4Prefixes": [prefix]}
    assert place.region.truth(place.instance) == {place.primary: frozenset({block})}
    assert place.region.lost(place.instance, block) == []
    place.region.call("UnassignPrivateIpAddresses", asked, who="node-1")
    assert place.region.truth(place.instance) == {place.primary: frozenset()}
    (change,) = place.region.lost(place.instance, IPNetwork(block[3]))
    assert (change.who, change.action, change.nic) == ("node-1", "UnassignPrivateIpAddresses", place.primary)
    name = place.create(Ipv4PrefixCount=1)
    attachment = place.attach(name, 1)
    place.region.call("DetachNetworkInterface", {"AttachmentId": attachment}, who="node-2")
    assert [one.action for one in place.region.lost(place.instance, block)][1:] == ["DetachNetworkInterface"]


def test_somebody_meddles(place: Place) -> None:
    """Whatever is done so is EC2's truth, is seen at once, and is in the log as somebody's."""
    hands, region = Hands(place.region), place.region
    primary = region.nics[place.primary]
    one = hands.attach(place.instance, 1)
    (block,) = hands.assign(primary, prefixes=1)
    hands.move(block, primary, one)
    assert region.truth(place.instance) == {place.primary: frozenset(), one.id: frozenset({block})}
    hands.change(one, tags={"a": "b"}, groups=["sg-2"], goes=True)
    row = place.described(NetworkInterfaceIds=[one.id])[0]
    assert (row["TagSet"], row["Groups"][0]["GroupId"]) == ([{"Key": "a", "Value": "b"}], "sg-2")
    assert row["Attachment"]["DeleteOnTermination"]
    hands.delete(one)
    assert region.truth(place.instance) == {place.primary: frozenset()}
    assert {change.who for change in region.lost(place.instance, block)} == {SOMEBODY}
    for _ in range(200):
        hands.meddle(place.instance)
        place.clock.now += 1
    assert place.primary in region.truth(place.instance)
    free = region.subnets[place.subnet].addresses.free
    assert free == 59 - sum(1 + sum(block.size for block in nic.blocks) for nic in region.nics.values())


def get(url: str, path: str, token: str | None = None) -> tuple[int, str]:
    """The metadata's answer, for a token that is asked for before."""
    if token is None:
        ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
        token = requested(urllib.request.Request(f"{url}/latest/api/token", method="PUT", headers=ttl))[1].strip()
    return requested(urllib.request.Request(f"{url}/latest/{path}", headers={"X-aws-ec2-metadata-token": token}))


def requested(request: urllib.request.Request) -> tuple[int, str]:
    """Status and text."""
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


MACS = "meta-data/network/interfaces/macs/"


def test_the_metadata_tells_of_cards_where_there_are_several() -> None:
    """An interface without IPv4 has no local-ipv4s; device and card are its own."""
    place = Place("p4d.24xlarge")
    one = Hands(place.region).attach(place.instance, 1, card=1, has_four=False)
    with Imds(place.region, place.instance) as imds:
        names = get(imds.url, f"{MACS}{one.mac}")[1].split()
        assert {"device-number", "network-card"} <= set(names)
        assert "local-ipv4s" not in names
        assert get(imds.url, f"{MACS}{one.mac}/network-card") == (200, "1")
        assert get(imds.url, f"{MACS}{one.mac}/local-ipv4s")[0] == 404


def test_the_metadata_fails_freezes_and_shows_halves(place: Place) -> None:
    """With the pages that it is told to show, once each; as it was; an interface without what it has."""
    with Imds(place.region, place.instance) as imds:
        mac = place.region.nics[place.primary].mac
        for kind, (status, body, _) in PAGES.items():
            if status:
                imds.faults.append((f"/latest/{MACS}", kind))
                assert get(imds.url, MACS) == (status, body.decode())
        imds.faults.append(("/latest/api/token", "text503"))
        assert get(imds.url, MACS)[0] == 401
        place.region.freeze(place.instance)
        place.assign(Ipv4PrefixCount=1)
        assert get(imds.url, f"{MACS}{mac}/ipv4-prefix")[0] == 404
        place.region.frozen.clear()
        assert get(imds.url, f"{MACS}{mac}/ipv4-prefix") == (200, "10.0.0.16/28")
        place.region.become(metadata_halves=1.0)
        assert get(imds.url, MACS) == (200, f"{mac}/")
        assert get(imds.url, f"{MACS}{mac}/local-ipv4s")[0] == 404


def test_groups_and_tags_are_changed_one_attribute_a_call(served: Place) -> None:
    """Two in one call are refused; tags are added to those that are there."""
    name = served.region.add_nic(served.subnet, {"a": "1", "b": "1"})
    served.ec2.modify_network_interface_attribute(NetworkInterfaceId=name, Groups=["sg-8", "sg-9"])
    served.ec2.create_tags(Resources=[name], Tags=[{"Key": "b", "Value": "2"}, {"Key": "c", "Value": "3"}])
    nic = served.region.nics[name]
    assert (nic.groups, nic.tags) == (["sg-8", "sg-9"], {"a": "1", "b": "2", "c": "3"})
    change = {"AttachmentId": "eni-attach-0", "DeleteOnTermination": True}
    with pytest.raises(ClientError) as caught:
        served.ec2.modify_network_interface_attribute(NetworkInterfaceId=name, Groups=["sg-8"], Attachment=change)
    assert caught.value.response["Error"]["Code"] == "InvalidParameterCombination"


def test_the_worst_is_everything() -> None:
    """Each switch is on, but for what was given back last, which is on for every second seed."""
    for seed in (1, 2):
        on = {one.name for one in fields(Unkind) if getattr(worst(seed), one.name) != one.default}
        assert {one.name for one in fields(Unkind)} - on == ({"last_first"} if seed == 2 else set())


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_given_twice_whatever_happens(seed: int) -> None:
    """With everything on and somebody meddling: what EC2 has is consistent, and all of it comes to an end."""
    place = Place()
    hands = Hands(place.region)
    place.region.set_unkind(worst(seed))
    asks: list[Callable[[], object]] = [
        lambda: place.assign(SecondaryPrivateIpAddressCount=2),
        lambda: place.assign(Ipv4PrefixCount=1),
        lambda: place.attach(place.create(Ipv4PrefixCount=1), 1),
        lambda: hands.meddle(place.instance),
        place.described,
    ]
    for number in range(150):
        with contextlib.suppress(Refusal, NoAnswer):
            asks[number % len(asks)]()
        place.clock.now += 1
        blocks = [block for nic in place.region.nics.values() for block in (IPNetwork(nic.address), *nic.blocks)]
        taken = [address for block in blocks for address in block]
        assert len(taken) == len(set(taken)) == 59 - place.region.subnets[place.subnet].addresses.free
    place.region.set_unkind(KIND)
    place.clock.now += 60
    for nic in place.region.held(place.instance):
        if nic.id != place.primary:
            hands.delete(nic)
    assert list(place.region.truth(place.instance)) == [place.primary]
