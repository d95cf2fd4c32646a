"""The first look of an agent that has not read the instance metadata yet."""

from __future__ import annotations

import logging

import pytest

from agent.config import chosen
from agent.config.schema import Config
from agent.keep.survey import Survey
from agent.switch.way import Way, restored
from backends.site import Options
from dataplane.host import NOTHING
from dataplane.uplink import Uplink
from tests.cloud.machine import Clock, Machine
from tests.cloud.region import Region


def test_a_fresh_start_logs_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """That it is starting is no news; when the metadata cannot be read, that is."""
    clock = Clock()
    region = Region(clock)
    subnet = region.add_subnet(region.add_vpc("10.0.0.0/16"), "10.0.0.0/20")
    machine = Machine(region, clock, region.run_instance("m5.large", subnet))
    fabric = machine.fabric
    survey = Survey(
        node=machine.instance,
        uplink="",
        options=Options(),
        source=fabric.source,
        fabric=fabric,
        find_uplink=lambda name, addresses, others: Uplink("ens5", 9001, ()),
        wire=Way(restored(None, "aws-eni", "boot"), chosen.wirings(Config(backend="aws-eni"))).wiring,
        look=lambda uplink, addresses: NOTHING,
    )
    with caplog.at_level(logging.INFO):
        survey.refresh()
        assert "has not read the instance metadata yet" in str(survey.problem)
        assert caplog.messages == []
        machine.run(1)
        survey.refresh()
    assert survey.now is not None
    assert survey.problem is None
    assert [one.message for one in caplog.records if one.levelno >= logging.WARNING] == []
