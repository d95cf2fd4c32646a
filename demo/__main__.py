"""``make demo``: the main job on a cluster of three nodes, before one's eyes. Exit code 1 if a claim did not hold.

BACKEND=static|vxlan|bgp|aws-eni|gcp-alias and FAMILY=v4|v6|dual choose what is shown; SWITCH=1 changes the backend
under running pods, between the first two; K8S=1 has the nodes of an API server, which come, go, and are not always told
of; CLUSTERS=2 has two clusters behind one spine, the first with bgp, the other with static or bgp, and a load balancer.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping

from demo import isolate, show
from demo.aws import Aws
from demo.change import Change
from demo.lab import FAMILIES, Lab, built
from demo.place import Failed
from demo.run import Run
from demo.runtime import Refused
from demo.text import Printer

BACKENDS = ("static", "vxlan", "bgp", "aws-eni", "gcp-alias")
CLOUDS = ("aws-eni", "gcp-alias")
"""Of these, those whose network is a cloud's."""
PODS = 2


def main(environment: Mapping[str, str]) -> int:
    """Show it; the answer is the exit code."""
    wrong = _wrong(environment)
    if wrong:
        print(wrong, file=sys.stderr)
        return 2
    if not isolate.is_isolated():
        isolate.execute([sys.executable, "-m", "demo"])
    try:
        out = Printer()
        _run(environment, out)
        return out.conclusion()
    except (Failed, Refused) as error:
        print(f"\nfailed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted: nothing is left behind", file=sys.stderr)
        return 130


def _wrong(environment: Mapping[str, str]) -> str:
    """Why that cannot be shown; '': it can."""
    backend, family, clusters = (environment.get(name) for name in ("BACKEND", "FAMILY", "CLUSTERS"))
    others = environment.get("SWITCH") or environment.get("K8S")
    if (backend or "static") not in BACKENDS or (family or "v4") not in FAMILIES:
        return f"BACKEND is one of {', '.join(BACKENDS)}; FAMILY one of {', '.join(FAMILIES)}"
    if clusters and (clusters != "2" or others or backend not in (None, "", "static", "bgp")):
        return "CLUSTERS=2 goes with BACKEND=static or bgp, and with neither SWITCH nor K8S"
    if backend in CLOUDS and (environment.get("SWITCH") or (family or "v4") != "v4"):
        return f"BACKEND={backend} goes with neither SWITCH nor FAMILY: its addresses are the VPC's"
    if environment.get("K8S") and (backend in CLOUDS or environment.get("SWITCH")):
        return "K8S=1 goes with neither BACKEND=aws-eni nor gcp-alias, which need no list of nodes, nor SWITCH"
    if backend == "bgp" and others:
        return "BACKEND=bgp goes with neither SWITCH nor K8S: it shows a rack and its router"
    return ""


def _run(environment: Mapping[str, str], out: Printer) -> None:
    # What these need is among the packages for the tests, so not every run imports them.
    backend = environment.get("BACKEND") or "static"
    family = next(one for one in FAMILIES if one == (environment.get("FAMILY") or "v4"))
    if environment.get("CLUSTERS"):
        from demo.between import Between

        Between("bgp" if backend == "bgp" else "static", family, out).run()
    elif backend == "aws-eni":
        Aws(out).run()
    elif backend == "gcp-alias":
        from demo.gcp import Gcp

        Gcp(out).run()
    elif backend == "bgp":
        from demo.bgp import Bgp

        Bgp(family, out).run()
    elif environment.get("K8S"):
        from demo.joining import Joining

        Joining(backend, family, out).run()
    elif environment.get("SWITCH"):
        Change(backend, family, out).run()
    else:
        Demo(backend, family, out).run()


