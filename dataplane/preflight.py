"""What this machine lacks, by name and with the remedy, found out before anything is changed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from dataplane import routemsg
from dataplane.items import Addr, Nexthop, NftTable, Plan, Route, Sysctl
from dataplane.netlink import Socket
from dataplane.nft import Nft
from dataplane.refusal import translated
from dataplane.settings import PROC_SYS

_CAPABILITIES: Final = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}


def missing(
    plan: Plan, nft: Nft, effective: Callable[[], int] | None = None, settings: Path = PROC_SYS
) -> list[str]:
    """One sentence for each thing that *plan*, a node's, needs and this machine does not have.

    *effective* answers the process's effective capabilities as a bit mask; the sysctls are below *settings*.
    KernelRefused, TryAgain: it could not be found out.
    """
    with translated("find out what this machine lacks"):
        return _missing(plan, nft, effective or _effective, settings)


def _missing(plan: Plan, nft: Nft, effective: Callable[[], int], settings: Path) -> list[str]:
    found = _capabilities(effective())
    if found:
        return found  # without them nothing else can be judged
    items = list(plan.values())
    found += [_nexthops()] if any(isinstance(item, Nexthop) for item in items) else []
    found += [_ipv6(settings)] if any(_is_ipv6(item) for item in items) else []
    found += [_table(nft, item) for item in items if isinstance(item, NftTable)]
    found += [_sysctl(item, settings) for item in items if isinstance(item, Sysctl) and not item.link]
    return [sentence for sentence in found if sentence]


def _capabilities(mask: int) -> list[str]:
    lacking = [name for name, bit in _CAPABILITIES.items() if not mask >> bit & 1]
    return [f"the capability {name}: run the agent as root, or grant it" for name in lacking]


def _effective() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def _nexthops() -> str:
    with closing(Socket()) as sock:
        try:
            sock.dump(routemsg.RTM_GETNEXTHOP, routemsg.NHMSG.pack(0, 0, 0, 0), lambda body: body)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            return f"nexthop objects in the kernel ({error.strerror}): use Linux 5.3 or newer"
    return ""


def _ipv6(settings: Path) -> str:
    if not (settings / "net/ipv6/conf/all/disable_ipv6").exists():
        return "IPv6 in the kernel, which the pods' CIDRs need: remove ipv6.disable=1 from its command line"
    return ""


def _is_ipv6(item: object) -> bool:
    return (isinstance(item, Route) and ":" in item.dst) or (isinstance(item, Addr) and ":" in item.address)


def _table(nft: Nft, table: NftTable) -> str:
    why = nft.check(table)
    if not why:
        return ""
    remedy = "install the package nftables; its kernel modules are nf_tables, nft_fib_inet, nft_chain_nat, nft_masq"
    return f"nftables, for the table {table.family} {table.name} ({why}): {remedy}"


def _sysctl(item: Sysctl, settings: Path) -> str:
    path = settings / item.path
    if os.access(path, os.W_OK) or (path.exists() and path.read_text().strip() == item.value):
        return ""
    remedy = "set it on the machine, or see paths.sysctls"
    return f"the sysctl {item.path} = {item.value}: {path} cannot be written here; {remedy}"
