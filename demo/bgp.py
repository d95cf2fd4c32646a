"""``make demo BACKEND=bgp``: a rack whose nodes announce their pods to its router, by real BIRDs at both ends."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from demo import show
from demo.lab import Family, Lab, Node, eventually
from demo.speaking import ASN, TOR, Router, pid_of, rack, sessions, socket_of
from demo.stream import RATE, Datagrams
from demo.text import Printer

NODES: Final = 3
_PATIENCE: Final = 60.0


class Bgp:
    """One run; prints to *out*."""

    def __init__(self, family: Family, out: Printer) -> None:
        self._family: Family = family
        self._out = out

    def run(self) -> None:
        """Everything in order."""
        out = self._out
        out.step(f"a rack: {NODES} nodes (AS {ASN}), each on a segment of its own below one router (AS {TOR})")
        out.line("each a network namespace of this machine; an agent and a BIRD on every node, a BIRD on the router,")
        out.line("which knows nothing of pods but what the nodes tell it, and an outside machine behind it")
        with rack(self._family, NODES, {"bfd": "graceful"}) as (lab, router):
            before = [show.census(node) for node in lab.nodes]
            for node in lab.nodes:
                node.start()
                node.add()
                out.line(f"{node.name}  {' '.join(node.addresses)}  pods {' '.join(node.pod_cidrs)}  agent ready")
            self._sessions(lab, router)
            for family in lab.families:
                out.step(f"reachability, IPv{family}, TCP and UDP: who sends (rows) to which pod (columns)")
                faults = show.matrix(out, *show.ends(lab, family), show.reachability(lab, family))
                out.claim("every pod is reached by its own address and sees the sender's own: no NAT, no proxy", faults)
            self._restarts(lab)
            self._drain(lab)
            self._end(lab, before)

    def _sessions(self, lab: Lab, router: Router) -> None:
        self._out.step("sessions: what routablectl status says on each node, and what the router has in its kernel")
        for node in lab.nodes:
            eventually(f"{node.name} has its sessions", lambda node=node: self._is_settled(lab, node), _PATIENCE)
        rows = [
            (node.name, one["peer"], str(one["asn"]), one["state"], *(self._sum(one[word]) for word in _WORDS))
            for node in lab.nodes
            for one in node.status()["bgp"]["sessions"]
        ]
        self._out.table(("NODE", "ROUTER", "AS", "STATE", "RECEIVED", "ANNOUNCED"), rows)
        for line in router.place.ip(f"-{lab.families[0]} route show proto 12").splitlines():
            self._out.line(f"router   {line.strip()}")
        for line in lab.nodes[0].ctl("bgp", "check").splitlines():
            self._out.line(f"check    {line}")

    @staticmethod
    def _sum(numbers: dict[str, int]) -> str:
        return str(sum(numbers.values()))

    @staticmethod
    def _is_settled(lab: Lab, node: Node) -> bool:
        found = node.status().get("bgp", {}).get("sessions", [])
        heard = sum(number for one in found for number in one["received"].values())
        return bool(found) and heard >= len(lab.families) * (len(lab.nodes) - 1)

    def _restarts(self, lab: Lab) -> None:
        node = lab.nodes[0]
        before = pid_of(socket_of(node))
        self._out.step(f"{RATE} datagrams a second both ways; BIRD of {node.name}, process {before}, is killed (-9)")
        with self._flowing(lab):
            os.kill(before, signal.SIGKILL)
            self._wait("another BIRD has the sessions", lambda: self._are_up(lab, node))
        self._out.line(f"process {pid_of(socket_of(node))} now; the router waited for it: graceful restart")
        self._out.step(f"the same, and the agent of {node.name} is killed (-9) and started again")
        since = {name: one.since for name, one in sessions(socket_of(node)).items()}
        with self._flowing(lab):
            node.stop(signal.SIGKILL)
            node.start()
        after = {name: one.since for name, one in sessions(socket_of(node)).items()}
        self._out.claim("its sessions went on", [] if since == after else [f"since {since}, then {after}"])

    def _are_up(self, lab: Lab, node: Node) -> bool:
        found = sessions(socket_of(node)).values()
        return len(found) == len(lab.families) and all(one.is_up for one in found)

    def _wait(self, what: str, is_so: Callable[[], bool]) -> None:
        started = time.monotonic()
        eventually(what, is_so, _PATIENCE)
        self._out.line(f"{what} after {time.monotonic() - started:.1f} s")

    @contextmanager
    def _flowing(self, lab: Lab) -> Iterator[None]:
        pods = lab.pods[0][1], lab.pods[-1][1]
        with ExitStack() as running:
            streams = [running.enter_context(Datagrams(*pods, family)) for family in lab.families]
            yield
        sent = sum(stream.sent for stream in streams)
        self._out.claim(f"of {sent} datagrams none was lost", [one.losses() for one in streams if one.lost])

    def _drain(self, lab: Lab) -> None:
        node = lab.nodes[-1]
        self._out.step(f"routablectl drain on {node.name}, before it would go down, and back")
        for words in (("drain",), ("drain", "--undo")):
            self._out.line(node.ctl(*words).strip())
            is_there = words[-1] == "--undo"
            missing = [cidr for cidr in node.pod_cidrs if not self._has_come(lab, cidr, is_there=is_there)]
            self._out.claim(f"the router has {'its routes again' if is_there else 'no route to its pods'}", missing)

    @staticmethod
    def _has_come(lab: Lab, cidr: str, *, is_there: bool) -> bool:
        version = 6 if ":" in cidr else 4

        def is_so() -> bool:
            return (cidr in lab.fabric.ip(f"-{version} route show proto 12")) == is_there

        return bool(eventually(f"{cidr} there: {is_there}", is_so, _PATIENCE))

    def _end(self, lab: Lab, before: list[dict[str, int]]) -> None:
        self._out.step("DEL of every pod, then routablectl uninstall, which ends BIRD: what is left")
        for node in lab.nodes:
            for pod in list(node.pods):
                node.delete(pod)
            node.stop()
            self._out.line(f"{node.name}  {node.ctl('uninstall').splitlines()[0]}")
        gone = [show.census(node) for node in lab.nodes]
        pairs = zip(lab.nodes, before, gone, strict=True)
        faults = [f"{node.name}: {was} before, {now} now" for node, was, now in pairs if was != now]
        faults += [f"{node.name}: BIRD is there" for node in lab.nodes if socket_of(node).exists()]
        self._out.claim("nothing is left, neither routes nor processes", faults)


_WORDS: Final = ("received", "announced")
