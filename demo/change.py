"""The change of backend under running pods: three nodes, one after the other, there and back, under traffic."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import ExitStack

from agent.commands import AT_REST, NOT_READY
from demo.lab import Lab, Node, built, eventually
from demo.run import Run
from demo.stream import RATE, Datagrams, Transfer

_ARRIVAL = 180.0
"""Seconds for the nodes to find out that all have switched."""


class Change(Run):
    """One run; *backend* is where it begins and ends."""

    @property
    def _other(self) -> str:
        return {"static": "vxlan", "vxlan": "static"}[self.backend]

    def run(self) -> None:
        """There and back."""
        out = self.out
        out.step(f"three nodes with a pod each, backend {self.backend}, {self.family}")
        with built(backend=self.backend, family=self.family) as lab:
            for node in lab.nodes:
                node.add()
                out.line(f"{node.name}  {' '.join(node.addresses)}  pod {' '.join(node.pods[0].addresses)}")
            addresses = [pod.addresses for _, pod in lab.pods]
            out.step(f"routablectl switch {self._other} --dry-run on {lab.nodes[0].name}: what would change")
            for line in lab.nodes[0].ctl("switch", self._other, "--dry-run").splitlines():
                out.line(line)
            with ExitStack() as running:
                streams, transfers = self._traffic(lab, running)
                out.step(f"from here on: {RATE} datagrams a second both ways between all pods, small and full-size")
                out.line(f"and {len(transfers)} TCP transfer from the first pod to the last")
                for backend in (self._other, self.backend):
                    for node in lab.nodes:
                        self._switch(lab, node, backend, streams)
                    self._arrive(lab, backend)
            self._tell(streams, transfers)
            stayed = [] if [pod.addresses for _, pod in lab.pods] == addresses else ["they changed"]
            self.out.claim("every pod kept its addresses and its link", stayed)

    def _traffic(self, lab: Lab, running: ExitStack) -> tuple[list[Datagrams], list[Transfer]]:
        pods = [pod for _, pod in lab.pods]
        sizes = itertools.cycle((100, 1472 if 4 in lab.families else 1452))
        streams = []
        for (sender, receiver), size in zip(itertools.combinations(pods, 2), sizes, strict=False):
            streams += [
                running.enter_context(Datagrams(sender, receiver, family, min(size, {4: 1472, 6: 1452}[family])))
                for family in lab.families
            ]
        return streams, [running.enter_context(Transfer(pods[0], pods[-1], lab.families[0]))]

    def _switch(self, lab: Lab, node: Node, backend: str, streams: Sequence[Datagrams]) -> None:
        self.out.step(f"routablectl switch {backend} on {node.name}")
        begun = node.ctl_begun("switch", backend)
        assert begun.stdout is not None
        for line in begun.stdout:
            self.out.line(line.rstrip())
        complaint = begun.stderr.read() if begun.stderr else ""
        self.out.claim("it is on its way", [] if begun.wait() in (0, NOT_READY) else [complaint])
        self._ways(lab)
        self.out.line(f"{sum(stream.sent for stream in streams)} datagrams sent so far")

    def _arrive(self, lab: Lab, backend: str) -> None:
        self.out.step(f"all nodes find that all have moved: {backend} alone")
        for node in lab.nodes:
            done = f"{node.name} has arrived"
            eventually(done, lambda node=node: node.status()["switch"]["phase"] == AT_REST, _ARRIVAL)
        self._ways(lab)

    def _ways(self, lab: Lab) -> None:
        """By what each node (rows) reaches each other's pods (columns)."""
        family = lab.families[0]
        rows = []
        for node in lab.nodes:
            cells = []
            for other in lab.nodes:
                way = node.place.ip(f"route get {other.pods[0].address(family)}") if node is not other else ""
                cells.append("-" if not way else "vxlan" if "routable-vxlan" in way else "static")
            switch = node.status()["switch"]
            state = switch["phase"] if switch["phase"] != AT_REST else f"at rest: {switch['to']}"
            rows.append((node.name, *cells, state))
        self.out.table(("REACHES BY", *(node.name for node in lab.nodes), "STATE"), rows)

    def _tell(self, streams: Sequence[Datagrams], transfers: Sequence[Transfer]) -> None:
        self.out.step("what was lost")
        rows = [
            (f"datagrams of {one.size} bytes", str(one.sent), str(one.back + one.overrun), str(one.lost))
            for one in streams
        ]
        rows += [("TCP, MB", str(one.sent >> 20), str(one.received >> 20), one.fault or "0") for one in transfers]
        self.out.table(("TRAFFIC", "SENT", "ARRIVED (AND BACK)", "LOST"), rows)
        self.out.claim("no packet was lost", [one.losses() for one in streams if one.lost])
        self.out.claim("no connection broke", [one.fault for one in transfers if one.fault])
