"""``make demo BACKEND=aws-eni``: pods with addresses of a VPC, on the interfaces of their nodes. EC2 is emulated."""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Iterator
from typing import Final

from cni.errors import TryAgain
from demo import show, traffic
from demo.lab import Node, eventually
from demo.place import Place
from demo.runtime import Pod, Refused
from demo.show import End
from demo.text import Printer
from demo.vpc import CIDR, OUTSIDE, SUBNET, Vpc, built, nodeport

PODS: Final = 8
"""Per node: a t3.medium has five addresses for pods on each of its three interfaces, so eight are on two of them."""
SETTINGS: Final = {"aws": {"mode": "address", "warm_addresses": 1, "shrink_delay": 1.0}, "ipam": {"cooldown": 1.0}}

_PROGRESS = 15.0
"""Seconds between two lines of what takes long."""


class Aws:
    """One run on two nodes; prints to *out*."""

    def __init__(self, out: Printer) -> None:
        self._out = out

    def run(self) -> None:
        """Everything in order."""
        out = self._out
        out.step(f"two nodes (t3.medium) in a VPC, {CIDR}, subnet {SUBNET}, and a machine outside of it")
        out.line("EC2 and the instance metadata are EMULATED: strict models, asked over HTTP. Kernel, packets, agents")
        out.line("and boto3 are real: the VPC is a router namespace that delivers to interfaces what EC2 says is")
        out.line("theirs, and drops what leaves one with a source that is not its own.")
        with built(settings=SETTINGS) as vpc:
            for node in vpc.nodes:
                out.line(f"{node.name}  {vpc.instances[node.name]}  {vpc.nic(node, 0).address}  agent ready")
            self._add(vpc)
            self._calls(vpc)
            self._reach(vpc)
            self._nodeport(vpc)
            self._repair(vpc)
            self._kill(vpc)
            self._delete(vpc)

    def _add(self, vpc: Vpc) -> None:
        self._out.step(f"ADD: {PODS} pods per node; the sixth needs another interface, made and wired meanwhile")
        rows = []
        for node in vpc.nodes:
            for number in range(1, PODS + 1):
                started = time.perf_counter()
                pod = node.add()
                took = time.perf_counter() - started
                index, nic = self._of(vpc, node, pod)
                where = (pod.addresses[0], f"ens{5 + index}", nic)
                rows.append((node.name, f"pod{number}", *where, f"{took * 1e3:.0f} ms"))
        self._out.table(("NODE", "POD", "ADDRESS", "INTERFACE", "ENI", "TOOK"), rows)

    @staticmethod
    def _of(vpc: Vpc, node: Node, pod: Pod) -> tuple[int, str]:
        for nic in vpc.region.attached(vpc.instances[node.name]):
            if nic.attachment and any(pod.addresses[0] == str(block.ip) for block in nic.blocks):
                return nic.attachment.index, nic.id
        return -1, "none"

    def _calls(self, vpc: Vpc) -> None:
        self._out.step("what EC2 was asked")
        show.calls(self._out, vpc.region.calls)

    def _reach(self, vpc: Vpc) -> None:
        self._out.step("reachability, TCP and UDP: who sends (rows) to which pod (columns), by node and interface")
        receivers = [end for node in vpc.nodes for end in self._ends(vpc, node)]
        senders = [*receivers, End("outside", vpc.outside, OUTSIDE)]
        before = vpc.router.dropped()
        faults = show.matrix(self._out, senders, receivers, show.reached(senders, receivers, {}))
        self._out.claim("every pod is reached by its own address and sees the sender's own: no overlay, no NAT", faults)
        dropped = vpc.router.dropped() - before
        astray = [f"{dropped} did not"] if dropped else []
        self._out.claim("every packet left by the interface that has its source", astray)

    def _ends(self, vpc: Vpc, node: Node) -> Iterator[End]:
        seen = set()
        for pod in node.pods:
            index, _ = self._of(vpc, node, pod)
            if index not in seen:
                seen.add(index)
                yield End(f"{node.name[5:]}/ens{5 + index}", pod.place, pod.addresses[0])

    def _nodeport(self, vpc: Vpc) -> None:
        node = vpc.nodes[0]
        nic, pod = vpc.nic(node, 1), node.pods[0]
        self._out.step(f"a NodePort: {OUTSIDE} asks {nic.address}:30080, interface 1; the pod is on 0")
        faults = []
        with nodeport(vpc, node, 1, f"{pod.addresses[0]}:8080") as entrance:
            try:
                seen = traffic.answered(vpc.outside, pod.place, entrance, 8080)
                way = f"the answer left by {nic.address}'s interface, as conntrack remembers"
                self._out.line(f"the pod saw {seen}; {way}")
            except OSError as error:
                faults.append(str(error))
        self._out.claim("the reply found its way back by the interface that the question came in on", faults)

    def _repair(self, vpc: Vpc) -> None:
        node = vpc.nodes[0]
        self._out.step("somebody flushes the rules, as a restart of systemd-networkd does")
        before = _rules(node)
        for line in before:
            self._out.line(line)
        started = time.perf_counter()
        node.place.ip("rule flush")
        for priority, table in ((0, "local"), (32766, "main"), (32767, "default")):
            node.place.ip(f"rule add priority {priority} lookup {table}")
        eventually("the rules are back", lambda: _rules(node) == before)
        took = time.perf_counter() - started
        self._out.line(f"back after {took * 1e3:.0f} ms")
        self._out.claim("what was broken is mended within 2 s", [f"{took:.1f} s"] if took > 2 else [])

    def _kill(self, vpc: Vpc) -> None:
        node = vpc.nodes[0]
        self._out.step("the agent dies (SIGKILL) the moment it has asked EC2 for more, and starts again")
        agent = node.agent
        assert agent is not None

        def on_call(is_after: bool) -> None:
            if is_after and asked() > before and agent.poll() is None:
                agent.send_signal(signal.SIGKILL)
                agent.wait()

        def asked() -> int:
            more = ("CreateNetworkInterface", "AssignPrivateIpAddresses")
            return sum(vpc.region.calls[action, ""] for action in more)

        before = asked()
        vpc.region.on_call = on_call
        interrupted: Place | None = None
        while agent.poll() is None and len(node.pods) < 15 and interrupted is None:
            place = node.pod_place()
            try:
                node.pods.append(node.runtime.add(place.name, place))
            except Refused as refused:
                if refused.code != TryAgain.code:
                    raise
                interrupted = place
                self._out.line("an ADD was under way: the runtime is told to try again (code 11), and does afterwards")
            time.sleep(0.2)
        vpc.region.on_call = lambda is_after: None
        agent.wait(10)
        left = [nic.id for nic in vpc.region.nics.values() if nic.attachment is None]
        self._out.line(f"left behind at that moment: {', '.join(left) or 'nothing'}")
        node.launch()
        node.await_ready()
        if interrupted is not None:
            node.pods.append(node.runtime.add(interrupted.name, interrupted))
        eventually("EC2 and the agent agree", lambda: not self._disagreement(vpc, node), patience=30)
        self._out.claim("the new process knew of it, and went on: nothing leaked", self._disagreement(vpc, node))

    def _disagreement(self, vpc: Vpc, node: Node) -> list[str]:
        status = node.status()
        offered = {(one["owner"], one["block"]) for one in status["pool"]}
        nics = vpc.region.attached(vpc.instances[node.name])
        faults = [f"under way: {one}" for one in status["cloud"]["under_way"]]
        faults += [f"{nic.id} is attached nowhere" for nic in vpc.region.nics.values() if nic.attachment is None]
        true = {(nic.id, str(block)) for nic in nics for block in nic.blocks}
        return faults + [f"{owner} {block} is only on one side" for owner, block in offered ^ true]

    def _delete(self, vpc: Vpc) -> None:
        self._out.step("DEL of every pod: what is idle goes back to the VPC, and whole interfaces with it")
        for node in vpc.nodes:
            for pod in list(node.pods):
                node.delete(pod)

        self._out.line("an interface stays for a minute after its last change: EC2's answers may be as old")
        told = [0.0]

        def is_calm() -> bool:
            passed = time.perf_counter() - started
            if passed - told[0] > _PROGRESS:
                told[0] = passed
                self._out.line(f"{len(vpc.region.nics)} interfaces are left after {passed:.0f} s")
            blocks = sum(len(nic.blocks) for nic in vpc.region.nics.values())
            return len(vpc.region.nics) == blocks == len(vpc.nodes)

        started = time.perf_counter()
        eventually("one address per node is left", is_calm, patience=180)
        self._out.line(f"after {time.perf_counter() - started:.1f} s each node has one interface and one warm address")
        faults = list(itertools.chain.from_iterable(self._disagreement(vpc, node) for node in vpc.nodes))
        self._out.claim("EC2 has what the agents know, and nothing else", faults)


def _rules(node: Node) -> list[str]:
    return sorted(line.replace("\t", " ") for line in node.place.ip("rule").splitlines() if "proto 82" in line)
