"""Where the AWS backend meets what is not there: a region, an answer, an interface, a table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from netaddr import IPAddress

from backends.aws.model import Eni, Seen
from backends.aws.table import AwsTable, contradictions

ROOT = Path(__file__).parents[2]
SEEN = Seen("i-1", "m5.large", "eu-west-1", "eu-west-1a", "vpc-1", (), (), {}, ())


def program(module: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one of ours."""
    command = [sys.executable, "-m", module, *arguments]
    environ = {**os.environ, **environment}
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, cwd=ROOT)


def test_a_type_that_nobody_can_say_anything_of_is_told() -> None:
    """Neither the table knows it, nor is EC2 to be reached: what to look at, and no traceback."""
    where = {"AWS_ENDPOINT_URL_EC2": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    done = program("agent.ctl", "max-pods", "--instance-type", "x9.none", "--region", "eu-west-1", **where)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("routablectl: what a x9.none can have is not known: ")
    assert "see that the name is right, and that this machine may ask EC2" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_headroom_below_nothing_is_none() -> None:
    """As of any number that is no count of addresses."""
    done = program("agent.ctl", "max-pods", "--instance-type", "m5.large", "--headroom", "-1")
    assert done.returncode == 2
    assert "--headroom" in done.stderr


def test_an_instance_without_an_address_to_be_known_by() -> None:
    """The metadata may show no primary interface for a moment, or one of IPv6 alone."""
    with pytest.raises(LookupError, match="the primary interface is not shown"):
        _ = SEEN.primary
    one = Eni("eni-1", "0a:00:00:00:00:01", "subnet-1", None, 0)
    with pytest.raises(LookupError, match="the primary interface has no IPv4 address"):
        _ = SEEN._replace(enis=(one,)).address
    two = replace(one, address=IPAddress("10.0.0.4"))
    assert SEEN._replace(enis=(two,)).address == IPAddress("10.0.0.4")


def test_more_security_groups_than_an_interface_can_have() -> None:
    """EC2 would refuse each interface, long after the start."""
    (found,) = contradictions(AwsTable(security_groups=tuple(f"sg-{number:08x}" for number in range(17))))
    assert found.key == "aws.security_groups"


def test_the_table_of_types_is_made_of_either_form(tmp_path: Path) -> None:
    """Of what the AWS command line prints, and of the same by name."""
    card = {"NetworkCardIndex": 0, "MaximumNetworkInterfaces": 3}
    network = {
        "MaximumNetworkInterfaces": 3,
        "Ipv4AddressesPerInterface": 10,
        "DefaultNetworkCardIndex": 0,
        "NetworkCards": [card],
    }
    one = {
        "InstanceType": "m5.large",
        "NetworkInfo": network,
        "Hypervisor": "nitro",
        "VCpuInfo": {"DefaultVCpus": 2},
        "BareMetal": False,
    }
    outputs = []
    for name, content in (("list", {"InstanceTypes": [one]}), ("object", {"m5.large": one})):
        path = tmp_path / name
        path.write_text(json.dumps(content))
        done = program("backends.aws.typetable", str(path))
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]
    assert "m5.large" in outputs[0]
