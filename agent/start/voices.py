"""What the agent says to others by itself, as the tables [cni] and [kubernetes] have it: the parts that say it."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agent.announce.announcer import Announcer
from agent.announce.directories import Directories
from agent.announce.wishes import Wishes
from agent.config.schema import Config
from agent.keep.listening import Listening
from agent.keep.survey import Surroundings
from agent.node.ledger import Ledger
from agent.process.life import Living
from agent.start import nodes
from agent.tell.status import Status
from agent.tell.trouble import Kind, Trouble
from backends.threads import OnDeath
from cluster.access import Credentials
from cluster.apiserver import Api
from cluster.kubernetes import KubernetesNodes
from cluster.ownnode import Said, disagreement
from cluster.peers import Source
from cni import install
from cni.errors import ConfigInvalid, Failure, Limited

Problems = Callable[[], Sequence[Failure]]


@dataclass(frozen=True, slots=True)
class Voices:
    """The *parts* that speak, and of each kind what keeps it from that."""

    parts: Sequence[Living]
    problems: Sequence[tuple[Kind, Problems]]

    def troubles(self) -> list[Trouble]:
        """What could not be said."""
        return [
            Trouble(kind, Limited(one.message, one.details)) for kind, found in self.problems for one in found()
        ]


def voices(
    config: Config,
    environment: Mapping[str, str],
    source: Source,
    ledger: Ledger,
    status: Status,
    tell: Callable[[str], None],
    on_death: OnDeath,
) -> Voices:
    """What *config* wants said of how the agent is, by *status*. *source* is where the nodes are from, *tell* is told
    what was put right. ConfigInvalid: nothing says where the API server is."""
    found = []
    if config.cni.conflist or config.cni.executables:
        found.append(_to_runtime(config, ledger, status, tell, on_death))
    if config.kubernetes.announce:
        found.append(_to_kubernetes(config, environment, source, ledger, status, on_death))
    return Voices([part for one in found for part in one.parts], [problem for one in found for problem in one.problems])


def _to_runtime(
    config: Config, ledger: Ledger, status: Status, tell: Callable[[str], None], on_death: OnDeath
) -> Voices:
    directories = Directories(
        config.cni,
        can_serve=lambda: status.unable() is None,
        source=lasting(partial(executable, Path(sys.executable).parent, Path(config.paths.state).parent / "bin")),
        journal=ledger,
        tell=tell,
        on_death=on_death,
        clock=time.monotonic,
    )
    return Voices([directories], [(Kind.RUNTIME, lambda: directories.problems)])


def _to_kubernetes(
    config: Config,
    environment: Mapping[str, str],
    source: Source,
    ledger: Ledger,
    status: Status,
    on_death: OnDeath,
) -> Voices:
    parts: list[Living] = []
    problems: list[tuple[Kind, Problems]] = []
    credentials, origin = reached(config, environment)
    own = source
    if not isinstance(own, KubernetesNodes):
        clock = time.monotonic
        own = KubernetesNodes(Api(credentials), origin, clock, random.random, here=config.node, is_alone=True)
        parts.append(Listening(own, lambda: None, on_death, clock, "own node"))
        problems.append((Kind.KUBERNETES, partial(_unheard, own, config.node)))
    announcer = Announcer(
        Api(credentials),
        heard=partial(_own, own),
        wished=Wishes(config.kubernetes, status.troubles, ledger.counts, time.monotonic).now,
        clock=time.monotonic,
        wall=time.time,
        random=random.random,
        on_death=on_death,
    )
    parts.append(announcer)
    problems.append((Kind.KUBERNETES, lambda: announcer.problems))
    problems.append((Kind.KUBERNETES, lambda: _disagreeing(own.own, status.survey.now)))
    return Voices(parts, problems)


def reached(config: Config, environment: Mapping[str, str]) -> tuple[Credentials, str]:
    """How the API server is reached for what is said, and what it is called. ConfigInvalid: nothing says that."""
    table, other = config.kubernetes, config.nodes
    return nodes.reached(table.kubeconfig or other.kubeconfig, table.server or other.server, environment)


def _own(source: KubernetesNodes) -> Said | None:
    return source.own


def _disagreeing(said: Said | None, now: Surroundings | None) -> list[Failure]:
    """That this node's pods do not have what its Node says."""
    told = disagreement(said, now.site.here.pod_cidrs) if said is not None and now is not None else ""
    remedy = "kube-proxy and others go by spec.podCIDRs: have the list of nodes, or the annotation, say the same"
    return [ConfigInvalid(f"the spec.podCIDRs of this Node are {told}", remedy)] if told else []


def _unheard(source: KubernetesNodes, name: str) -> list[Failure]:
    """Why nothing is heard of this node's Node."""
    source.refresh()
    if source.error is not None:
        return [source.error]
    missing = ConfigInvalid(f"{source.origin} has no Node {name}", "set node to the Node's name")
    return [missing] if source.own is None else []


def lasting(make: Callable[[], Path]) -> Callable[[], Path]:
    """What *make* made, for as long as that is there: it takes a compiler's time."""
    made: list[Path] = []

    def there() -> Path:
        if not (made and made[0].is_file()):
            made[:] = [make()]
        return made[0]

    return there


def executable(beside: Path, scratch: Path) -> Path:
    """An executable of this version: the one that lies *beside* the agent's Python, as in an image; else it is made in
    *scratch*. ConfigInvalid: it cannot be made."""
    if (beside / install.NAME).is_file():
        return beside / install.NAME
    return install.install_with_what_is_here(scratch).path
