"""``make demo BACKEND=gcp-alias``: pods with addresses of a VPC, from alias ranges of their nodes. Compute Engine is
emulated."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from netaddr import IPNetwork

from cni.errors import TryAgain
from demo import show, traffic
from demo.gcpvpc import CIDR, PODS, RANGE, Vpc, Where, built
from demo.lab import Node, eventually
from demo.router import OUTSIDE
from demo.runtime import Refused
from demo.show import End
from demo.text import Printer

BURST: Final = 40
"""Pods on the first node: three ranges of 16, of which one is there."""
UPDATE: Final = "instances.updateNetworkInterface"
_OPERATION: Final = 1.0
"""Seconds that an operation takes."""


def settings(where: Where) -> Mapping[str, Any]:
    """The agents' configuration: what is idle goes back at once, and the guest agent's routes are overridden."""
    gcp = {"range": RANGE, "endpoint": where.compute, "shrink_delay": 1.0, "guest_routes": "override"}
    return {"gcp": gcp, "ipam": {"cooldown": 1.0}}


class Gcp:
    """One run on two nodes; prints to *out*."""

    def __init__(self, out: Printer) -> None:
        self._out = out

    def run(self) -> None:
        """Everything in order."""
        out = self._out
        out.step(f"two machines in a VPC, subnet {CIDR}, secondary range {RANGE} {PODS}, and one outside of it")
        out.line("Compute Engine and the metadata server are EMULATED: strict models, asked over HTTP. Kernel,")
        out.line("packets, agents and Google's library are real: the VPC is a router namespace that delivers to a")
        out.line("machine what Compute Engine says is its own, and drops what leaves it with a source that is not.")
        with built(settings=settings) as vpc:
            vpc.project.operations.running = _OPERATION
            for node in vpc.nodes:
                nic = vpc.project.instances[node.name].nic
                out.line(f"{node.name}  {nic.address}  agent ready, {self._size(node)} MB")
            self._add(vpc)
            self._reach(vpc)
            self._rule(vpc)
            self._kill(vpc)
            self._delete(vpc)

    def _add(self, vpc: Vpc) -> None:
        first, second = vpc.nodes
        self._out.step(f"ADD: a pod on {second.name}, and {BURST} at once on {first.name}: they wait for one change")
        second.add()
        before = vpc.project.calls[UPDATE, ""]
        started = time.perf_counter()
        with ThreadPoolExecutor(BURST) as pool:
            list(pool.map(lambda _: first.add(), range(BURST)))
        took = time.perf_counter() - started
        changes = vpc.project.calls[UPDATE, ""] - before
        self._out.line(f"{BURST} pods after {took:.1f} s; an operation takes {_OPERATION:g} s")
        for node in vpc.nodes:
            self._out.line(f"{node.name}  {' '.join(map(str, sorted(vpc.ranges(node))))}")
        self._out.claim(
            "a burst is met with a change or two, not one per pod", [f"{changes} changes"] if changes > 4 else []
        )
        self._out.step("what Compute Engine was asked, by a worker that has Google's library")
        show.calls(self._out, vpc.project.calls)

    @staticmethod
    def _size(node: Node) -> int:
        """Megabytes that the agent has resident."""
        assert node.agent is not None
        lines = Path(f"/proc/{node.agent.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) >> 10

    def _reach(self, vpc: Vpc) -> None:
        self._out.step("reachability, TCP and UDP: who sends (rows) to which pod (columns)")
        receivers = list(self._ends(vpc))
        senders = [*receivers, End("outside", vpc.outside, OUTSIDE)]
        before = vpc.router.dropped()
        faults = show.matrix(self._out, senders, receivers, show.reached(senders, receivers, {}))
        self._out.claim("every pod is reached by its own address and sees the sender's own: no overlay, no NAT", faults)
        dropped = vpc.router.dropped() - before
        self._out.claim("the VPC took every packet's source", [f"{dropped} not"] if dropped else [])

    def _ends(self, vpc: Vpc) -> Iterator[End]:
        for node in vpc.nodes:
            for number in {0, len(node.pods) - 1}:
                pod = node.pods[number]
                yield End(f"{node.name[5:]}/pod{number + 1}", pod.place, pod.addresses[0])

    def _rule(self, vpc: Vpc) -> None:
        node = vpc.nodes[0]
        self._out.step("somebody makes an ip rule: the guest agent's routes would have the host answer for its pods")
        node.place.ip("rule add to 192.0.2.0/24 lookup 52 priority 100")
        for one in sorted(vpc.guests[node.name].routes()):
            self._out.line(f"local {one} dev ens4 table local proto 66")
        pod, faults = node.pods[0], []
        try:
            traffic.seen_by_tcp(vpc.outside, pod.place, pod.addresses[0])
        except OSError as error:
            faults.append(str(error))
        self._out.claim("pods are reached all the same: guest_routes = override, and nothing was removed", faults)

    def _kill(self, vpc: Vpc) -> None:
        node = vpc.nodes[1]
        self._out.step("the agent dies (SIGKILL) the moment it has asked for more, and starts again")
        agent = node.agent
        assert agent is not None

        def on_call(is_after: bool) -> None:
            if is_after and vpc.project.doing[1] == UPDATE and agent.poll() is None:
                agent.kill()
                agent.wait()

        vpc.project.on_call = on_call
        interrupted = None
        while agent.poll() is None and interrupted is None and len(node.pods) < BURST:
            place = node.pod_place()
            try:
                node.pods.append(node.runtime.add(place.name, place))
            except Refused as refused:
                if refused.code != TryAgain.code:
                    raise
                interrupted = place
                self._out.line("an ADD was under way: the runtime is told to try again (code 11), and does afterwards")
        agent.wait(10)
        vpc.project.on_call = lambda is_after: None
        node.launch()
        node.await_ready()
        if interrupted is not None:
            node.pods.append(node.runtime.add(interrupted.name, interrupted))
        eventually("Google and the agent agree", lambda: not self._disagreement(vpc, node), patience=40)
        ranges = len(vpc.ranges(node))
        self._out.line(f"{node.name} has {len(node.pods)} pods and {ranges} ranges")
        faults = self._disagreement(vpc, node) + ([f"{ranges} ranges"] if ranges > len(node.pods) // 16 + 2 else [])
        self._out.claim("the new process asked for the same by the same id: nothing leaked, nothing twice", faults)

    @staticmethod
    def _disagreement(vpc: Vpc, node: Node) -> list[str]:
        status = node.status()
        offered = {IPNetwork(one["block"]) for one in status["pool"]}
        faults = [f"under way: {one}" for one in status["cloud"]["under_way"]]
        return faults + [f"{one} is only on one side" for one in offered ^ vpc.ranges(node)]

    def _delete(self, vpc: Vpc) -> None:
        self._out.step("DEL of every pod: what is idle goes back to the VPC")
        for node in vpc.nodes:
            for pod in list(node.pods):
                node.delete(pod)
        started = time.perf_counter()
        eventually("a range per node is left", lambda: all(len(vpc.ranges(node)) == 1 for node in vpc.nodes), 120)
        self._out.line(f"after {time.perf_counter() - started:.1f} s each node has one range, which is kept warm")
        eventually("nothing is under way", lambda: not any(self._disagreement(vpc, node) for node in vpc.nodes))
        faults = [one for node in vpc.nodes for one in self._disagreement(vpc, node)]
        self._out.claim("Compute Engine has what the agents know, and nothing else", faults)
