"""Keys of a network configuration that are not ours, though they mean something to other plugins.

Whoever writes ``"mtu": 1400`` means it. So a key that another plugin knows is refused by name, with what to write
instead; one that nobody knows changes nothing, and is said to. What always holds: a key that has the value of its
absence (false, 0, "", null, an empty list or object) is not judged. Pure.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, Final

from cni.errors import FieldUnsupported

KNOWN: Final = frozenset(
    (
        *("cniVersion", "name", "type", "args", "capabilities", "dns", "prevResult", "runtimeConfig", "defaultRoute"),
        # Of the list as a whole, not of a plugin; some runtimes pass them on.
        *("cniVersions", "disableCheck", "disableGC", "loadOnlyInlinedPlugins", "plugins"),
    )
)
"""Keys that the specification, or this plugin, gives a meaning."""

_ADDRESSES: Final = "addresses come from the node's pod CIDRs, by its agent: see the list of nodes"
_NO_BRIDGE: Final = "there is no bridge: each pod has a link of its own, is routed, and reaches itself"
_NO_PARENT: Final = "pods have links of their own: the agent's configuration says by which link other nodes are reached"
_DATASTORE: Final = "the agent knows the nodes: see its configuration"
_CHAIN: Final = "add the plugin {} to the list, after this one, and put it there"

_REMEDIES: Final[Mapping[str, str]] = {
    "mtu": "set mtu in the agent's configuration, for all pods of the node alike",
    "ipMasq": "set [masquerade], or aws.snat, in the agent's configuration",
    **dict.fromkeys(("ipMasqBackend", "snat", "snatBackend", "externalSetMarkChain"), "see [masquerade] there"),
    **dict.fromkeys(
        (*("ipam", "subnet", "subnets", "ranges", "rangeStart", "rangeEnd", "gateway", "gw", "podCidr"), "addresses"),
        _ADDRESSES,
    ),
    **dict.fromkeys(("routes", "addroutes", "delroutes", "flushroutes"), "a pod has default routes alone, or none"),
    **dict.fromkeys(("ips", "ip"), "ask for it as runtimeConfig.ips, with the capability ips"),
    "mac": "ask for it as runtimeConfig.mac, with the capability mac",
    **dict.fromkeys(
        (
            *("bridge", "isGateway", "isDefaultGateway", "forceAddress", "hairpinMode", "promiscMode", "vlan"),
            *("vlanTrunk", "preserveDefaultVlan", "macspoofchk", "enabledad", "portIsolation", "uplinkInterface"),
            "disableContainerInterface",
        ),
        _NO_BRIDGE,
    ),
    **dict.fromkeys(("master", "mode", "linkInContainer", "vlanId", "device", "hwaddr", "pciBusID"), _NO_PARENT),
    **dict.fromkeys(("delegate", "delegates", "subnetFile", "dataDir"), "nothing is delegated to other plugins"),
    **dict.fromkeys(
        ("policy", "kubernetes", "datastore_type", "etcd_endpoints", "nodename", "log_level", "log_file_path"),
        _DATASTORE,
    ),
    **dict.fromkeys(("vethPrefix", "podSGEnforcingMode", "pluginLogFile", "pluginLogLevel"), _DATASTORE),
    **dict.fromkeys(("vni", "vxlanId", "port", "backend"), "set it in the agent's configuration"),
    **dict.fromkeys(("ingressRate", "ingressBurst", "egressRate", "egressBurst"), _CHAIN.format("bandwidth")),
    **dict.fromkeys(("sysctl", "promisc", "allmulti", "txQLen"), _CHAIN.format("tuning")),
    **dict.fromkeys(("conditionsV4", "conditionsV6", "markMasqBit"), _CHAIN.format("portmap")),
    "vrfname": _CHAIN.format("vrf"),
}

_CAPABILITIES: Final[Mapping[str, str]] = {
    "portMappings": "give this capability to portmap, which comes after this plugin",
    "bandwidth": "give this capability to bandwidth, which comes after this plugin",
    "ipRanges": _ADDRESSES,
    **dict.fromkeys(("deviceID", "infinibandGUID", "aliases"), "take it out of this plugin's capabilities"),
}
_SERVED: Final = frozenset(("ips", "mac"))


def refuse(document: Mapping[str, Any], runtime: Mapping[str, Any]) -> None:
    """Raise FieldUnsupported for what another plugin would act upon: a key of the configuration *document*, or a
    capability that a runtime was asked for, in its *runtime* (``runtimeConfig``)."""
    ipam = document.get("ipam")
    if isinstance(ipam, dict):
        document = {**document, "ipam": None, **{f"ipam.{key}": value for key, value in ipam.items()}}
    for where, given, remedies in (("", document, _REMEDIES), ("runtimeConfig.", runtime, _CAPABILITIES)):
        for key, value in given.items():
            remedy = remedies.get(key, _ADDRESSES if key.startswith("ipam.") else "")
            if value and remedy:
                raise FieldUnsupported(f"{where}{key} is {_shown(value)}, which this plugin does not take", remedy)


def ignored(document: Mapping[str, Any], runtime: Mapping[str, Any]) -> tuple[str, ...]:
    """What changes nothing here, and perhaps was meant to: keys that nobody gives a meaning. Those of somebody's own
    name space (``example.com/key``) and comments (``_comment``) are not meant for a plugin."""
    return (
        *_unknown(document, KNOWN | _REMEDIES.keys()),
        *(f"runtimeConfig.{key}" for key in _unknown(runtime, _SERVED)),
    )


def _unknown(given: Mapping[str, Any], known: Container[str]) -> list[str]:
    return [key for key, value in given.items() if value and key not in known and "/" not in key and key[:1] != "_"]


def _shown(value: object) -> str:
    text = ascii(value) if not isinstance(value, str) or not value.isprintable() else f"'{value}'"
    return text if len(text) <= 80 else f"{text[:80]}…"
