"""Pods of two clusters that reach each other, and a load balancer that reaches both, by the pods' own addresses."""

from __future__ import annotations

import ipaddress
from contextlib import ExitStack
from typing import Final

from demo import show
from demo.balancer import RATE, Balancer, Requests, Web
from demo.clusters import OUTSIDE, Cluster, Clusters, Other, clusters
from demo.lab import Family, Node, eventually
from demo.place import Failed
from demo.runtime import Pod
from demo.text import Printer

_WHILE: Final = RATE
"""How many requests are answered before the next thing happens: a second's."""


class Between:
    """One run; *other* is the backend of the second cluster, the first one's is bgp."""

    def __init__(self, other: Other, family: Family, out: Printer) -> None:
        self._other: Other = other
        self._family: Family = family
        self._out = out
        self._webs: dict[str, tuple[Node, Pod, Web]] = {}

    def run(self) -> None:
        """Everything in order."""
        out = self._out
        out.step(f"two clusters of two nodes behind one spine (FRR), backends bgp and {self._other}, {self._family}")
        with clusters(self._other, self._family) as here, ExitStack() as running:
            for cluster in here.clusters:
                self._start(here, cluster)
            for family in here.families:
                self._reach(here, family)
            self._path(here)
            balancer = Balancer(here.outside, OUTSIDE[here.families[0]], here.directory / "haproxy")
            running.callback(balancer.end)
            running.callback(self._end_webs)
            self._serve(here, balancer)
            with Requests(here.outside, balancer.address) as requests:
                self._while(requests)
                self._servers(balancer, requests)
                self._move(here, balancer, requests)
                self._drain(here, balancer, requests)
            self._tell(here, requests)
            self._overlap(here)

    def _start(self, here: Clusters, cluster: Cluster) -> None:
        said = f"announced from AS {cluster.asn}" if cluster.backend == "bgp" else "static routes on the spine"
        for node in cluster.lab.nodes:
            node.start()
            for _ in range(1 + (node is cluster.lab.nodes[0])):
                node.add()
        for node in cluster.lab.nodes:
            known = f"the spine knows the pods of {node.name}"
            eventually(known, lambda node=node: all(_is_known(here, cidr) for cidr in node.pod_cidrs))
            ranges = " ".join(node.pod_cidrs)
            self._out.line(f"{cluster.name}: {node.name}  {' '.join(node.addresses)}  pods {ranges}  {said}")

    def _reach(self, here: Clusters, family: int) -> None:
        self._out.step(f"reachability, IPv{family}, TCP and UDP: pods of both clusters and the outside machine")
        pods = [
            show.End(f"{cluster.name}/{node.name}/pod{number}", pod.place, pod.address(family))
            for cluster in here.clusters
            for node in cluster.lab.nodes
            for number, pod in enumerate(node.pods, 1)
        ]
        senders = [*pods, show.End("outside", here.outside, OUTSIDE[family])]
        faults = show.matrix(self._out, senders, pods, show.reached(senders, pods, {}))
        claim = "pods of both clusters reach each other by their own addresses, and see the sender's own: no NAT"
        self._out.claim(claim, faults)

    def _path(self, here: Clusters) -> None:
        first, last = (cluster.lab.nodes[0] for cluster in here.clusters)
        family = here.families[0]
        target = last.pods[0].address(family)
        self._out.step(f"one packet's way: {first.name}/pod1 to {last.name}/pod1")
        for node, place in ((first.name, first.place), ("spine", here.spine.place), (last.name, last.place)):
            way = place.ip(f"route get {target}").splitlines()[0]
            self._out.line(f"{node:8} {' '.join(way.split())}")

    # --- the load balancer --------------------------------------------------------------------------------------------

    def _serve(self, here: Clusters, balancer: Balancer) -> None:
        self._out.step(f"a load balancer (HAProxy) outside has pods of both as servers; {RATE} requests a second")
        balancer.start()
        for cluster in here.clusters:
            for node in cluster.lab.nodes:
                self._web(here, balancer, node, node.pods[0])

    def _web(self, here: Clusters, balancer: Balancer, node: Node, pod: Pod) -> None:
        label = f"{node.name}-{pod.place.name.rpartition('-')[2]}"
        web = Web(label, pod.place, pod.address(here.families[0]))
        self._webs[label] = (node, pod, web)
        balancer.add(web)

    def _move(self, here: Clusters, balancer: Balancer, requests: Requests) -> None:
        first, last = here.clusters[0].lab.nodes
        self._out.step(f"a pod moves from {first.name} to {last.name}: the new one first, then the old one leaves")
        self._web(here, balancer, last, last.add())
        label, (node, pod, web) = next((key, one) for key, one in self._webs.items() if one[0] is first)
        web.is_leaving = True
        eventually(f"{label} gets no more requests", lambda: not balancer.is_up(web))
        balancer.remove(web)
        web.end()
        node.delete(pod)
        del self._webs[label]
        self._while(requests)
        self._servers(balancer, requests)

    def _drain(self, here: Clusters, balancer: Balancer, requests: Requests) -> None:
        node = here.clusters[0].lab.nodes[1]
        self._out.step(f"routablectl drain on {node.name}, whose pods serve still: nobody told the load balancer")
        self._out.line(node.ctl("drain").strip())
        gone = [web for on, _, web in self._webs.values() if on is node]
        for web in gone:
            eventually(f"{web.label} is down", lambda web=web: not balancer.is_up(web))
        self._while(requests)
        self._servers(balancer, requests)
        self._out.step(f"routablectl drain --undo on {node.name}")
        self._out.line(node.ctl("drain", "--undo").strip())
        for web in gone:
            eventually(f"{web.label} is up", lambda web=web: balancer.is_up(web))
        self._while(requests)
        self._servers(balancer, requests)

    def _while(self, requests: Requests) -> None:
        """Until so many more requests were answered."""
        before = requests.answered.total()
        eventually("requests are answered", lambda: requests.answered.total() >= before + _WHILE)

    def _servers(self, balancer: Balancer, requests: Requests) -> None:
        rows = [(name, state, str(requests.answered[name])) for name, state in sorted(balancer.states().items())]
        self._out.table(("SERVER", "HEALTH", "ANSWERED"), rows)

    def _tell(self, here: Clusters, requests: Requests) -> None:
        self._out.step("what failed")
        number = requests.answered.total()
        self._out.line(f"{number} requests were answered, the slowest within {requests.slowest:.2f} s")
        self._out.claim(f"{number} requests, and none failed", requests.failed)
        own = {OUTSIDE[here.families[0]]}
        others = [f"{key} sees {web.seen}" for key, (_, _, web) in self._webs.items() if web.seen != own]
        self._out.claim("each pod sees the load balancer's own address", others)

    # --- what overlaps ------------------------------------------------------------------------------------------------

    def _overlap(self, here: Clusters) -> None:
        node, other = here.clusters[0].lab.nodes[0], here.clusters[1].lab.nodes[0]
        taken = _half(node.pod_cidrs[0])
        self._out.step(f"somebody gives a node of {here.clusters[1].name} a range within that of {node.name}: {taken}")
        here.spine.place.ip(f"route add {taken} via {other.addresses[0]}")
        try:
            told = eventually("it is told", lambda: _told(node, taken))
        except Failed as error:
            told = ""
            self._out.line(str(error))
        for line in told.splitlines():
            self._out.line(line)
        self._out.claim("its status names the range, and who announces it", [] if taken in told else ["it does not"])

    def _end_webs(self) -> None:
        for _, _, web in self._webs.values():
            web.end()


def _is_known(here: Clusters, cidr: str) -> bool:
    version = 6 if ":" in cidr else 4
    return cidr in here.spine.place.ip(f"-{version} route show")


def _half(cidr: str) -> str:
    """The upper half of a range."""
    return str(list(ipaddress.ip_network(cidr).subnets())[1])


def _told(node: Node, words: str) -> str:
    """What the status says that has these *words*; '' for nothing."""
    found = (f"{one['msg']}: {one['details']}" for one in node.status()["problems"])
    return next((one for one in found if words in one), "")