class Demo(Run):
    """One run, from the building of the lab to the proof that nothing is left of it."""

    def run(self) -> None:
        """Everything in order."""
        out = self.out
        out.step(f"three nodes on one segment and an outside machine, backend {self.backend}, {self.family}")
        out.line("each a network namespace of this machine; every node runs its own agent")
        with built(backend=self.backend, family=self.family, is_started=False) as lab:
            before = [show.census(node) for node in lab.nodes]
            for node in lab.nodes:
                node.start()
                out.line(f"{node.name}  {' '.join(node.addresses)}  pods {' '.join(node.pod_cidrs)}  agent ready")
            out.line(f"outside {' '.join(lab.outside_addresses)}")
            wired = [show.census(node) for node in lab.nodes]
            self._add(lab)
            for family in lab.families:
                self._reach(lab, family)
            self._path(lab)
            self._delete(lab, before, wired)

    def _add(self, lab: Lab) -> None:
        self.out.step(f"ADD: {PODS} pods per node, as a runtime does (CNI_* and a configuration on stdin)")
        rows = []
        for node in lab.nodes:
            for number in range(1, PODS + 1):
                place = node.pod_place()
                started = time.perf_counter()
                pod = node.runtime.add(f"pod{number}", place)
                took = time.perf_counter() - started
                node.pods.append(pod)
                link = pod.result["interfaces"][0]
                rows.append(
                    (
                        node.name,
                        f"pod{number}",
                        " ".join(pod.addresses),
                        link["name"],
                        str(link["mtu"]),
                        f"{took * 1e3:.1f} ms",
                    )
                )
        self.out.table(("NODE", "POD", "ADDRESSES", "HOST LINK", "MTU", "TOOK"), rows)

    def _reach(self, lab: Lab, family: int) -> None:
        self.out.step(f"reachability, IPv{family}, TCP and UDP: who sends (rows) to which pod (columns)")
        faults = show.matrix(self.out, *show.ends(lab, family), show.reachability(lab, family))
        self.out.claim("every pod is reached by its own address and sees the sender's own: no NAT, no proxy", faults)

    def _path(self, lab: Lab) -> None:
        first, last = lab.nodes[0], lab.nodes[-1]
        family = lab.families[0]
        source, target = (first, first.pods[0]), (last, last.pods[-1])
        self.out.step(f"one packet's way: {first.name}/pod1 to {last.name}/pod{len(last.pods)}")
        for where, what in show.hops(source, target, family):
            self.out.line(f"{where:8} {what}")

    def _delete(self, lab: Lab, before: list[dict[str, int]], wired: list[dict[str, int]]) -> None:
        self.out.step("DEL of every pod, then routablectl uninstall: what is left")
        full = [show.census(node) for node in lab.nodes]
        for node in lab.nodes:
            for pod in list(node.pods):
                node.delete(pod)
        empty = [show.census(node) for node in lab.nodes]
        for node in lab.nodes:
            node.stop()
            node.ctl("uninstall")
        gone = [show.census(node) for node in lab.nodes]
        rows = []
        for label, counts in (
            ("before the agents", before),
            ("agents, no pods", wired),
            (f"{PODS} pods per node", full),
            ("after DEL", empty),
            ("after uninstall", gone),
        ):
            rows.append((label, *("/".join(str(one[kind]) for one in counts) for kind in show.KINDS)))
        self.out.table(("OBJECTS ON EACH NODE", *(kind.upper() for kind in show.KINDS)), rows)
        self.out.claim("DEL leaves what was there without pods", _differences(lab, wired, empty))
        self.out.claim("uninstall leaves what was there before the agents", _differences(lab, before, gone))


def _differences(lab: Lab, wanted: list[dict[str, int]], found: list[dict[str, int]]) -> list[str]:
    return [
        f"{node.name}: {have[kind]} {kind} instead of {want[kind]}"
        for node, want, have in zip(lab.nodes, wanted, found, strict=True)
        for kind in show.KINDS
        if want[kind] != have[kind]
    ]


if __name__ == "__main__":
    sys.exit(main(os.environ))
