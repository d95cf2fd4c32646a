"""``aws-eni`` as the agent knows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from backends.aws import maxpods
from backends.aws.table import AwsTable, contradictions, wanted
from backends.descriptor import Backend, Handles, Means, Part, Provision
from backends.verdict import Verdict

if TYPE_CHECKING:
    from backends.site import Site
    from backends.told import Shown
    from backends.wiring import Wiring


def _wiring(site: Site, aws: AwsTable) -> Wiring:
    from backends.aws.wiring import EniWiring

    return EniWiring(replace(site, options=replace(site.options, masquerade=aws.untranslated)))


def _supply(aws: AwsTable, means: Means) -> Provision:
    """ConfigInvalid: the library is not installed."""
    from backends.aws import live
    from backends.aws.fabric import EniFabric
    from backends.cloud.errands import Errands
    from backends.cloud.failures import CloudError
    from dataplane import uplink

    live.refuse_without_library()
    fabric = EniFabric(
        node=means.node,
        options=wanted(aws),
        journal=means.journal,
        usage=means.usage,
        devices=uplink.by_mac,
        clock=means.uptime,
        wall=means.wall,
        boot=means.boot,
        random=means.random,
        token=live.token,
    )

    def parts(handles: Handles) -> list[Part]:
        perform = live.Live(fabric, means.environment).perform
        return [Errands(fabric.life(), perform, CloudError, handles.settle, handles.on_death)]

    return Provision(fabric, fabric.source, parts)


def _show(sections: Mapping[str, Any]) -> Shown:
    from backends.cloud.report import shown

    return shown(sections)


def _check(aws: AwsTable, environment: Mapping[str, str]) -> Iterator[Verdict]:
    from backends.aws.check import verdicts

    return verdicts(environment)


BACKEND: Final = Backend(
    name="aws-eni",
    table=AwsTable,
    contradictions=contradictions,
    wiring=_wiring,
    supply=_supply,
    check=_check,
    commands=(maxpods.COMMAND,),
    show=_show,
    needs_nodes=False,
    has_pod_cidrs=False,
    instead_of_masquerade='aws.snat = "external"',
)
