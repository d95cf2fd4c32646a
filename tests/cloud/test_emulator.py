"""The emulator, asked by boto3 itself and by our client over HTTP: what it must be strict about."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from netaddr import IPNetwork
from prometheus_client import CollectorRegistry

from agent.config import schema
from agent.ctl import main as ctl
from agent.node.ledger import Ledger
from agent.serve.parking import Parking
from agent.start import supply
from agent.tell.metrics import Metrics
from backends.aws import live, model
from backends.aws.calls import is_about_credentials
from backends.aws.ec2 import Ec2 as Client
from backends.aws.imds import Imds as Metadata
from backends.aws.limits import described, known
from backends.cloud.failures import Lost, Refused, Throttled
from backends.cloud.steps import Call
from cni.errors import ConfigInvalid
from ipam.allocator import Allocator
from ipam.moment import Moment
from ipam.store import Store
from tests.cloud.endpoint import Ec2, Imds, Sts
from tests.cloud.machine import Clock
from tests.cloud.region import TYPES, Region


class Cloud:
    """A region with one subnet and one m5.large, and boto3's client of it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.region = Region(self.clock)
        self.vpc = self.region.add_vpc("10.0.0.0/16")
        self.subnet = self.region.add_subnet(self.vpc, "10.0.0.0/26", "2001:db8:0:1::/64", {"for": "pods"})
        self.instance = self.region.run_instance("m5.large", self.subnet)
        self.primary = next(iter(self.region.nics))
        self.ec2: Any = None
        self.endpoint: Any = None


