"""One call of the plugin, from its environment and standard input to a value that needs no further checking.

SPEC.md 1.1.0 of containernetworking/cni, "Parameters", "Request configuration", and CONVENTIONS.md for what runtimes
ask of a plugin besides. What always holds: any bytes whatever become a `Call` or raise one `Failure` that names the
variable or key. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from netaddr import AddrFormatError, IPAddress

from cni import keys, result
from cni.errors import ConfigInvalid, EnvironmentInvalid, Undecodable, VersionUnsupported
from cni.frame import Request
from cni.result import Result
from cni.spec import IFNAME_MAX, NAME, VERSIONS, Attachment, Verb

NETWORK_MAX: Final = 80
"""Characters of a network's name: with the container's id it must fit into a link's alias of 255 bytes."""
CONTAINER_MAX: Final = 100
"""Characters of a container's id; runtimes use 64."""
PATH_MAX: Final = 4095
"""Bytes of a path, its NUL not counted (limits.h)."""
VALID_ATTACHMENTS: Final = "cni.dev/valid-attachments"

_SINCE: Final = {Verb.CHECK: "0.4.0", Verb.GC: "1.1.0", Verb.STATUS: "1.1.0"}
"""The version of the specification that brought a verb."""
_SHOWN: Final = 80
_MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.ASCII)
_VERSION: Final = re.compile(rb'"cniVersion"[ \t\r\n]*:[ \t\r\n]*"([0-9.]{1,16})"')
_IFNAME: Final = re.compile(r"[^\s/:%\x00-\x1f\x7f]+")
"""Of a name with "%" the kernel makes another."""
_NO_IFNAMES: Final = frozenset((".", "..", "all", "default"))
"""Directories beside the links' in /proc/sys: the kernel takes none of them for the name of a link."""
_KNOWN_ARGS: Final = frozenset(
    ("IgnoreUnknown", "IP", "MAC", "K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_INFRA_CONTAINER_ID", "K8S_POD_UID")
)


@dataclass(frozen=True, slots=True)
class Call:
    """What a runtime asks. Fields that a verb does not have are '', (), {} or None.

    *version* is the configuration's ``cniVersion``, in which the answer is written; *args* are CNI_ARGS; *pod* is
    "namespace/name" where Kubernetes calls. *ips* and *mac* are what is asked for the pod's end, *dns* is to be passed
    on, *prev* the result of the plugins before (of the ADD, in CHECK). *valid*, of GC, are the attachments to keep:
    container id and interface name. *ignored*, of ADD, are keys of the configuration that change nothing;
    *has_default_route*: the interface shall be the pod's way to everywhere, unless it has one.
    """

    verb: Verb
    version: str
    network: str = ""
    container: str = ""
    ifname: str = ""
    netns: str = ""
    args: Mapping[str, str] = field(default_factory=dict)
    ips: tuple[IPAddress, ...] = ()
    mac: str = ""
    dns: Mapping[str, object] = field(default_factory=dict)
    prev: Result | None = None
    valid: frozenset[tuple[str, str]] | None = None
    ignored: tuple[str, ...] = ()
    has_default_route: bool = True

    @property
    def attachment(self) -> Attachment:
        """The specification's primary key."""
        return Attachment(self.network, self.container, self.ifname)

    @property
    def pod(self) -> str:
        """The pod, as "namespace/name"; '' without Kubernetes."""
        name = self.args.get("K8S_POD_NAME", "")
        return f"{self.args.get('K8S_POD_NAMESPACE', '')}/{name}" if name else ""

    @property
    def uid(self) -> str:
        """Which pod of that name it is; '' without Kubernetes, and from runtimes that do not say."""
        return self.args.get("K8S_POD_UID", "")


def parse(request: Request) -> Call:
    """The call that *request* is.

    Raises:
        EnvironmentInvalid: a CNI_* variable; Undecodable: standard input is no JSON object; VersionUnsupported;
        ConfigInvalid, FieldUnsupported: a key of the configuration.
    """
    verb = _verb(request)
    if verb is Verb.VERSION:
        return Call(verb, asked_version(request.stdin))
    if verb in (Verb.GC, Verb.STATUS):
        document = _document(request)
        version = _version(document, verb)
        valid = _valid(document) if verb is Verb.GC else None
        return Call(verb, version, _network(document), valid=valid)
    container, ifname = _container(request), _ifname(request)
    netns = _netns(request, is_required=verb is not Verb.DEL)
    args = _args(request, is_strict=verb is Verb.ADD)
    document = _document(request)
    version, network = _version(document, verb), _network(document)
    if verb is Verb.DEL:
        # A DEL has to succeed: what it does not need it does not judge.
        return Call(verb, version, network, container, ifname, netns, args)
    if verb is Verb.CHECK:
        if document.get("prevResult") is None:
            raise ConfigInvalid("prevResult is missing", "CHECK is given the result of the ADD (SPEC.md, CHECK)")
        return Call(verb, version, network, container, ifname, netns, args, prev=_prev(document))
    runtime = _object(document, "runtimeConfig")
    keys.refuse(document, runtime)
    return Call(
        verb,
        version,
        network,
        container,
        ifname,
        netns,
        args,
        _ips(document, args),
        _mac(document, args),
        _object(document, "dns"),
        _prev(document),
        ignored=keys.ignored(document, runtime),
        has_default_route=_flag(document, "defaultRoute"),
    )


