"""Google's library in its own process, asked by the agent's side, on the emulated Compute Engine over HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from backends.cloud.failures import Lost, Refused, Throttled
from backends.cloud.steps import Call
from backends.gcp import model, remote
from backends.gcp.calls import GET, NO_ANSWER, OPERATION, SUBNET, UPDATE, is_about_credentials, is_stale
from backends.gcp.metadata import Metadata as Reading
from backends.gcp.model import Interface, Range
from backends.gcp.remote import Remote
from tests.gcp.compute import Compute
from tests.gcp.estate import REGION, ZONE
from tests.gcp.metadata_server import Metadata
from tests.gcp.scene import Scene
from tests.gcp.strangers import Hands
from tests.gcp.tokens import READING, Issuer, Tokens
from tests.gcp.unkindness import KIND

ROOT = Path(__file__).parents[2]


class Served(Scene):
    """The scene over HTTP; node-a's agent asks by a worker."""

    def __init__(self, cleanup: ExitStack) -> None:
        super().__init__(time.time)
        self.tokens = Tokens()
        self.compute = cleanup.enter_context(Compute(self.project, self.tokens))
        self.metadata = cleanup.enter_context(Metadata(self.project, "node-a", self.tokens))
        self.issuer = cleanup.enter_context(Issuer(self.tokens))
        self.remote = self.worker()
        cleanup.callback(self.remote.close)
        self.zone = {"project": self.project.project, "zone": ZONE}

    def worker(self, **environment: str) -> Remote:
        """A new one: it takes seconds to start."""
        here = {"GCE_METADATA_HOST": self.metadata.host, "GCE_METADATA_IP": self.metadata.host}
        return remote.here({**os.environ, **here, **environment}, self.compute.url)

    def ask(self, action: str, **parameters: Any) -> dict[str, Any]:
        """As the fabric asks."""
        return self.remote.call(Call(action, parameters))

    def interface(self) -> Interface:
        """Of node-a."""
        return model.interface(self.ask(GET, **self.zone, instance="node-a"))

    def update(self, ranges: list[Range], more: int = 0, **other: str) -> dict[str, Any]:
        """The whole list, and so many /28s more."""
        fingerprint = other.pop("fingerprint", "") or self.interface().fingerprint
        return self.ask(
            UPDATE,
            **self.zone,
            instance="node-a",
            network_interface="nic0",
            request_id=other.pop("request_id", str(uuid.uuid4())),
            network_interface_resource=model.body(fingerprint, ranges, [("/28", "pods")] * more),
        )


@pytest.fixture(scope="module")
def everything() -> Iterator[Served]:
    """Once."""
    with ExitStack() as cleanup:
        yield Served(cleanup)


@pytest.fixture
def served(everything: Served) -> Served:
    """As kind as can be, and node-a is a new machine."""
    everything.project.set_unkind(KIND)
    Hands(everything.project).recreate("node-a")
    return everything


def test_it_reads_changes_and_follows(served: Served) -> None:
    """In the API's own shapes, as `model` reads them; of a large answer what is wanted."""
    assert served.interface().ranges == ()
    operation = model.operation(served.update([], 2))
    found = served.ask(OPERATION, **served.zone, operation=operation.name)
    assert model.operation(found) == operation._replace(is_done=True)
    seen = served.interface()
    assert {one.name for one in seen.ranges} == {"pods"}
    served.update(list(seen.ranges[:1]))
    assert served.project.truth("node-a") == {seen.ranges[0].cidr}
    answer = served.ask(GET, **served.zone, instance="node-a")
    assert set(answer) == {"id", "name", "networkInterfaces"}


def test_it_asks_how_much_of_a_range_is_left(served: Served) -> None:
    """Where that is, the interface says."""
    where = model.subnet_of(served.interface().subnetwork)
    assert where == {"project": served.project.project, "region": REGION, "subnetwork": "nodes"}
    room = model.room(served.ask(SUBNET, **where, views="WITH_UTILIZATION"), "pods")
    assert room is not None
    assert (str(room.cidr), room.free) == ("10.1.0.0/16", 65536)


def test_the_same_request_is_one_change(served: Served) -> None:
    """However often it is asked for."""
    fingerprint, request = served.interface().fingerprint, str(uuid.uuid4())
    first = served.update([], 1, fingerprint=fingerprint, request_id=request)
    again = served.update([], 1, fingerprint=fingerprint, request_id=request)
    assert first["name"] == again["name"]
    assert len(served.project.truth("node-a")) == 1


def test_a_stale_fingerprint_is_one(served: Served) -> None:
    """By the words that the fabric looks for."""
    fingerprint = served.interface().fingerprint
    served.update([], 1)
    with pytest.raises(Refused) as caught:
        served.update([], 1, fingerprint=fingerprint)
    assert is_stale(caught.value)


