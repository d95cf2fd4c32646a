"""500 nodes that a test speaker announces to one: how soon their routes are in its kernel, and what that needs.

``python -m demo.isolate python -m bench.announced``. The speaker is the router of a rack, a BIRD with two static routes
for each node, dual stack; the node under test has all of them in its list, too.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from demo.lab import Lab, Node, eventually
from demo.speaking import Router, pid_of, rack, socket_of

COUNT: Final = 500
REST: Final = 30.0
"""Seconds for which nothing happens."""
_BGP: Final = {"accept": ["10.0.0.0/8", "2001:db8::/32"], "bfd": "graceful"}


def ranges(number: int) -> tuple[str, str]:
    """The pods' ranges of one of many nodes."""
    return f"10.{number // 250 + 1}.{number % 250}.0/24", f"2001:db8:{number + 0x1000:x}::/64"


def measured() -> dict[str, float]:
    """Numbers, by what they are of."""
    cidrs = [ranges(number) for number in range(COUNT)]
    said = "".join(
        f"protocol static many{family} {{ ipv{family}; "
        f"{' '.join(f'route {one[index]} unreachable;' for one in cidrs)} }}\n"
        for index, family in enumerate((4, 6))
    )
    with rack("dual", 1, _BGP, said) as (lab, router):
        (node,) = lab.nodes
        _list(lab, cidrs)
        began = time.monotonic()
        node.start()
        ready = time.monotonic()
        _until(node, 2 * COUNT)
        found = {
            "the agent's start until it serves, s": ready - began,
            "… until all routes are there, s": time.monotonic() - began,
        }
        found |= _changed(router, node)
        found |= _killed(node)
        eventually("status knows", lambda: node.status().get("bgp"))
        agent, bird = _agent(node), pid_of(socket_of(node))
        before = _processor(agent), _processor(bird)
        time.sleep(REST)
        found["at rest: the agent's processor, s a minute"] = (_processor(agent) - before[0]) * 60 / REST
        found["at rest: BIRD's processor, s a minute"] = (_processor(bird) - before[1]) * 60 / REST
        return found | {"memory of the agent, MB": _memory(agent), "memory of BIRD, MB": _memory(bird)}


def _changed(router: Router, node: Node) -> dict[str, float]:
    """All are withdrawn, and announced again."""

    def told(word: str) -> None:
        for family in (4, 6):
            router.ask(f"{word} many{family}")

    return {
        "all are withdrawn: until no route is there, s": _took(lambda: told("disable"), node, 0),
        "all are announced again, s": _took(lambda: told("enable"), node, 2 * COUNT),
    }


def _killed(node: Node) -> dict[str, float]:
    """BIRD is killed, and has all of them again; the kernel never lacks one."""
    before = pid_of(socket_of(node))
    began = time.monotonic()
    os.kill(before, signal.SIGKILL)
    least = 2 * COUNT
    while _imported(node, before) < 2 * COUNT:
        least = min(least, _routes(node))
        time.sleep(0.02)
    return {
        "BIRD is killed: until it has all again, s": time.monotonic() - began,
        "… routes meanwhile, at least": least,
    }


def _imported(node: Node, before: int) -> int:
    """How many routes another BIRD than *before* has heard."""
    bgp = node.status().get("bgp") or {}
    if bgp.get("pid") in (None, 0, before):
        return 0
    return sum(sum(one["received"].values()) for one in bgp["sessions"])


def _took(do: Callable[[], None], node: Node, number: int) -> float:
    began = time.monotonic()
    do()
    _until(node, number)
    return time.monotonic() - began


def _until(node: Node, number: int) -> None:
    eventually(f"{number} routes are there", lambda: _routes(node) == number)


def _routes(node: Node) -> int:
    """How many of the others' routes BIRD has in the kernel."""
    shown = (node.place.ip(f"-{family} route show proto 12") for family in (4, 6))
    return sum(len(text.splitlines()) for text in shown)


def _list(lab: Lab, cidrs: list[tuple[str, str]]) -> None:
    """Have the others in the list of nodes."""
    lines = [
        f'[[node]]\nname = "other-{number}"\naddresses = ["100.64.{number // 250}.{number % 250 + 1}", '
        f'"2001:db8:fffe::{number + 1:x}"]\npod_cidrs = ["{four}", "{six}"]\n'
        for number, (four, six) in enumerate(cidrs)
    ]
    path = lab.directory / "nodes.toml"
    path.write_text(path.read_text() + "\n" + "\n".join(lines))


def _agent(node: Node) -> int:
    assert node.agent is not None
    return node.agent.pid


def _processor(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


if __name__ == "__main__":
    for key, value in measured().items():
        print(f"{key:48} {value:9.2f}")