def asked_version(stdin: bytes) -> str:
    """What VERSION answers as cniVersion: the input's. It is found by its text, whatever the rest is, exactly as the
    executable does without an agent (``relay.version``), so that the answer does not depend on one."""
    at = stdin.find(b'"cniVersion"')
    found = _VERSION.match(stdin, at) if at >= 0 else None
    return found[1].decode() if found is not None else VERSIONS[-1]


def version_for_error(request: Request) -> str:
    """The cniVersion of an error document for *request*: its configuration's where that is one of ours."""
    try:
        version = msgspec.json.decode(request.stdin, type=_Versioned).cniVersion
    except (msgspec.DecodeError, ValueError, RecursionError):
        version = ""
    return version if version in VERSIONS else VERSIONS[-1]


class _Versioned(msgspec.Struct):
    cniVersion: str = ""  # noqa: N815 - the specification's spelling


# --- the environment --------------------------------------------------------------------------------------------------


def _verb(request: Request) -> Verb:
    text = _variable(request, "CNI_COMMAND")
    try:
        return Verb(text)
    except ValueError as error:
        raise EnvironmentInvalid(f"CNI_COMMAND is {_shown(text)}", f"allowed: {', '.join(Verb)}") from error


def _variable(request: Request, name: str) -> str:
    try:
        return request.env.get(name, b"").decode()
    except UnicodeDecodeError as error:
        raise EnvironmentInvalid(f"{name} is not UTF-8: {request.env[name][:_SHOWN]!r}") from error


def _required(request: Request, name: str) -> str:
    value = _variable(request, name)
    if not value:
        raise EnvironmentInvalid(f"{name} is missing", "the verb needs it (SPEC.md, Parameters)")
    return value


def _container(request: Request) -> str:
    value = _required(request, "CNI_CONTAINERID")
    if len(value) > CONTAINER_MAX or not NAME.fullmatch(value):
        raise EnvironmentInvalid(
            f"CNI_CONTAINERID is {_shown(value)}",
            f"allowed: at most {CONTAINER_MAX} letters, digits, '_', '.' and '-', a letter or digit first",
        )
    return value


def _ifname(request: Request) -> str:
    value = _required(request, "CNI_IFNAME")
    if len(value.encode()) > IFNAME_MAX or value in _NO_IFNAMES or not _IFNAME.fullmatch(value):
        raise EnvironmentInvalid(
            f"CNI_IFNAME is {_shown(value)}",
            f"allowed: 1 to {IFNAME_MAX} bytes without '/', ':', '%' and white space, less 'all' and 'default'",
        )
    return value


def _netns(request: Request, *, is_required: bool) -> str:
    value = (_required if is_required else _variable)(request, "CNI_NETNS")
    if value and (not value.startswith("/") or len(value.encode()) > PATH_MAX or not value.isprintable()):
        raise EnvironmentInvalid(
            f"CNI_NETNS is {_shown(value)}", f"allowed: an absolute path of at most {PATH_MAX} bytes"
        )
    return value


def _args(request: Request, *, is_strict: bool) -> dict[str, str]:
    text = _variable(request, "CNI_ARGS")
    found: dict[str, str] = {}
    for pair in text.split(";"):
        name, equals, value = pair.partition("=")
        if equals:
            found[name] = value
        elif pair and is_strict:
            raise EnvironmentInvalid(f"CNI_ARGS holds {_shown(pair)}", "allowed: NAME=VALUE, separated by ';'")
    unknown = [name for name in found if name not in _KNOWN_ARGS]
    if unknown and is_strict and found.get("IgnoreUnknown", "").lower() not in ("1", "t", "true"):
        raise EnvironmentInvalid(
            f"CNI_ARGS holds {_shown(unknown[0])}, which is not known here",
            "put IgnoreUnknown=1 into CNI_ARGS to have it ignored",
        )
    return found


# --- the configuration ------------------------------------------------------------------------------------------------


def _document(request: Request) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(request.stdin)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Undecodable("standard input is not JSON", str(error) or type(error).__name__) from error
    if not isinstance(document, dict):
        raise Undecodable("standard input is not a JSON object", f"it is {_shown(document)}")
    return document


def _version(document: Mapping[str, Any], verb: Verb) -> str:
    version = _string(document, "cniVersion")
    if version not in VERSIONS:
        # A configuration without it is of version 0.1.0 (SPEC.md 0.2.0).
        given = _shown(version) if version else "missing"
        raise VersionUnsupported(f"cniVersion is {given}", f"allowed: {', '.join(VERSIONS)}")
    first = _SINCE.get(verb, VERSIONS[0])
    if VERSIONS.index(version) < VERSIONS.index(first):
        raise VersionUnsupported(f"cniVersion {version} has no {verb}", f"it came with {first}")
    return version


