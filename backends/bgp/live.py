"""The speaker of this machine: what it is made of here, and its end."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from backends.bgp.files import files
from backends.bgp.process import Bird
from backends.bgp.seen import Md5
from backends.bgp.speaker import Speaker
from backends.bgp.table import BgpTable
from backends.descriptor import Handles, Means
from cni.errors import ConfigInvalid, TryAgain
from dataplane import learned

_NETSTAT: Final = Path("/proc/thread-self/net/netstat")


class InKernel:
    """`backends.bgp.speaker.Kernel` of the namespace that the calling thread is in."""

    def networks(self) -> Collection[str]:
        """See there."""
        return [one.network for one in learned.learned()]

    def forget(self) -> int:
        """See there."""
        return learned.forget(learned.learned())


def speaker(backend: str, table: BgpTable, means: Means, handles: Handles) -> Speaker:
    """The part of *backend* that lives."""
    return Speaker(
        backend=backend,
        table=table,
        bird=Bird(table, means.node),
        kernel=InKernel(),
        around=handles.around,
        pods=lambda: means.usage.addresses() if any(one.size == 1 for one in table.announce) else (),
        is_drained=files(table).drained.exists,
        md5=lambda: md5(_NETSTAT.read_text()),
        on_death=handles.on_death,
        clock=time.monotonic,
    )


def remove(table: BgpTable, node: str) -> Iterator[str]:
    """End the node's BIRD, and take its routes away: what was done, in lines."""
    bird = Bird(table, node)
    try:
        bird.mark()
    except ConfigInvalid as failure:
        yield f"left alone: {failure}"
        return
    except TryAgain:
        if bird.has_ended():
            gone = InKernel().forget()
            if gone:
                yield f"removed {gone} routes of BIRD's"
            return
        files(table).clear()
        bird.kill()
    else:
        bird.stop()
    yield f"ended BIRD, process {bird.pid}"
    yield f"removed {InKernel().forget()} routes of BIRD's"


def md5(netstat: str) -> Md5:
    """What /proc/net/netstat says of digests."""
    rows = [line.split() for line in netstat.splitlines() if line.startswith("TcpExt:")]
    counts = dict(zip(rows[0], rows[1], strict=False)) if len(rows) >= 2 else {}
    return Md5(*(int(counts.get(f"TCPMD5{word}", 0)) for word in ("NotFound", "Failure", "Unexpected")))
