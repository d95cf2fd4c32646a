"""Nodes of a Kubernetes cluster come and go, its API server is away, a token is rotated: under traffic."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

from demo import show
from demo.cluster import Cluster, cluster, do_meet
from demo.lab import Node, eventually
from demo.run import Run
from demo.stream import RATE, Datagrams


def _is_routed(node: Node, other: Node) -> bool:
    routes = node.place.ip("route show proto 82") + node.place.ip("-6 route show proto 82")
    return any(cidr in routes for cidr in other.pod_cidrs)


def _is_told(node: Node, others: Sequence[Node]) -> bool:
    names = {one["name"] for one in node.status()["peers"]}
    return names == {one.name for one in others} and all(_is_routed(node, one) for one in others)


class Joining(Run):
    """One run."""

    def run(self) -> None:
        """Everything in order."""
        out = self.out
        out.step(f"three machines and an API server, backend {self.backend}, {self.family}; two are nodes")
        with cluster(self.backend, self.family, 3) as here, ExitStack() as running:
            *nodes, late = here.lab.nodes
            for node in nodes:
                here.api.store.put(here.told(node))
                self._start(here, node)
            self._know(nodes)
            for node in nodes:
                node.add()
            pod, other = (pod for _, pod in here.lab.pods)
            eventually("their pods reach each other", lambda: do_meet(pod, other))
            streams = [running.enter_context(Datagrams(pod, other, family)) for family in here.lab.families]
            out.line(f"from here on: {RATE} datagrams a second both ways between their pods")
            self._join(here, late)
            self._away(here)
            self._leave(here, late, nodes)
            running.close()  # what is on its way arrives first
            out.step("what was lost, and what was asked")
            lists, watches = ([one for one in here.api.requests if word in one] for word in ("limit=", "watch="))
            asked = f"{len(lists)} lists, {len(watches)} watches and {len(here.api.patches)} changes of Nodes"
            out.line(f"{asked} by four agents in all")
            out.claim("no request was refused", [str(one) for one in here.api.refusals])
            out.claim("no packet was lost", [one.losses() for one in streams if one.lost > 0])

    def _start(self, here: Cluster, node: Node) -> None:
        node.start()
        eventually(f"{node.name} has addresses", lambda: node.status()["pool"])
        self.out.line(f"{node.name}  {' '.join(node.addresses)}  pods {' '.join(node.pod_cidrs)}  agent ready")
        reason = eventually("its Node says so", lambda: here.takes_pods(node))
        self.out.line(f"{node.name}  its Node says NetworkUnavailable=False ({reason}), and has no taint any more")

    def _know(self, nodes: Sequence[Node]) -> None:
        """Wait until these nodes, and no others, know each other, and have routes to each other's pods."""
        for node in nodes:
            others = [one for one in nodes if one is not node]
            eventually(f"{node.name} knows the others", partial(_is_told, node, others))

    def _join(self, here: Cluster, late: Node) -> None:
        self.out.step(f"{late.name} joins: kubelet registers it, the controller manager gives it pod CIDRs later")
        whole = here.told(late)
        here.api.store.put({**whole, "spec": {}})
        first = here.lab.nodes[0]
        told = eventually("it is told", lambda: first.status()["problems"])
        self.out.line(f"{first.name} says: {told[0]['msg']}: {told[0]['details']}")
        here.api.store.put(whole)
        self._start(here, late)
        self._know(here.lab.nodes)
        pod = late.add()
        first_pod = here.lab.nodes[0].pods[0]
        eventually("its pod is reached", lambda: do_meet(first_pod, pod))
        self._reach(here)

    def _away(self, here: Cluster) -> None:
        first = here.lab.nodes[0]
        self.out.step(f"the API server goes away; {first.name}'s agent is killed and started anew meanwhile")
        here.api.leave()
        first.stop(signal.SIGKILL)
        first.launch()
        first.await_ready()
        first.add()
        self.out.line(f"a pod was added on {first.name}: its agent goes on with the list that it knew last")
        self._reach(here)
        self.out.step("it comes back, and takes another token only")
        here.rotate(2)
        before = here.api.watching
        here.api.come_back()
        eventually("all watch again", lambda: here.api.watching >= before + len(here.lab.nodes))
        self.out.line("all agents watch again")

    def _leave(self, here: Cluster, late: Node, nodes: Sequence[Node]) -> None:
        self.out.step(f"{late.name} leaves: kubectl delete node")
        here.api.store.delete(late.name)
        self._know(nodes)
        for node in nodes:
            eventually(f"{node.name} has no route to its pods", lambda node=node: not _is_routed(node, late))
        self.out.line("the others have no route to its pods any more")

    def _reach(self, here: Cluster) -> None:
        for family in here.lab.families:
            faults = show.matrix(self.out, *show.ends(here.lab, family), show.reachability(here.lab, family))
            self.out.claim(f"every pod is reached by its own address, IPv{family}", faults)