@pytest.mark.parametrize(
    ("kind", "error", "code"),
    [
        ("throttle", Throttled, "rateLimitExceeded"),
        ("operations", Throttled, "rateLimitExceeded"),
        ("often", Throttled, "rateLimitExceeded"),
        ("error500", Lost, "backendError"),
        ("error503", Lost, "backendError"),
        ("html502", Lost, NO_ANSWER),
        ("text500", Lost, NO_ANSWER),
        ("empty502", Lost, NO_ANSWER),
        ("html200", Lost, None),
        ("empty200", Lost, None),
        ("object200", Lost, NO_ANSWER),
        ("half", Lost, None),
        ("mangled", Lost, None),
        ("lost_before", Lost, None),
        ("lost_after", Lost, None),
        ("denied", Refused, "forbidden"),
        ("narrow", Refused, "insufficientPermissions"),
        ("disabled", Refused, "accessNotConfigured"),
    ],
)
def test_every_failure_says_what_is_known_afterwards(
    served: Served, kind: str, error: type[Exception], code: str | None
) -> None:
    """Pages of what stands before the API, halves, and the API's own errors; one attempt each, and the worker stays."""
    served.interface()
    pid, calls = served.remote.pid, sum(served.project.calls.values())
    served.project.fail(GET, 1, kind)
    with pytest.raises(error) as caught:
        served.interface()
    assert isinstance(caught.value, Lost | Refused | Throttled)
    assert caught.value.code == (code or caught.value.code)
    assert sum(served.project.calls.values()) <= calls + 1
    assert served.interface().ranges == ()
    assert served.remote.pid == pid


def test_a_slow_api_is_not_waited_for(served: Served) -> None:
    """Its answer is lost, and that is told by the worker, not by its death."""
    code = "import sys; from backends.gcp import client, worker; client.TIMEOUT = 0.3; worker.main(sys.argv[1:])"
    impatient = Remote(
        [sys.executable, "-P", "-c", code, "--endpoint", served.compute.url],
        {**os.environ, "GCE_METADATA_HOST": served.metadata.host, "GCE_METADATA_IP": served.metadata.host},
    )
    impatient.call(Call(GET, {**served.zone, "instance": "node-a"}))
    served.compute.delay = 1.0
    try:
        with pytest.raises(Lost, match=r"[Tt]imeout"):
            impatient.call(Call(GET, {**served.zone, "instance": "node-a"}))
    finally:
        served.compute.delay = 0.0
    assert impatient.pid is not None
    impatient.close()


def test_credentials_that_were_refused_are_read_anew(served: Served) -> None:
    """A token that ended before its time is fetched again by the library; one of a machine that lost its account is
    told, and it goes on as soon as there is one."""
    served.interface()
    served.tokens.revoke()
    served.interface()
    instance = served.project.instances["node-a"]
    account, instance.account = instance.account, ""
    served.tokens.revoke()
    try:
        with pytest.raises(Refused) as caught:
            served.interface()
        assert is_about_credentials(caught.value)
    finally:
        instance.account = account
    served.interface()


def test_a_narrow_scope_is_told(served: Served) -> None:
    """It reads, and may not change."""
    served.project.instances["node-a"].scopes = READING
    served.tokens.revoke()
    served.interface()
    with pytest.raises(Refused, match="insufficientPermissions"):
        served.update([], 1)
    served.tokens.revoke()


def test_a_workload_identity_whose_token_is_rotated(served: Served, tmp_path: Path) -> None:
    """The file with the token is read for every exchange; a file of credentials that was replaced, after a refusal."""
    subject, path = tmp_path / "token", tmp_path / "credentials.json"
    subject.write_text("first")
    good = {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/k8s/providers/k8s",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{served.issuer.url}/v1/token",
        "credential_source": {"file": str(subject)},
    }
    path.write_text(json.dumps({**good, "token_url": f"{served.issuer.url}/nowhere"}))
    own = served.worker(
        GOOGLE_APPLICATION_CREDENTIALS=str(path), GOOGLE_CLOUD_PROJECT="routable-test", NO_GCE_CHECK="true"
    )
    call = Call(GET, {**served.zone, "instance": "node-a"})
    with pytest.raises(Refused) as caught:
        own.call(call)
    assert is_about_credentials(caught.value)
    pid = own.pid
    path.write_text(json.dumps(good))
    own.call(call)
    subject.write_text("second")
    served.tokens.revoke()
    own.call(call)
    assert served.issuer.shown[-1] == "second"
    assert own.pid == pid
    own.close()
    served.tokens.revoke()


def test_the_agents_own_reading_needs_no_library(served: Served) -> None:
    """The metadata server of the emulated project, read by plain HTTP, and waited for."""
    reading = Reading(served.metadata.host)
    seen = reading.look()
    assert (seen.name, seen.zone, seen.project) == ("node-a", ZONE, served.project.project)
    tag = reading.changed("")
    served.update([], 1)
    after = reading.changed(tag)
    assert after != tag
    assert reading.look().blocks == served.project.truth("node-a")


def test_the_agents_process_does_not_grow(served: Served) -> None:
    """What costs more memory than an agent is in the worker: the process that asks is as it was."""
    code = f"""
import os, resource, sys
from backends.gcp import descriptor, fabric, live, remote, turns
from backends.cloud.steps import Call
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() >> 20
before = resident()
worker = remote.here(os.environ, {served.compute.url!r})
worker.call(Call("instances.get", {{**{served.zone!r}, "instance": "node-a"}}))
statm = open(f"/proc/{{worker.pid}}/statm").read()
print(resident() - before, int(statm.split()[1]) * resource.getpagesize() >> 20)
worker.close()
print([name for name in sys.modules if name.partition(".")[0] in ("google", "requests", "grpc")])
"""
    here = {"GCE_METADATA_HOST": served.metadata.host, "GCE_METADATA_IP": served.metadata.host}
    environment = {**os.environ, **here}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    sizes, modules = done.stdout.splitlines()
    more, workers = map(int, sizes.split())
    assert more <= 2
    assert workers > 60
    assert modules == "[]"
