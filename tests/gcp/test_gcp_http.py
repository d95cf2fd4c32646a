"""The emulated Compute Engine, metadata server and token services over HTTP: asked by google-cloud-compute itself,
which gets its tokens from them, and by plain requests."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.gcp.compute import Compute
from tests.gcp.estate import ZONE
from tests.gcp.metadata_server import ROOT, Metadata
from tests.gcp.official import Official, Refused
from tests.gcp.scene import Scene, request
from tests.gcp.strangers import Hands
from tests.gcp.tokens import READING, Issuer, Tokens
from tests.gcp.unkindness import KIND

FLAVOUR = {"Metadata-Flavor": "Google"}


class Served(Scene):
    """The scene over HTTP, with the metadata of node-a, and with the official client on node-a."""

    def __init__(self, cleanup: ExitStack) -> None:
        super().__init__(time.time)
        self.tokens = Tokens()
        self.compute = cleanup.enter_context(Compute(self.project, self.tokens))
        self.metadata = cleanup.enter_context(Metadata(self.project, "node-a", self.tokens))
        self.issuer = cleanup.enter_context(Issuer(self.tokens))
        here = {"GCE_METADATA_HOST": self.metadata.host, "GCE_METADATA_IP": self.metadata.host}
        self.client = cleanup.enter_context(Official(self.compute.url, here))
        self.where = {"project": self.project.project, "zone": ZONE}

    def official_nic(self) -> dict[str, Any]:
        """The interface, as the official client has it."""
        (found,) = self.client.ask("instances.get", **self.where, instance="node-a")["networkInterfaces"]
        return dict(found)

    def official_patch(self, ranges: list[dict[str, str]], **more: Any) -> dict[str, Any]:
        """The operation, by the official client."""
        nic = {"fingerprint": self.official_nic()["fingerprint"], "alias_ip_ranges": ranges}
        asked = {"instance": "node-a", "network_interface": "nic0", "network_interface_resource": nic, **more}
        return self.client.ask("instances.update_network_interface_unary", **self.where, **asked)

    def read(self, path: str, headers: Mapping[str, str] = FLAVOUR) -> tuple[str, Mapping[str, str]]:
        """Of the metadata: the text, and the headers of the answer."""
        asked = urllib.request.Request(self.metadata.url + ROOT + path, headers=dict(headers))
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return answer.read().decode(), answer.headers


@pytest.fixture(scope="module")
def everything() -> Iterator[Served]:
    """Once: the official client takes seconds to start."""
    with ExitStack() as cleanup:
        yield Served(cleanup)


@pytest.fixture
def served(everything: Served) -> Served:
    """As kind as can be, and node-a is a new machine."""
    everything.project.set_unkind(KIND)
    everything.project.lag = 0.0
    Hands(everything.project).recreate("node-a")
    return everything


def pods(cidr: str) -> dict[str, str]:
    """A range as the official client has it."""
    return {"ip_cidr_range": cidr, "subnetwork_range_name": "pods"}


def test_the_official_client_grows_and_shrinks(served: Served) -> None:
    """Its token is the metadata server's; it follows the operation to its end."""
    operation = served.official_patch([pods("/28"), pods("/28")], request_id=request())
    done = served.client.ask("zone_operations.wait", **served.where, operation=operation["name"])
    assert done["status"] == "DONE"
    held = served.official_nic()["aliasIpRanges"]
    assert [one["subnetworkRangeName"] for one in held] == ["pods", "pods"]
    served.official_patch([pods(held[0]["ipCidrRange"])])
    assert {str(one) for one in served.project.truth("node-a")} == {held[0]["ipCidrRange"]}
    assert served.metadata.asked[-1].startswith(f"{ROOT}instance/service-accounts/default/token")
    assert operation["user"] == "node@routable-test"


def test_the_official_client_cannot_take_the_last_range_away(served: Served) -> None:
    """It does not send an empty list, so the operation is DONE and nothing was changed (googleapis/python-compute,
    issue 446)."""
    served.official_patch([pods("/28")])
    operation = served.official_patch([])
    assert (operation["status"], "error" in operation) == ("DONE", False)
    assert len(served.project.truth("node-a")) == 1


