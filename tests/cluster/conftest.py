"""An API server on this machine's loopback, and credentials that it believes."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.access import Credentials
from cluster.kubeconfig import kubeconfig
from tests.cluster.apiserver import ApiServer


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiServer]:
    """An API server without Nodes."""
    directory = tmp_path / "apiserver"
    directory.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = ApiServer(listener, "127.0.0.1", directory)
        try:
            yield server
        finally:
            server.close()


@pytest.fixture
def credentials(api: ApiServer, tmp_path: Path) -> Callable[..., Credentials]:
    """By a kubeconfig, whose user is what the test says."""

    def made(user: str = "tokenFile: token") -> Credentials:
        (tmp_path / "token").write_text("token-1\n")
        (tmp_path / "ca.crt").write_text(api.authority.pem)
        path = tmp_path / "kubeconfig"
        path.write_text(api.kubeconfig(user))
        return kubeconfig(path)

    return made
