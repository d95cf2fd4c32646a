"""A lab whose nodes take their list from an API server, which is on the outside machine: over TLS, with tokens."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final, NamedTuple

from demo import traffic
from demo.lab import Family, Lab, Node, built
from demo.runtime import Pod
from tests.cluster.apiserver import ApiServer
from tests.cluster.store import Object, node

SERVER: Final = {"v4": "192.0.2.100", "v6": "2001:db8:ffff::100", "dual": "192.0.2.100"}
PORT: Final = 6443
TAINT: Final = "routable.io/agent-not-ready"


class Cluster(NamedTuple):
    """See `cluster`."""

    lab: Lab
    api: ApiServer

    @property
    def kubeconfig(self) -> str:
        """Where the agents' kubeconfig is."""
        return str(self.lab.directory / "kubeconfig")

    def told(self, one: Node) -> Object:
        """A node of the lab as kubelet and the controller manager tell of it; no pod shall come before its agent."""
        made = node(one.name, one.addresses, one.pod_cidrs)
        made["spec"]["taints"] = [{"key": TAINT, "effect": "NoSchedule"}]
        return made

    def takes_pods(self, one: Node) -> str:
        """Why the scheduler gives the node pods, '' while it does not."""
        found = self.api.store.get(one.name) or {"spec": {}, "status": {}}
        reasons = (
            condition["reason"]
            for condition in found["status"].get("conditions", ())
            if (condition["type"], condition["status"]) == ("NetworkUnavailable", "False")
        )
        return "" if found["spec"].get("taints") else next(reasons, "")

    def rotate(self, number: int) -> None:
        """Another token: on disk first, then nothing else counts."""
        (self.lab.directory / "token").write_text(f"token-{number}")
        self.api.tokens = {f"token-{number}"}


def do_meet(pod: Pod, other: Pod, *, patience: float = 0.5) -> bool:
    """Whether packets go there and back, of every family that they have, each way within *patience* seconds."""
    try:
        return all(
            traffic.seen_by_udp(pod.place, other.place, target, patience=patience) == own
            for own, target in zip(pod.addresses, other.addresses, strict=True)
        )
    except OSError:
        return False


@contextmanager
def cluster(backend: str, family: Family = "dual", nodes: int = 2) -> Iterator[Cluster]:
    """So many nodes on one segment; their agents are not started, and nobody has told the API server of them."""
    with ExitStack() as cleanup:
        lab = cleanup.enter_context(built(nodes=nodes, backend=backend, family=family, is_started=False))
        kind = socket.AF_INET6 if family == "v6" else socket.AF_INET
        listener = cleanup.enter_context(lab.outside.socket(kind, socket.SOCK_STREAM))
        listener.bind((SERVER[family], PORT))
        directory = lab.directory / "apiserver"
        directory.mkdir()
        api = ApiServer(listener, SERVER[family], directory)
        cleanup.callback(api.close)
        made = Cluster(lab, api)
        (lab.directory / "ca.crt").write_text(api.authority.pem)
        (lab.directory / "kubeconfig").write_text(api.kubeconfig())
        made.rotate(1)
        for one in lab.nodes:
            one.settings["nodes"] = {"source": "kubernetes", "kubeconfig": made.kubeconfig}
            one.settings["kubernetes"] = {"announce": True, "advertise_capacity": True}
        yield made
