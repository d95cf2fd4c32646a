"""``gcp-alias`` as the agent knows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from backends.descriptor import Backend, Handles, Means, Part, Provision
from backends.gcp import maxpods
from backends.gcp.table import GcpTable, contradictions, wanted
from backends.verdict import Verdict

if TYPE_CHECKING:
    from backends.site import Site
    from backends.told import Shown
    from backends.wiring import Wiring


def _wiring(site: Site, gcp: GcpTable) -> Wiring:
    from backends.gcp.wiring import AliasWiring

    return AliasWiring(site, is_overriding=gcp.guest_routes == "override")


def _supply(gcp: GcpTable, means: Means) -> Provision:
    """ConfigInvalid: the library is not installed."""
    from backends.cloud.errands import Errands
    from backends.cloud.failures import CloudError
    from backends.gcp import live, remote
    from backends.gcp.fabric import AliasFabric
    from backends.gcp.metadata import Waiting
    from dataplane import answered, uplink

    if not gcp.fixed:
        remote.refuse_without_library()
    fabric = AliasFabric(
        node=means.node,
        options=wanted(gcp),
        journal=means.journal,
        usage=means.usage,
        devices=uplink.by_mac,
        answered=answered.answered,
        clock=means.uptime,
        boot=means.boot,
        random=means.random,
        token=live.token,
    )

    def parts(handles: Handles) -> list[Part]:
        metadata = live.metadata(means.environment)
        perform = live.Live(metadata, remote.here(means.environment, gcp.endpoint)).perform
        errands = Errands(fabric.life(), perform, CloudError, handles.settle, handles.on_death)

        def changed() -> None:
            fabric.news()
            errands.wake()

        return [errands, Waiting(metadata, changed, handles.on_death)]

    return Provision(fabric, fabric.source, parts)


def _show(sections: Mapping[str, Any]) -> Shown:
    from backends.gcp.show import shown

    return shown(sections)


def _check(gcp: GcpTable, environment: Mapping[str, str]) -> Iterator[Verdict]:
    from backends.gcp.check import verdicts

    return verdicts(gcp, environment)


BACKEND: Final = Backend(
    name="gcp-alias",
    table=GcpTable,
    contradictions=contradictions,
    wiring=_wiring,
    supply=_supply,
    check=_check,
    commands=(maxpods.COMMAND,),
    show=_show,
    needs_nodes=False,
    has_pod_cidrs=False,
)