@pytest.fixture(scope="module")
def environment() -> Iterator[None]:
    """Credentials of nobody, and no files of the user's."""
    mine = {"AWS_ACCESS_KEY_ID": "AKIDTEST", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_CONFIG_FILE": os.devnull}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**mine, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}.items():
            patch.setenv(name, value)
        yield


@pytest.fixture
def cloud(environment: None) -> Iterator[Cloud]:
    """Served."""
    found = Cloud()
    with Ec2(found.region) as endpoint:
        config = Config(region_name="eu-west-1", retries={"total_max_attempts": 1})
        found.endpoint = endpoint
        found.ec2 = boto3.client("ec2", endpoint_url=endpoint.url, config=config)
        yield found


def code(caught: pytest.ExceptionInfo[ClientError]) -> str:
    """Of a refusal."""
    return str(caught.value.response["Error"]["Code"])


def test_what_goes_over_the_wire_comes_back_the_same(cloud: Cloud) -> None:
    """Structures, lists, numbers and booleans, both ways, for everything that an interface has."""
    tags = {"one": "1 & <2>", "two": ""}
    made = cloud.ec2.create_network_interface(
        SubnetId=cloud.subnet,
        Groups=["sg-1", "sg-2"],
        Description="d",
        ClientToken="t",
        TagSpecifications=model.tag_specifications(tags),
        Ipv4PrefixCount=1,
    )["NetworkInterface"]
    one = model.eni(made)
    assert (one.tags, one.index, one.status) == (tags, None, "pending")
    assert [block.prefixlen for block in one.blocks] == [28]
    attached = cloud.ec2.attach_network_interface(NetworkInterfaceId=one.id, InstanceId=cloud.instance, DeviceIndex=1)
    change = {"AttachmentId": attached["AttachmentId"], "DeleteOnTermination": True}
    cloud.ec2.modify_network_interface_attribute(NetworkInterfaceId=one.id, Attachment=change)
    here = [{"Name": "attachment.instance-id", "Values": [cloud.instance]}]
    found = cloud.ec2.describe_network_interfaces(Filters=here)["NetworkInterfaces"]
    (same,) = (model.eni(row) for row in found if row["NetworkInterfaceId"] == one.id)
    assert (same.blocks, same.index, same.is_kept, same.mac) == (one.blocks, 1, False, one.mac)
    assert [group["GroupId"] for group in found[-1]["Groups"]] == ["sg-1", "sg-2"]
    assert cloud.endpoint.keys == ["AKIDTEST"] * 4


def test_a_request_that_is_not_signed_is_refused(cloud: Cloud) -> None:
    """So a client that forgot its credentials does not pass here."""
    from botocore import UNSIGNED

    client = boto3.client(
        "ec2", endpoint_url=cloud.endpoint.url, config=Config(region_name="eu-west-1", signature_version=UNSIGNED)
    )
    with pytest.raises(ClientError) as caught:
        client.describe_subnets()
    assert code(caught) == "AuthFailure"


def test_a_client_token_makes_one_interface(cloud: Cloud) -> None:
    """However often; with other parameters it is refused."""
    asked = {"SubnetId": cloud.subnet, "ClientToken": "t"}
    names = {cloud.ec2.create_network_interface(**asked)["NetworkInterface"]["NetworkInterfaceId"] for _ in range(3)}
    assert len(names) == 1
    with pytest.raises(ClientError) as caught:
        cloud.ec2.create_network_interface(**asked, Description="another")
    assert code(caught) == "IdempotentParameterMismatch"


def test_assigning_twice_gives_twice_as_many(cloud: Cloud) -> None:
    """AssignPrivateIpAddresses is not idempotent; no address is given twice, and none that is reserved."""
    for _ in range(2):
        cloud.ec2.assign_private_ip_addresses(NetworkInterfaceId=cloud.primary, SecondaryPrivateIpAddressCount=4)
    nic = cloud.region.nics[cloud.primary]
    assert len(set(nic.blocks)) == 8
    reserved = {*IPNetwork("10.0.0.0/26")[:4], IPNetwork("10.0.0.0/26")[-1]}
    assert not reserved & {block.ip for block in nic.blocks}


def test_limits_by_instance_type(cloud: Cloud) -> None:
    """Addresses and prefixes share an interface's slots; interfaces are counted on the default network card."""
    cloud.ec2.assign_private_ip_addresses(NetworkInterfaceId=cloud.primary, SecondaryPrivateIpAddressCount=8)
    cloud.ec2.assign_private_ip_addresses(NetworkInterfaceId=cloud.primary, Ipv4PrefixCount=1)
    with pytest.raises(ClientError) as caught:
        cloud.ec2.assign_private_ip_addresses(NetworkInterfaceId=cloud.primary, SecondaryPrivateIpAddressCount=1)
    assert code(caught) == "PrivateIpAddressLimitExceeded"
    for index in (1, 2):
        made = cloud.ec2.create_network_interface(SubnetId=cloud.subnet)["NetworkInterface"]["NetworkInterfaceId"]
        cloud.ec2.attach_network_interface(NetworkInterfaceId=made, InstanceId=cloud.instance, DeviceIndex=index)
    made = cloud.ec2.create_network_interface(SubnetId=cloud.subnet)["NetworkInterface"]["NetworkInterfaceId"]
    with pytest.raises(ClientError) as caught:
        cloud.ec2.attach_network_interface(NetworkInterfaceId=made, InstanceId=cloud.instance, DeviceIndex=3)
    assert code(caught) == "AttachmentLimitExceeded"


def test_limits_are_described_as_the_table_has_them(cloud: Cloud) -> None:
    """And of several network cards the default one's count, not the sum."""
    for name in TYPES:
        answer = cloud.ec2.describe_instance_types(InstanceTypes=[name])
        limits = described(answer)
        if known(name) is not None:
            assert limits == known(name)
        if name == "p4d.24xlarge":
            whole = answer["InstanceTypes"][0]["NetworkInfo"]
            assert (whole["MaximumNetworkInterfaces"], limits.interfaces) == (60, 15)
    with pytest.raises(ClientError) as caught:
        cloud.ec2.describe_instance_types(InstanceTypes=["m5.huge"])
    assert code(caught) == "InvalidInstanceType"


def test_how_many_pods_is_told_by_the_table_or_by_ec2(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """``routablectl max-pods``: a number; EC2 is asked only for what the table does not have, or on demand."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", cloud.endpoint.url)
    settings = tmp_path / "agent.toml"
    settings.write_text('backend = "aws-eni"\n[aws]\nmode = "address"\nreserved_enis = 1\n')

    def run(*arguments: str) -> str:
        code = ctl.main(["--config", os.fspath(settings), "max-pods", *arguments])
        done = capsys.readouterr()
        said.append(done.err)
        return f"{code} {done.out}".rstrip() if code == 0 else f"{code} {done.err}".rstrip()

    said: list[str] = []
    assert run("--instance-type", "m5.large") == "0 20"
    assert "this counts all 18 addresses: on a full node a pod waits up to 30 s" in said.pop()
    assert run("--instance-type", "m5.large", "--headroom", "3") == "0 17"
    assert said.pop() == ""
    assert run("--instance-type", "m5.large", "--reserved-enis", "0", "--mode", "prefix") == "0 110"
    assert cloud.region.calls.total() == 0
    assert run("--instance-type", "z9.24xlarge", "--region", "eu-west-1", "--uncapped") == "0 688"
    assert run("--instance-type", "m5.large", "--region", "eu-west-1", "--ask") == "0 20"
    assert cloud.region.calls == {("DescribeInstanceTypes", ""): 2}
    document = json.loads(run("--instance-type", "t3.medium", "--json")[2:])
    assert (document["max_pods"], document["interfaces"], document["addresses"]) == (12, 3, 6)
    assert (document["pod_addresses"], document["headroom"]) == (10, 0)
    unknown = run("--instance-type", "z9.huge", "--region", "eu-west-1")
    assert unknown.startswith("1 routablectl: what a z9.huge can have is not known: DescribeInstanceTypes: Invalid")
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    assert "see that the name is right" in run("--instance-type", "z9.huge")


def test_without_boto3_the_agent_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """At its start, not at the first call of a thread that then dies."""
    store = Store(tmp_path / "journal", "boot", Moment(0.0, 0.0))
    measured = Metrics(CollectorRegistry())
    ledger = Ledger(allocator=Allocator(0.0), store=store, metrics=measured, clock=lambda: Moment(0.0, 0.0))
    monkeypatch.setattr(live, "find_spec", lambda name: None)
    with pytest.raises(ConfigInvalid, match=r"boto3, is not installed: install routable\[aws\]"):
        supply.supply(schema.Config(backend="aws-eni"), supply.Use(ledger, Parking()))
    store.close()


def test_prefixes_need_an_aligned_hole(cloud: Cloud) -> None:
    """A /26 has four: the first and last have reserved addresses in them; then single addresses are left."""
    answer = cloud.ec2.assign_private_ip_addresses(NetworkInterfaceId=cloud.primary, Ipv4PrefixCount=2)
    assert model.assigned(answer) == {IPNetwork("10.0.0.16/28"), IPNetwork("10.0.0.32/28")}
    with pytest.raises(ClientError) as caught:
        cloud.ec2.assign_private_ip_addresses(NetworkInterfaceId=cloud.primary, Ipv4PrefixCount=1)
    assert code(caught) == "InsufficientCidrBlocks"
    other = cloud.ec2.create_network_interface(SubnetId=cloud.subnet, SecondaryPrivateIpAddressCount=25)
    with pytest.raises(ClientError) as caught:
        cloud.ec2.assign_private_ip_addresses(NetworkInterfaceId=cloud.primary, SecondaryPrivateIpAddressCount=1)
    assert code(caught) == "InsufficientFreeAddressesInSubnet"
    name = other["NetworkInterface"]["NetworkInterfaceId"]
    cloud.ec2.delete_network_interface(NetworkInterfaceId=name)
    assert cloud.ec2.describe_subnets()["Subnets"][0]["AvailableIpAddressCount"] == 64 - 5 - 1 - 32


def test_giving_back_is_all_or_nothing(cloud: Cloud) -> None:
    """What is not there is refused, and then nothing goes."""
    answer = cloud.ec2.assign_private_ip_addresses(NetworkInterfaceId=cloud.primary, Ipv4PrefixCount=1)
    (block,) = model.assigned(answer)
    for prefixes in ([str(block), "10.0.0.32/28"], ["10.0.0.32/28"]):
        with pytest.raises(ClientError) as caught:
            cloud.ec2.unassign_private_ip_addresses(NetworkInterfaceId=cloud.primary, Ipv4Prefixes=prefixes)
        assert code(caught) == "InvalidParameterValue"
    assert cloud.region.nics[cloud.primary].blocks == [block]
    cloud.ec2.unassign_private_ip_addresses(NetworkInterfaceId=cloud.primary, Ipv4Prefixes=[str(block)])
    assert cloud.region.nics[cloud.primary].blocks == []


def test_ipv6_prefixes(cloud: Cloud) -> None:
    """A /80 of the subnet's /64, never the same."""
    first = cloud.ec2.assign_ipv6_addresses(NetworkInterfaceId=cloud.primary, Ipv6PrefixCount=1)
    second = cloud.ec2.assign_ipv6_addresses(NetworkInterfaceId=cloud.primary, Ipv6PrefixCount=1)
    blocks = model.assigned(first) | model.assigned(second)
    assert len(blocks) == 2
    assert all(block.prefixlen == 80 and block in IPNetwork("2001:db8:0:1::/64") for block in blocks)
    texts = [str(block) for block in blocks]
    cloud.ec2.unassign_ipv6_addresses(NetworkInterfaceId=cloud.primary, Ipv6Prefixes=texts)
    assert cloud.region.nics[cloud.primary].blocks == []


def test_attaching_and_detaching_take_time(cloud: Cloud) -> None:
    """The device is there when it is attached; an interface in use cannot be deleted; the first one stays."""
    cloud.region.attach_delay = cloud.region.detach_delay = 5.0
    made = cloud.ec2.create_network_interface(SubnetId=cloud.subnet)["NetworkInterface"]["NetworkInterfaceId"]
    attachment = cloud.ec2.attach_network_interface(NetworkInterfaceId=made, InstanceId=cloud.instance, DeviceIndex=1)[
        "AttachmentId"
    ]
    assert [nic.id for nic in cloud.region.attached(cloud.instance)] == [cloud.primary]
    cloud.clock.now += 5
    assert len(cloud.region.attached(cloud.instance)) == 2
    cloud.ec2.detach_network_interface(AttachmentId=attachment)
    with pytest.raises(ClientError) as caught:
        cloud.ec2.delete_network_interface(NetworkInterfaceId=made)
    assert code(caught) == "InvalidNetworkInterface.InUse"
    cloud.clock.now += 5
    cloud.ec2.delete_network_interface(NetworkInterfaceId=made)
    with pytest.raises(ClientError) as caught:
        cloud.ec2.delete_network_interface(NetworkInterfaceId=made)
    assert code(caught) == "InvalidNetworkInterfaceID.NotFound"
    first = cloud.region.nics[cloud.primary].attachment
    assert first is not None
    with pytest.raises(ClientError) as caught:
        cloud.ec2.detach_network_interface(AttachmentId=first.id)
    assert code(caught) == "OperationNotPermitted"


def test_what_does_not_go_with_its_instance_is_left_behind(cloud: Cloud) -> None:
    """DeleteOnTermination is off for an interface that was attached, until somebody says otherwise."""
    made = cloud.ec2.create_network_interface(SubnetId=cloud.subnet)["NetworkInterface"]["NetworkInterfaceId"]
    cloud.ec2.attach_network_interface(NetworkInterfaceId=made, InstanceId=cloud.instance, DeviceIndex=1)
    cloud.region.terminate(cloud.instance)
    assert list(cloud.region.nics) == [made]
    assert cloud.ec2.describe_network_interfaces()["NetworkInterfaces"][0]["Status"] == "available"


def test_answers_lag_behind(cloud: Cloud) -> None:
    """What was just made is not found by its id, and what was assigned is not shown, for a while."""
    cloud.region.staleness = 5.0
    cloud.clock.now += 10
    made = cloud.ec2.create_network_interface(SubnetId=cloud.subnet)["NetworkInterface"]["NetworkInterfaceId"]
    with pytest.raises(ClientError) as caught:
        cloud.ec2.describe_network_interfaces(NetworkInterfaceIds=[made])
    assert code(caught) == "InvalidNetworkInterfaceID.NotFound"
    cloud.clock.now += 6
    cloud.ec2.assign_private_ip_addresses(NetworkInterfaceId=made, Ipv4PrefixCount=1)
    shown = cloud.ec2.describe_network_interfaces(NetworkInterfaceIds=[made])["NetworkInterfaces"][0]
    assert shown["Ipv4Prefixes"] == []
    cloud.clock.now += 6
    shown = cloud.ec2.describe_network_interfaces(NetworkInterfaceIds=[made])["NetworkInterfaces"][0]
    assert len(shown["Ipv4Prefixes"]) == 1


def test_pages_and_filters(cloud: Cloud) -> None:
    """Many interfaces come page by page; a filter that there is not is refused."""
    for number in range(7):
        tags = model.tag_specifications({"n": str(number % 2)})
        cloud.ec2.create_network_interface(SubnetId=cloud.subnet, TagSpecifications=tags)
    pages = list(
        cloud.ec2.get_paginator("describe_network_interfaces").paginate(
            Filters=[{"Name": "status", "Values": ["available"]}], PaginationConfig={"PageSize": 5}
        )
    )
    assert [len(page["NetworkInterfaces"]) for page in pages] == [5, 2]
    odd = cloud.ec2.describe_network_interfaces(Filters=[{"Name": "tag:n", "Values": ["1"]}])
    assert len(odd["NetworkInterfaces"]) == 3
    with pytest.raises(ClientError) as caught:
        cloud.ec2.describe_network_interfaces(Filters=[{"Name": "colour", "Values": ["red"]}])
    assert code(caught) == "InvalidParameterValue"


def test_the_accounts_buckets(cloud: Cloud) -> None:
    """A hundred calls at once, then five a second, of AssignPrivateIpAddresses; other actions have their own."""
    asked = {"NetworkInterfaceId": cloud.primary, "PrivateIpAddresses": ["10.0.0.9"]}
    for _ in range(100):
        with pytest.raises(ClientError) as caught:
            cloud.ec2.unassign_private_ip_addresses(**asked)
        assert code(caught) == "InvalidParameterValue"
    with pytest.raises(ClientError) as caught:
        cloud.ec2.unassign_private_ip_addresses(**asked)
    assert (code(caught), caught.value.response["ResponseMetadata"]["HTTPStatusCode"]) == ("RequestLimitExceeded", 503)
    assert cloud.ec2.describe_subnets()["Subnets"]
    cloud.clock.now += 1
    codes = []
    for _ in range(6):
        with pytest.raises(ClientError) as caught:
            cloud.ec2.unassign_private_ip_addresses(**asked)
        codes.append(code(caught))
    assert codes == ["InvalidParameterValue"] * 5 + ["RequestLimitExceeded"]


def test_the_vpcs_units(cloud: Cloud) -> None:
    """An address is one, and a prefix is one; what goes frees them."""
    cloud.region.units = 3
    cloud.ec2.assign_private_ip_addresses(NetworkInterfaceId=cloud.primary, Ipv4PrefixCount=2)
    with pytest.raises(ClientError) as caught:
        cloud.ec2.create_network_interface(SubnetId=cloud.subnet)
    assert code(caught) == "NetworkAddressUsageLimitExceeded"
    cloud.ec2.unassign_private_ip_addresses(NetworkInterfaceId=cloud.primary, Ipv4Prefixes=["10.0.0.16/28"])
    cloud.ec2.create_network_interface(SubnetId=cloud.subnet)


@pytest.mark.parametrize(
    ("kind", "raised", "is_done"),
    [
        ("throttle", Throttled, False),
        ("error500", Lost, False),
        ("error503", Lost, False),
        ("html503", Lost, False),
        ("text500", Lost, False),
        ("text500_after", Lost, True),
        ("empty502", Lost, False),
        ("html200", Lost, False),
        ("text200_after", Lost, True),
        ("empty200_after", Lost, True),
        ("lost_before", Lost, False),
        ("lost_after", Lost, True),
    ],
)
def test_our_client_calls_once_and_says_what_is_known(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, kind: str, raised: type[Exception], is_done: bool
) -> None:
    """Whatever goes wrong: one attempt, and whether it may have been done."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", cloud.endpoint.url)
    client = Client("eu-west-1")
    call = Call("AssignPrivateIpAddresses", {"NetworkInterfaceId": cloud.primary, "Ipv4PrefixCount": 1})
    fault = cloud.region.fail("AssignPrivateIpAddresses", 1, kind)
    with pytest.raises(raised):
        client.call(call)
    assert fault.is_consumed
    assert sum(cloud.region.calls.values()) == 1
    assert len(cloud.region.nics[cloud.primary].blocks) == is_done
    assert len(model.assigned(client.call(call))) == 1


def test_our_client_tells_a_refusal(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """By EC2's own code, and by boto3's name for what it did not even send."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", cloud.endpoint.url)
    client = Client("eu-west-1")
    with pytest.raises(Refused, match=r"DeleteNetworkInterface: InvalidNetworkInterfaceID\.NotFound"):
        client.call(Call("DeleteNetworkInterface", {"NetworkInterfaceId": "eni-0"}))
    cloud.region.authorize = lambda action, _: action != "DescribeSubnets"
    with pytest.raises(Refused, match="UnauthorizedOperation"):
        client.call(Call("DescribeSubnets", {}))
    with pytest.raises(Refused, match="ParamValidationError"):
        client.call(Call("DescribeSubnets", {"Colour": "red"}))


def test_the_instances_role_is_enough(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without keys in the environment or in files, the metadata's are used."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with Imds(cloud.region, cloud.instance) as imds:
        monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", cloud.endpoint.url)
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", imds.url)
        Client("eu-west-1").call(Call("DescribeSubnets", {}))
    assert cloud.endpoint.keys == ["AKIDROLE"]


def test_credentials_are_renewed_without_a_restart(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """When they are about to expire the next call has new ones."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    file, config = tmp_path / "credentials.json", tmp_path / "config"
    config.write_text(f"[default]\ncredential_process = cat {file}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", cloud.endpoint.url)

    def issue(key: str, seconds: float) -> None:
        end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))
        keys = {"AccessKeyId": key, "SecretAccessKey": "secret", "SessionToken": "session", "Expiration": end}
        file.write_text(json.dumps({"Version": 1, **keys}))

    issue("AKIDFIRST", 30)
    client = Client("eu-west-1")
    client.call(Call("DescribeSubnets", {}))
    issue("AKIDSECOND", 36000)
    for _ in range(2):
        client.call(Call("DescribeSubnets", {}))
    assert cloud.endpoint.keys == ["AKIDFIRST", "AKIDSECOND", "AKIDSECOND"]


def test_keys_in_a_file_may_be_replaced(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """boto3 reads them once: when they are refused, or there are none yet, the next call has read the file again."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", cloud.endpoint.url)

    def write(key: str) -> None:
        file.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = secret\n")

    client, call = Client("eu-west-1"), Call("DescribeSubnets", {})
    with pytest.raises(Refused, match="NoCredentialsError"):
        client.call(call)
    write("AKIDOLD")
    client.call(call)
    cloud.endpoint.invalid.add("AKIDOLD")
    write("AKIDNEW")
    with pytest.raises(Refused, match="AuthFailure"):
        client.call(call)
    client.call(call)
    assert cloud.endpoint.keys == ["AKIDOLD", "AKIDOLD", "AKIDNEW"]


def test_a_web_identity_is_shown_again_when_its_credentials_end(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As the kubelet renews it in its file: what is shown is what the file has then."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    token = tmp_path / "token"
    token.write_text("first")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/nodes")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", cloud.endpoint.url)
    with Sts() as sts:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.url)
        sts.seconds = 30.0
        client = Client("eu-west-1")
        client.call(Call("DescribeSubnets", {}))
        token.write_text("second")
        sts.key, sts.seconds = "AKIDWEB2", 3600.0
        for _ in range(2):
            client.call(Call("DescribeSubnets", {}))
    assert cloud.endpoint.keys == ["AKIDWEB", "AKIDWEB2", "AKIDWEB2"]
    assert sts.tokens == ["first", "second"]


@pytest.mark.parametrize("what", ["missing", "InvalidIdentityToken", "AccessDenied", "expired", "nonsense", "fails"])
def test_credentials_that_cannot_be_had_are_refused_ones(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str
) -> None:
    """No token file, a token service that refuses, a clock by which what comes has ended already, a program that prints
    nonsense or fails: EC2 is not asked, and no error of anybody's library comes out."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    token, config = tmp_path / "token", tmp_path / "config"
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", cloud.endpoint.url)
    if what in ("nonsense", "fails"):
        config.write_text(f"[default]\ncredential_process = {'echo nonsense' if what == 'nonsense' else 'false'}\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    else:
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
        monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/nodes")
    if what != "missing":
        token.write_text("first")
    with Sts() as sts:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.url)
        sts.code, sts.seconds = ("" if what == "expired" else what), -60.0
        client = Client("eu-west-1")
        for _ in range(2):
            with pytest.raises(Refused) as caught:
                client.call(Call("DescribeSubnets", {}))
            assert is_about_credentials(caught.value)
        assert cloud.endpoint.keys == []
        token.write_text("second")
        sts.code, sts.seconds = "", 3600.0
        if what not in ("nonsense", "fails"):
            client.call(Call("DescribeSubnets", {}))
            assert cloud.endpoint.keys == ["AKIDWEB"]


def test_the_metadata_is_read_with_a_token(cloud: Cloud) -> None:
    """All that there is; a token that has ended is replaced; without an answer it is Lost."""
    cloud.ec2.assign_private_ip_addresses(NetworkInterfaceId=cloud.primary, Ipv4PrefixCount=1)
    cloud.ec2.assign_ipv6_addresses(NetworkInterfaceId=cloud.primary, Ipv6PrefixCount=1)
    with Imds(cloud.region, cloud.instance) as imds:
        metadata = Metadata(imds.url)
        seen = metadata.look()
        nic = cloud.region.nics[cloud.primary]
        assert seen[:4] == (cloud.instance, "m5.large", "eu-west-1", "eu-west-1a")
        assert seen.networks == (IPNetwork("10.0.0.0/16"),)
        assert seen.subnets == {cloud.subnet: IPNetwork("10.0.0.0/26")}
        assert seen.groups == ("sg-1",)
        (one,) = seen.enis
        assert (one.id, one.mac, one.index, one.address) == (nic.id, nic.mac, 0, nic.address)
        assert one.blocks == frozenset(nic.blocks)
        imds.tokens.clear()
        assert metadata.look() == seen
        assert len(imds.tokens) == 1
        imds.is_down = True
        with pytest.raises(Lost, match="answered 503"):
            metadata.look()
    with pytest.raises(Lost, match="Connection"):
        metadata.look()


def test_metadata_without_the_primary_interface_is_no_answer(cloud: Cloud) -> None:
    """Then it is asked again: nothing could be said of where this is."""
    attachment = cloud.region.nics[cloud.primary].attachment
    assert attachment is not None
    attachment.index = 1
    cloud.region.call("AssignPrivateIpAddresses", {"NetworkInterfaceId": cloud.primary, "Ipv4PrefixCount": 1})
    with Imds(cloud.region, cloud.instance) as imds, pytest.raises(Lost, match="does not show the primary interface"):
        Metadata(imds.url).look()


def test_the_metadata_lags_behind(cloud: Cloud) -> None:
    """By what the region says."""
    cloud.region.lag = 10.0
    cloud.clock.now += 20
    with Imds(cloud.region, cloud.instance) as imds:
        metadata = Metadata(imds.url)
        cloud.ec2.assign_private_ip_addresses(NetworkInterfaceId=cloud.primary, Ipv4PrefixCount=1)
        assert metadata.look().enis[0].blocks == frozenset()
        cloud.clock.now += 11
        assert len(metadata.look().enis[0].blocks) == 1


def test_nobody_listens(environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost, not a traceback of somebody else's library."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", "http://127.0.0.1:9")
    with pytest.raises(Lost) as caught:
        Client("eu-west-1").call(Call("DescribeSubnets", {}))
    assert isinstance(caught.value.__cause__, BotoCoreError)