def _network(document: Mapping[str, Any]) -> str:
    name = _string(document, "name")
    if not name:
        raise ConfigInvalid("name is missing", "a network configuration has one")
    if len(name) > NETWORK_MAX or not NAME.fullmatch(name):
        raise ConfigInvalid(
            f"name is {_shown(name)}",
            f"allowed: at most {NETWORK_MAX} letters, digits, '_', '.' and '-', a letter or digit first",
        )
    return name


def _prev(document: Mapping[str, Any]) -> Result | None:
    value = document.get("prevResult")
    return result.decode(value) if value is not None else None


def _valid(document: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
    """An empty list may come as null: Go writes one that was never made so."""
    if VALID_ATTACHMENTS not in document:
        raise ConfigInvalid(f"{VALID_ATTACHMENTS} is missing", "GC without it would delete every attachment")
    value = document[VALID_ATTACHMENTS]
    if not isinstance(value, list | None):
        raise ConfigInvalid(f"{VALID_ATTACHMENTS} is {_shown(value)}, not a list", "it says what is to be kept")
    found = set()
    for index, one in enumerate(value or ()):
        where = f"{VALID_ATTACHMENTS}[{index}]"
        if not isinstance(one, dict):
            raise ConfigInvalid(f"{where} is {_shown(one)}", "allowed: an object with containerID and ifname")
        pair = _string(one, "containerID", f"{where}.containerID"), _string(one, "ifname", f"{where}.ifname")
        if not all(pair):
            raise ConfigInvalid(f"{where} is {_shown(one)}", "it needs both containerID and ifname")
        found.add(pair)
    return frozenset(found)


def _ips(document: Mapping[str, Any], args: Mapping[str, str]) -> tuple[IPAddress, ...]:
    """CONVENTIONS.md: the capability "ips", else ``args.cni.ips``, else the older IP= of CNI_ARGS."""
    for where, value in (
        ("runtimeConfig.ips", _object(document, "runtimeConfig").get("ips")),
        ("args.cni.ips", _object(_object(document, "args"), "cni", "args.cni").get("ips")),
        ("IP in CNI_ARGS", [text for text in args.get("IP", "").split(",") if text]),
    ):
        if value:
            if not isinstance(value, list):
                raise ConfigInvalid(f"{where} is {_shown(value)}", "allowed: a list of addresses")
            found = tuple(_address(one, where) for one in value)
            if len({address.version for address in found}) < len(found):
                raise ConfigInvalid(f"{where} is {_shown(value)}", "allowed: one address per family")
            return found
    return ()


def _address(value: object, where: str) -> IPAddress:
    try:
        # The prefix length that some runtimes add says nothing here: a pod's address stands alone.
        text = value.partition("/")[0] if isinstance(value, str) else ""
        return IPAddress(text, flags=0) if re.search(r"[.:]", text) else IPAddress("")
    except (AddrFormatError, ValueError) as error:
        raise ConfigInvalid(f"{where} holds {_shown(value)}", "allowed: addresses such as 10.1.2.3") from error


def _mac(document: Mapping[str, Any], args: Mapping[str, str]) -> str:
    """CONVENTIONS.md: the capability "mac", else ``args.cni.mac``, else the older MAC= of CNI_ARGS."""
    arguments = _object(_object(document, "args"), "cni", "args.cni")
    for where, value in (
        ("runtimeConfig.mac", _string(_object(document, "runtimeConfig"), "mac", "runtimeConfig.mac")),
        ("args.cni.mac", _string(arguments, "mac", "args.cni.mac")),
        ("MAC in CNI_ARGS", args.get("MAC", "")),
    ):
        if value:
            mac = value.lower().replace("-", ":")
            if not _MAC.fullmatch(mac) or int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
                raise ConfigInvalid(f"{where} is {_shown(value)}", "allowed: a unicast address, as 0a:58:0a:01:02:03")
            return mac
    return ""


def _object(document: Mapping[str, Any], key: str, where: str = "") -> Mapping[str, Any]:
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigInvalid(f"{where or key} is {_shown(value)}", "allowed: an object")
    return value


def _flag(document: Mapping[str, Any], key: str) -> bool:
    value = document.get(key)
    if not isinstance(value, bool | None):
        raise ConfigInvalid(f"{key} is {_shown(value)}", "allowed: true or false")
    return value is not False


def _string(document: Mapping[str, Any], key: str, where: str = "") -> str:
    value = document.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ConfigInvalid(f"{where or key} is {_shown(value)}", "allowed: a string")
    return value


def _shown(value: object) -> str:
    """*value* for a message: what cannot be printed escaped, and cut where it is long."""
    text = ascii(value) if not isinstance(value, str) or not value.isprintable() else f"'{value}'"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"
