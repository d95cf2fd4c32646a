"""Where the other nodes come from, as the table [nodes] says: a file, or the Kubernetes API."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.config.schema import Config
from agent.keep.listening import Listening
from agent.process.life import Living
from backends.descriptor import Handles
from cluster.access import Credentials, service_account
from cluster.apiserver import Api
from cluster.kept import Kept
from cluster.kubeconfig import kubeconfig
from cluster.kubernetes import KubernetesNodes
from cluster.nodesfile import NodesFile


def source(config: Config, environment: Mapping[str, str], state: Path | None = None) -> NodesFile | KubernetesNodes:
    """What *config* says; the last good list is kept beside *state*, the journal, where that is given.

    ConfigInvalid: what it needs is not installed, or nothing says where the API server is."""
    wanted = config.nodes
    if wanted.source == "file":
        return NodesFile(wanted.file, kept=state.with_suffix(".nodes.toml") if state is not None else None)
    credentials, origin = reached(wanted.kubeconfig, wanted.server, environment)
    kept = Kept(state.with_suffix(".nodes.kubernetes"), origin) if state is not None else None
    return KubernetesNodes(Api(credentials), origin, time.monotonic, random.random, kept, here=config.node)


def reached(path: str, server: str, environment: Mapping[str, str]) -> tuple[Credentials, str]:
    """How the API server is reached, by the kubeconfig *path* or else the pod's service account; and what it is called.

    ConfigInvalid: as of `source`."""
    if path:
        credentials, origin = kubeconfig(Path(path), server), server or path
    else:
        credentials, origin = service_account(environment, server)
    return credentials, f"the Kubernetes API ({origin})"


def parts(source: NodesFile | KubernetesNodes, handles: Handles) -> Sequence[Living]:
    """What of *source* lives."""
    if isinstance(source, NodesFile):
        return []
    return [Listening(source, handles.look, handles.on_death, time.monotonic)]
