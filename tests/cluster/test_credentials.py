"""Token, client certificate and CA are replaced on disk, and the API server takes the new ones alone."""

from __future__ import annotations

import base64
import datetime
import ssl
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from cluster.access import Credentials, service_account, trust
from cluster.apiserver import Api, Unanswered
from cluster.kubeconfig import kubeconfig
from cluster.kubernetes import KubernetesNodes, Pace
from cni.errors import ConfigInvalid, Failure
from tests.cluster.apiserver import ApiServer
from tests.cluster.authority import Authority
from tests.cluster.listener import listening
from tests.cluster.store import node

PACE = Pace(again=(0.05, 0.2), told=0.0)
CERTIFICATE = "client-certificate: agent.crt, client-key: agent.key"


def source(credentials: Credentials) -> KubernetesNodes:
    """A source that is in a hurry."""
    return KubernetesNodes(Api(credentials), "the test's API server", time.monotonic, lambda: 0.5, None, PACE)


def refused(api: ApiServer) -> int:
    """How often the server did not believe."""
    return len(api.refusals) + api.handshakes_failed


def watches(api: ApiServer, times: int) -> bool:
    """Whether so many watches have begun: what is asked next is asked over a new connection."""
    return api.watching >= times


def test_a_token_that_is_rotated(api: ApiServer, credentials: Callable[..., Credentials], tmp_path: Path) -> None:
    """The watch goes on, and the next one has the new token: not one request is refused."""
    api.store.put(node("n1", ["192.0.2.1"], ["10.1.1.0/24"]))
    with listening(source(credentials())) as heard:
        heard.knows("n1")
        for number in range(2, 6):
            heard.until(partial(watches, api, number - 1))
            (tmp_path / "token").write_text(f"token-{number}")
            api.tokens = {f"token-{number}"}
            api.drop()
            api.store.put(node(f"n{number}", [f"192.0.2.{number}"], [f"10.1.{number}.0/24"]))
            heard.knows(" ".join(f"n{one}" for one in range(1, number + 1)))
    assert refused(api) == 0


def test_a_client_certificate_that_is_rotated_with_its_authority(
    api: ApiServer, credentials: Callable[..., Credentials], tmp_path: Path
) -> None:
    """As kubelet's own, which a kubeconfig names by its path: the next connection shows the new one."""
    api.tokens = set()
    api.clients.issue("agent").write(tmp_path, "agent")
    api.store.put(node("n1", ["192.0.2.1"], ["10.1.1.0/24"]))
    with listening(source(credentials(CERTIFICATE))) as heard:
        heard.knows("n1")
        for number in (2, 3):
            heard.until(partial(watches, api, number - 1))
            clients = Authority("clients")
            clients.issue("agent").write(tmp_path, "agent")
            api.rotate(api.authority, clients)
            api.drop()
            api.store.put(node(f"n{number}", [f"192.0.2.{number}"], [f"10.1.{number}.0/24"]))
            heard.knows(" ".join(f"n{one}" for one in range(1, number + 1)))
    assert refused(api) == 0


def test_a_ca_that_is_rotated(api: ApiServer, credentials: Callable[..., Credentials], tmp_path: Path) -> None:
    """As a cluster does it: both are trusted before the server has a certificate of the new one."""
    api.store.put(node("n1", ["192.0.2.1"], ["10.1.1.0/24"]))
    with listening(source(credentials())) as heard:
        heard.until(partial(watches, api, 1))
        fresh = Authority("the next")
        (tmp_path / "ca.crt").write_text(api.authority.pem + fresh.pem)
        api.rotate(fresh)
        api.drop()
        api.store.put(node("n2", ["192.0.2.2"], ["10.1.2.0/24"]))
        heard.knows("n1 n2")
        heard.until(partial(watches, api, 2))
        (tmp_path / "ca.crt").write_text(fresh.pem)
        api.drop()
        api.store.put(node("n3", ["192.0.2.3"], ["10.1.3.0/24"]))
        heard.knows("n1 n2 n3")
    assert refused(api) == 0


def test_a_ca_that_another_vouches_for(
    api: ApiServer, credentials: Callable[..., Credentials], tmp_path: Path
) -> None:
    """A company's root stands over the cluster's CA, and is not in the file: what is is believed, as by kubectl."""
    api.store.put(node("n1", ["192.0.2.1"], ["10.1.1.0/24"]))
    api.rotate(Authority("the cluster", by=Authority("the company")))
    made = KubernetesNodes(Api(credentials()), "the test's", time.monotonic, lambda: 0.5)
    made.look()
    assert [one.name for one in made.nodes] == ["n1"]
    (tmp_path / "ca.crt").write_text(Authority("the company").pem)
    with pytest.raises(Failure, match="its certificate is not believed"):
        made.look()


def test_a_ca_that_comes_late(api: ApiServer, credentials: Callable[..., Credentials], tmp_path: Path) -> None:
    """A server that nobody vouches for is told nothing, least of all the token; it is believed when the CA is there."""
    api.store.put(node("n1", ["192.0.2.1"], ["10.1.1.0/24"]))
    with listening(source(credentials())) as heard:
        heard.until(partial(watches, api, 1))
        api.rotate(Authority("the next"))
        api.drop()
        heard.until(lambda: "its certificate is not believed" in str(heard.source.error))
        assert heard.names == "n1"
        asked = len(api.requests)
        time.sleep(0.5)
        assert len(api.requests) == asked
        assert api.handshakes_failed <= 8
        (tmp_path / "ca.crt").write_text(api.authority.pem)
        api.store.put(node("n2", ["192.0.2.2"], ["10.1.2.0/24"]))
        heard.knows("n1 n2")
        assert heard.source.error is None


