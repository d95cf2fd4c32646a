"""The log, the status and what was mended speak of pods, not of containers' ids."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from agent.keep.replay import delete_spooled
from agent.keep.spool import Spooled, Written
from agent.node.ledger import Asked
from agent.serve.lane import Incoming
from agent.serve.verbs import Verbs
from agent.tell.metrics import Metrics
from backends.podcidrs import PodCidrs
from backends.podlink import link_name
from cni import frame
from cni.spec import Attachment
from dataplane.items import HOST, Key
from tests.fakes.world import World, lived_in

WHO = Attachment("pods", "0123456789abcdef", "eth0")
NAME = "shop/web-0 (eth0 of 0123456789abc)"


def request(verb: str, **more: object) -> frame.Request:
    """One of the runtime's."""
    env = {"COMMAND": verb, "CONTAINERID": WHO.container, "IFNAME": "eth0", "PATH": "/opt/cni/bin"}
    document = {"cniVersion": "1.1.0", "name": "pods", "type": "routable", **more}
    return frame.Request({f"CNI_{key}": value.encode() for key, value in env.items()}, json.dumps(document).encode())


def test_what_happens_to_a_pod_is_told_by_its_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Mended, collected, detached late, gone: always the pod, and which of its interfaces and sandboxes."""
    caplog.set_level(logging.INFO)

    def said() -> dict[str, object]:
        found = caplog.records[-1]
        named = {key: getattr(found, key) for key in ("pod", "pods") if hasattr(found, key)}
        return {"message": found.message, **named}

    with lived_in(tmp_path, Attachment("pods", "other", "eth0"), "/run/netns/other") as world:
        asked = Asked("", pod="shop/web-0", uid="u")
        add(world, asked)
        assert [one.uid for one in world.node.ledger.records().values()] == ["", "u"]
        world.kernel.drift(Key(HOST, "neigh", f"{address(world)} dev {link_name(WHO)}"), None)
        world.reconcile()
        assert any(one.text.startswith(f"mended {NAME}") for one in world.repair.diary.entries)

        valid = {"cni.dev/valid-attachments": [{"containerID": "other", "ifname": "eth0"}]}
        verbs = Verbs(world.node, Metrics(CollectorRegistry()), lambda: None, PodCidrs().shortage)
        verbs.serve(Incoming(request("GC", **valid), 99, lambda: False))
        assert said() == {"message": "collected what the runtime does not know", "pods": NAME}

        add(world, asked)
        assert delete_spooled(world.node, [Spooled(request("DEL"), Written(world.now + 1.0, 0.0))]) == [None]
        assert said() == {"message": "detached by a DEL that waited in the spool", "pod": NAME}

        add(world, asked)
        world.kernel.remove_netns("/run/netns/pod")
        world.reconcile()
        assert said() == {"message": "released the lease of a pod that is gone", "pod": NAME}


def add(world: World, asked: Asked) -> None:
    """ADD of the pod."""
    world.kernel.add_netns("/run/netns/pod")
    world.add(WHO, "/run/netns/pod", asked)


def address(world: World) -> str:
    """Its first address."""
    record = world.node.ledger.record(WHO)
    assert record is not None
    return str(record.lease.addresses[0])
