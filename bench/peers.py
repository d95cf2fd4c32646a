"""5,000 dual-stack peers: first programming next to ``ip -batch``, a pass with nothing to do, one peer more or less."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from netaddr import IPAddress, IPNetwork

from backends.site import Options, Site
from backends.static.wiring import StaticWiring
from cluster.peers import Peer
from dataplane.diff import diff
from dataplane.items import Item, Nexthop, Route
from dataplane.kernel import Kernel
from dataplane.netns import Netns
from dataplane.nft import Nft
from dataplane.observe import OnHost
from dataplane.uplink import Uplink
from demo.place import run

COUNT = 5000
LINK = "bench-up0"
UPLINK = Uplink(LINK, 1500, (IPNetwork("10.200.0.1/16"), IPNetwork("2001:db8:ffff::1/64")))


def peer(number: int) -> Peer:
    """One of many."""
    addresses = IPAddress(0x0AC80002 + number), IPAddress(f"2001:db8:ffff::{number + 2:x}")
    cidrs = IPNetwork(f"10.{number // 256}.{number % 256}.0/24"), IPNetwork(f"fd00:{number:x}::/64")
    return Peer(f"node-{number}", addresses, cidrs)


def measured(scratch: Path) -> dict[str, float]:
    """Seconds, by what was done."""
    run("ip", *f"link add {LINK} type veth peer name bench-up1".split())
    try:
        for words in (f"link set {LINK} up", "link set bench-up1 up", f"address add 10.200.0.1/16 dev {LINK}"):
            run("ip", *words.split())
        run("ip", *f"address add 2001:db8:ffff::1/64 dev {LINK} nodad".split())
        with closing(Netns()) as netns, closing(Kernel(netns, Nft())) as kernel:
            return _measured(kernel, scratch)
    finally:
        run("ip", "link", "del", LINK)


def _measured(kernel: Kernel, scratch: Path) -> dict[str, float]:
    peers = frozenset(peer(number) for number in range(COUNT))
    wiring = StaticWiring(Site(peer(0), UPLINK, Options()))
    found = {}
    started = time.perf_counter()
    whole = wiring.node(peers)
    wanted = {key: item for key, item in whole.plan.items() if isinstance(item, Nexthop | Route)}
    found["first: work out what is wanted"] = time.perf_counter() - started
    started = time.perf_counter()
    kernel.apply(diff({}, wanted))
    found["first: program"] = time.perf_counter() - started
    cpu = time.process_time()
    assert diff(kernel.observe([OnHost()]), wanted) == []
    found["a pass with nothing to do, CPU"] = time.process_time() - cpu
    for name, now in (("one peer gone", peers - {peer(7)}), ("one peer back", peers)):
        cut = time.perf_counter()
        plan = wiring.node(now).plan
        changes = [change for change in diff(whole.plan, plan) if isinstance(change.item, Nexthop | Route)]
        kernel.apply(changes)
        found[name] = time.perf_counter() - cut
        whole = whole._replace(plan=plan)
    assert diff(kernel.observe([OnHost()]), wanted) == []
    kernel.apply(diff(kernel.observe([OnHost()]), {}))
    found["ip -batch of the same"] = _batch(wanted.values(), scratch)
    kernel.apply(diff(kernel.observe([OnHost()]), {}))
    return found


def _batch(items: Iterable[Item], scratch: Path) -> float:
    lines: dict[str, list[str]] = {"-4": [], "-6": []}
    for item in items:
        if isinstance(item, Nexthop):
            lines["-6" if ":" in item.via else "-4"].append(
                str(item).replace("nexthop id", "nexthop add id") + " protocol 82"
            )
        elif isinstance(item, Route) and item.nhid:
            lines["-6" if ":" in item.dst else "-4"].append(f"route add {item.dst} nhid {item.nhid} proto 82")
    took = 0.0
    for family, words in lines.items():
        file = scratch / f"batch{family}"
        file.write_text("\n".join(words) + "\n")
        started = time.perf_counter()
        run("ip", family, "-batch", str(file))
        took += time.perf_counter() - started
    return took