def test_the_official_client_understands_the_errors(served: Served) -> None:
    """What is refused is raised with its status; what is inside of an operation is a field of it."""
    project = served.project
    for change, code, text in (
        ({"instance": "none"}, 404, "was not found"),
        ({"network_interface_resource": {"fingerprint": "b2xk"}}, 412, "fingerprint"),
        ({"network_interface_resource": {"alias_ip_ranges": [pods("/28")]}}, 400, "fingerprint"),
        ({"request_id": "0"}, 400, "UUID"),
    ):
        with pytest.raises(Refused, match=text) as caught:
            served.official_patch([pods("/28")], **change)
        assert caught.value.code == code
    for kind, code in (("throttle", 403), ("often", 429), ("error503", 503), ("html502", 502), ("empty502", 502)):
        project.fail("instances.get", 1, kind)
        with pytest.raises(Refused) as caught:
            served.official_nic()
        assert caught.value.code == code
    held = Hands(project).exhaust("nodes", "pods")
    try:
        done = served.official_patch([pods("/28")])
    finally:
        Hands(project).release("nodes", held, "pods")
    assert (done["error"]["errors"][0]["code"], done["httpErrorStatusCode"]) == ("IP_SPACE_EXHAUSTED", 400)


@pytest.mark.parametrize("kind", ["lost_before", "lost_after", "half", "mangled", "html200", "empty200"])
def test_the_official_client_without_a_good_answer(served: Served, kind: str) -> None:
    """It raises something, or believes an empty answer; the change was made, or was not, as the kind says."""
    fingerprint = served.official_nic()["fingerprint"]
    served.project.fail("instances.updateNetworkInterface", 1, kind)
    nic = {"fingerprint": fingerprint, "alias_ip_ranges": [pods("/28")]}
    try:
        answer = served.official_patch([], network_interface_resource=nic)
    except Refused as refused:
        assert refused.code in (0, 200)
    else:
        assert answer.get("name", "") == ""
    assert len(served.project.truth("node-a")) == (kind in ("lost_after", "half", "mangled"))
    assert [one.is_consumed for one in served.project.faults[-1:]] == [True]


def test_a_token_ends_and_another_one_is_fetched(served: Served) -> None:
    """401 where it has ended before its time; the official client asks the metadata server anew, and goes on."""
    served.official_nic()
    served.tokens.revoke()
    assert served.official_nic()["name"] == "nic0"
    assert len({token for token, (_, until, _) in served.tokens.issued.items() if until}) == 1
    for headers in ({}, {"Authorization": "Bearer nobody's"}, {"Authorization": "Bearer a.e30.c"}):
        url = f"{served.compute.url}/compute/v1/projects/routable-test/zones/{ZONE}/instances/node-a"
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(urllib.request.Request(url, headers=headers))
        with caught.value as error:
            document = json.load(error)["error"]
        assert (document["code"], document["status"]) == (401, "UNAUTHENTICATED")


def test_a_machine_may_have_too_narrow_scopes_or_no_account(served: Served) -> None:
    """A token that is for reading alone reads; without a service account there is none at all."""
    instance = served.project.instances["node-a"]
    instance.scopes = READING
    served.tokens.revoke()
    assert served.official_nic()["name"] == "nic0"
    with pytest.raises(Refused, match="insufficient authentication scopes") as caught:
        served.official_patch([pods("/28")])
    assert caught.value.code == 403
    instance.account = ""
    assert served.read("instance/service-accounts/")[0] == ""
    with pytest.raises(urllib.error.HTTPError) as none:
        served.read("instance/service-accounts/default/token")
    with none.value as error:
        assert error.code == 404
    served.tokens.revoke()


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    """A service account's."""
    return rsa.generate_private_key(65537, 2048)


def test_workload_identity_federation_and_key_files(served: Served, tmp_path: Path, key: rsa.RSAPrivateKey) -> None:
    """The official client exchanges a Kubernetes token, and signs its own with a key; a rotated token is read again."""
    subject, name = tmp_path / "token", "routable@routable-test.iam.gserviceaccount.com"
    subject.write_text("first")
    external = {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/k8s/providers/k8s",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{served.issuer.url}/v1/token",
        "credential_source": {"file": str(subject)},
    }
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    served.tokens.keys[name] = key.public_key()
    account = {
        "type": "service_account",
        "project_id": "routable-test",
        "private_key_id": "1",
        "private_key": private.decode(),
        "client_email": name,
        "token_uri": f"{served.issuer.url}/token",
    }
    seen = []
    for number, document in enumerate((external, account)):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(document))
        here = {"GOOGLE_APPLICATION_CREDENTIALS": str(path), "GOOGLE_CLOUD_PROJECT": "routable-test"}
        served.tokens.seconds = 1.0
        with Official(served.compute.url, {**here, "NO_GCE_CHECK": "true"}) as client:
            for text in ("first", "second"):
                subject.write_text(text)
                asked = {"instance": "node-a", "network_interface": "nic0", **served.where}
                nic = {"fingerprint": served.nic()["fingerprint"]}
                answer = client.ask("instances.update_network_interface_unary", **asked, network_interface_resource=nic)
                seen.append(answer["user"])
    served.tokens.seconds = 3600.0
    assert seen == [f"principal:{external['audience']}"] * 2 + [name] * 2
    assert served.issuer.shown[0] == "first"
    assert served.issuer.shown[-1] == "second"