def test_the_moment_between_certificate_and_key(
    api: ApiServer, credentials: Callable[..., Credentials], tmp_path: Path
) -> None:
    """Two files are never replaced at once: nothing is asked with what does not go together."""
    api.tokens = set()
    api.clients.issue("agent").write(tmp_path, "agent")
    other = api.clients.issue("agent")
    found = credentials(CERTIFICATE)
    found()
    (tmp_path / "agent.crt").write_text(other.certificate)
    with (
        pytest.raises(Unanswered, match=r"the client certificate of .*kubeconfig cannot be used"),
        Api(found).connected(),
    ):
        pass
    assert not api.requests
    (tmp_path / "agent.key").write_text(other.key)
    source(found).look()


def test_an_expired_client_certificate_is_told(
    api: ApiServer, credentials: Callable[..., Credentials], tmp_path: Path
) -> None:
    """By the server's name, where that ends the connection for it."""
    api.tokens = set()
    api.clients.issue("agent", age=datetime.timedelta(days=3)).write(tmp_path, "agent")
    with pytest.raises(Exception, match=f"the API server {api.url} cannot be asked"):
        source(credentials(CERTIFICATE)).look()


def test_a_stranger_is_told_so(api: ApiServer, credentials: Callable[..., Credentials]) -> None:
    """401, with what to look at."""
    api.tokens = {"another"}
    with pytest.raises(Exception, match=r"does not know who asks: 401 Unauthorized.*see that the token"):
        source(credentials()).look()


def test_a_service_account(api: ApiServer, tmp_path: Path) -> None:
    """What every pod has; the address of the Service from the environment, unless the server is named."""
    (tmp_path / "token").write_text("token-1")
    (tmp_path / "ca.crt").write_text(api.authority.pem)
    environment = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(api.port)}
    found, url = service_account(environment, directory=tmp_path)
    assert url == api.url
    source(found).look()
    found, url = service_account({}, api.url, tmp_path)
    source(found).look()
    assert (
        service_account({"KUBERNETES_SERVICE_HOST": "2001:db8::1"}, directory=tmp_path)[1]
        == "https://[2001:db8::1]:443"
    )
    with pytest.raises(ConfigInvalid, match="KUBERNETES_SERVICE_HOST is not set"):
        service_account({}, directory=tmp_path)


def test_all_in_one_file(api: ApiServer, tmp_path: Path) -> None:
    """A kubeconfig as administrators have it, with base64 in it."""
    api.tokens = set()
    pair = api.clients.issue("admin")

    def packed(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    path = tmp_path / "admin.conf"
    path.write_text(
        f"""{{"current-context": "c", "contexts": [{{"name": "c", "context": {{"cluster": "k", "user": "u"}}}}],
        "clusters": [{{"name": "k", "cluster":
            {{"server": "{api.url}/", "certificate-authority-data": "{packed(api.authority.pem)}"}}}}],
        "users": [{{"name": "u", "user": {{"client-certificate-data": "{packed(pair.certificate)}",
            "client-key-data": "{packed(pair.key)}"}}}}]}}"""
    )
    source(kubeconfig(path)).look()


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("current-context: here", "", "kubeconfig: current-context: is missing"),
        ("current-context: here", "current-context: there", "kubeconfig: context 'there': is not there"),
        ("user: agent", "user: nobody", "kubeconfig: user 'nobody': is not there"),
        (
            "tokenFile: token",
            "exec: {command: aws}",
            "exec of user 'agent': is not for the agent; allowed:",
        ),
        (
            "tokenFile: token",
            "tokenFile: none",
            "none: cannot be read: No such file or directory; it is",
        ),
        (
            "server: ",
            "insecure-skip-tls-verify: true, server: ",
            "skip-tls-verify of cluster 'test': is not for",
        ),
        ("https://", "http://", "is not a URL such as https://192.0.2.1:6443"),
        ("certificate-authority: ca.crt", "certificate-authority: token", "certificate-authority cannot be used"),
        ("apiVersion: v1", "apiVersion: [", "kubeconfig: is not YAML"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_says_why(
    credentials: Callable[..., Credentials], tmp_path: Path, old: str, new: str, why: str
) -> None:
    """The file, the key and what is allowed; it is looked at again with the next try."""
    found = credentials()
    path = tmp_path / "kubeconfig"
    good = path.read_text()
    path.write_text(good.replace(old, new))
    with pytest.raises(ConfigInvalid) as caught:
        found()
    assert why in str(caught.value)
    path.write_text(good)
    found()


def test_a_token_that_would_break_the_request_is_refused(tmp_path: Path) -> None:
    """Nothing that is read from a file gets into a header but one word."""
    for text in ("", "\n", "a b", "a\r\nX: y", "é"):
        (tmp_path / "token").write_text(text)
        (tmp_path / "ca.crt").write_text(Authority().pem)
        found, _ = service_account({}, "https://192.0.2.1", tmp_path)
        with pytest.raises(ConfigInvalid, match="token: is not a token"):
            found()


def test_names_in_certificates_are_checked(api: ApiServer, tmp_path: Path) -> None:
    """Another server of the same authority is not believed."""
    (tmp_path / "token").write_text("token-1")
    (tmp_path / "ca.crt").write_text(api.authority.pem)
    found, _ = service_account({}, f"https://localhost:{api.port}", tmp_path)
    with pytest.raises(Unanswered, match="its certificate is not believed: Hostname mismatch"), Api(found).connected():
        pass
    assert trust("").verify_mode == ssl.CERT_REQUIRED