# --- the metadata server ------------------------------------------------------------------------------------------


def test_the_metadata_wants_its_header_and_no_proxy(served: Served) -> None:
    """403 without the one or with the other ("About VM metadata"); it says in every answer what it is."""
    for headers in ({}, {"Metadata-Flavor": "google"}, {**FLAVOUR, "X-Forwarded-For": "10.0.0.9"}):
        with pytest.raises(urllib.error.HTTPError) as caught:
            served.read("instance/id", headers)
        with caught.value as error:
            assert error.code == 403
    assert served.read("instance/id")[1]["Metadata-Flavor"] == "Google"


def test_the_metadata_as_text_and_as_json(served: Served) -> None:
    """Directories end with a slash, lists are directories of numbers, JSON has capitals; one without its slash is
    elsewhere."""
    served.patch([pods_row("10.1.8.0/28"), pods_row("10.1.9.0/24")])
    assert served.read("instance/network-interfaces/0/ip-aliases/")[0] == "0\n1\n"
    assert served.read("instance/network-interfaces/0/ip-aliases/1")[0] == "10.1.9.0/24"
    assert served.read("instance/network-interfaces/")[0] == "0/\n"
    assert "ip-aliases/\nmac\nmtu\n" in served.read("instance/network-interfaces/0/")[0]
    assert served.read("instance/zone")[0] == f"projects/123456789012/zones/{ZONE}"
    assert served.read("project/project-id?alt=json")[0] == '"routable-test"'
    text, headers = served.read("?recursive=true")
    whole = json.loads(text)
    assert headers["Content-Type"] == "application/json"
    assert whole["instance"]["id"] == served.project.instances["node-a"].id
    (nic,) = whole["instance"]["networkInterfaces"]
    assert nic["ipAliases"] == ["10.1.8.0/28", "10.1.9.0/24"]
    assert (nic["mtu"], nic["subnetmask"], nic["gateway"]) == (1460, "255.255.240.0", "10.0.0.1")
    assert served.read("instance/network-interfaces?recursive=true&alt=json")[0].startswith("[{")
    flat, _ = served.read("instance/network-interfaces/0/?recursive=true&alt=text")
    assert "ip-aliases/1 10.1.9.0/24\n" in flat
    with pytest.raises(urllib.error.HTTPError) as caught:
        served.read("instance/network-interfaces/1/mac")
    with caught.value as error:
        assert error.code == 404


def pods_row(cidr: str) -> dict[str, str]:
    """A range as a body has it."""
    return {"ipCidrRange": cidr, "subnetworkRangeName": "pods"}


def test_whoever_waits_for_a_change_is_told_of_it(served: Served) -> None:
    """At once where the last ETag is an old one, else when something changes below that path, or at the timeout."""
    path = "instance/network-interfaces/0/ip-aliases/?recursive=true"
    text, headers = served.read(path)
    assert text == "[]"
    started = time.monotonic()
    waits = f"{path}&wait_for_change=true"
    assert served.read(f"{waits}&last_etag=0")[0] == "[]"
    assert served.read(f"{waits}&last_etag={headers['ETag']}&timeout_sec=0")[0] == "[]"
    assert time.monotonic() - started < 5
    threading.Timer(0.1, lambda: served.patch([pods_row("10.1.10.0/28")])).start()
    text, after = served.read(f"{waits}&last_etag={headers['ETag']}&timeout_sec=60")
    assert text == '["10.1.10.0/28"]'
    assert after["ETag"] != headers["ETag"]
    served.project.unkind = replace(served.project.unkind, poll_early=1.0)
    assert served.read(f"{waits}&timeout_sec=60")[1]["ETag"] == after["ETag"]


def test_the_metadata_is_late_and_away(served: Served) -> None:
    """It shows a change later than Compute Engine, and it answers with an error now and then."""
    served.project.lag = 0.3
    served.patch([pods_row("10.1.11.0/28")])
    path = "instance/network-interfaces/0/ip-aliases/"
    assert (len(served.ranges()), served.read(path)[0]) == (1, "")
    text, _ = served.read(f"{path}?wait_for_change=true&timeout_sec=10")
    assert text == "0\n"
    served.metadata.faults.append((ROOT, "html500"))
    served.metadata.is_down = True
    for code in (500, 503):
        with pytest.raises(urllib.error.HTTPError) as caught:
            served.read(path)
        with caught.value as error:
            assert error.code == code
    served.metadata.is_down = False
