"""What the agent's configuration may say: the tables, their keys, defaults and limits.

The structs are the schema; a key's ``Meta.description`` is what a complaint says is allowed. Limits that they
cannot state are checked by ``agent.config.load``. A backend's table is in its own folder, and read only where the
file has that table or chooses that backend.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Final, Literal, NamedTuple, cast, get_args, get_origin

import msgspec
from msgspec import Meta

import backends
from backends.descriptor import Backend, S
from backends.section import Cidr, Flag, Section
from cluster import addresses

SOCKET_MAX: Final = 107
"""Bytes of a unix socket's path: sun_path less its NUL (unix(7))."""

Listen = Annotated[
    str, Meta(description='"address:port" with an IP address, IPv6 in brackets, and a port from 1 to 65535; "" is off')
]
AbsolutePath = Annotated[str, Meta(pattern=r"\A/[^\x00-\x1f\x7f]*\Z", description="an absolute path")]
FilePath = Annotated[
    str, Meta(pattern=r"\A/[^\x00-\x1f\x7f]*[^/\x00-\x1f\x7f]\Z", description="an absolute path, of a file")
]
OptionalPath = Annotated[str, Meta(pattern=r"\A(/[^\x00-\x1f\x7f]*)?\Z", description="an absolute path")]
Server = Annotated[str, Meta(pattern=r"\A(https://[!-~]+)?\Z", description="a URL such as https://192.0.2.1:6443")]
_LABEL: Final = r"[a-z0-9]([a-z0-9\-]{0,61}[a-z0-9])?"
_DOMAIN: Final = rf"{_LABEL}(\.{_LABEL})*/"
_WORD: Final = r"[A-Za-z0-9]([A-Za-z0-9_.\-]{0,61}[A-Za-z0-9])?"
QUALIFIED_NAME: Final = rf"({_DOMAIN})?{_WORD}"
"""A qualified name of Kubernetes: a label's key, or a taint's."""
EXTENDED_RESOURCE: Final = rf"(?!([^/]*\.)?kubernetes\.io/)(?!requests\.){_DOMAIN}{_WORD}"
"""The name of a resource that is not Kubernetes' own."""
SocketPath = Annotated[
    str, Meta(pattern=r"\A/[^\x00-\x1f\x7f]*\Z", description=f"an absolute path of at most {SOCKET_MAX} bytes")
]
NODE_NAME: Final = r"[a-zA-Z0-9][a-zA-Z0-9_.\-]{0,252}"
"""SPEC.md's characters for a name, and the length of a DNS name (RFC 1123)."""

NodeName = Annotated[
    str,
    Meta(
        pattern=rf"\A({NODE_NAME})?\Z",
        description="at most 253 letters, digits, dots, dashes and underscores, a letter or digit first",
    ),
]
# dev_valid_name() of the kernel, in ASCII; and a node's own link called rt… would be taken for a pod's.
LinkName = Annotated[
    str,
    Meta(
        pattern=r"\A((?!rt)(?!\.\.?\Z)[!-.0-9;-~]{1,15})?\Z",
        description='1 to 15 characters without "/" and ":", not beginning with "rt" as the links of pods do',
    ),
]
Mtu = Annotated[
    int,
    Meta(
        ge=0,
        le=65535,
        description="0 (the uplink's less the overhead) or 576 to 65535, from 1280 where pods have IPv6",
    ),
]

class IpamTable(Section, frozen=True):
    """Which address a pod gets."""

    cooldown: Annotated[float, Meta(ge=0, le=3600, description="seconds, 0 to 3600")] = 30.0


class NodesTable(Section, frozen=True):
    """Where the cluster's nodes are listed; for every backend that needs them."""

    source: Annotated[Literal["file", "kubernetes"], Meta(description='"file" or "kubernetes"')] = "file"
    file: AbsolutePath = ""
    kubeconfig: OptionalPath = ""
    server: Server = ""


class MasqueradeTable(Section, frozen=True):
    """Whether pods take the node's address outside the routable ranges."""

    enabled: Flag = False
    routable: Annotated[tuple[Cidr, ...], Meta(description='a list of CIDRs, such as "10.0.0.0/8"')] = ()


class CniTable(Section, frozen=True):
    """What the agent puts into the runtime's directories."""

    conflist: Annotated[
        str,
        Meta(
            pattern=r"\A(/[^\x00-\x1f\x7f]*\.conflist)?\Z",
            description='an absolute path that ends with ".conflist"; "" is none',
        ),
    ] = ""
    template: OptionalPath = ""
    executables: OptionalPath = ""


class KubernetesTable(Section, frozen=True):
    """What the agent says on this node's Node."""

    announce: Flag = False
    taint: Annotated[
        str, Meta(pattern=rf"\A({QUALIFIED_NAME})?\Z", description="a taint's key, as example.com/name; \"\" is none")
    ] = "routable.io/agent-not-ready"
    advertise_capacity: Flag = False
    capacity: Annotated[
        str, Meta(pattern=rf"\A{EXTENDED_RESOURCE}\Z", description="an extended resource, as example.com/name")
    ] = "routable.io/pod-addresses"
    kubeconfig: OptionalPath = ""
    server: Server = ""


class PathsTable(Section, frozen=True):
    """Where the agent keeps what it needs on this node."""

    socket: SocketPath = "/run/routable/agent.sock"
    state: FilePath = "/var/lib/routable/routable.db"
    spool: AbsolutePath = "/var/lib/routable/spool"
    sysctls: AbsolutePath = "/proc/sys"


class MetricsTable(Section, frozen=True):
    """Where /metrics, /healthz and /readyz are served."""

    listen: Listen = "127.0.0.1:9472"

    @property
    def endpoint(self) -> tuple[str, int] | None:
        """Address and port to listen on; None when off."""
        return endpoint(self.listen) if self.listen else None


class LogTable(Section, frozen=True):
    """What is logged, and how."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description='"debug", "info", "warning" or "error"')
    ] = "info"
    format: Annotated[Literal["text", "json"], Meta(description='"text" or "json"')] = "text"


class Config(Section, frozen=True):
    """The whole file, but for the tables of backends: see `whole`. *backend* has no default, and ``nodes.file`` must be
    given unless the backend needs no list, or the list comes from elsewhere."""

    backend: Annotated[str, Meta(description="the name of a backend")]
    nodes: NodesTable = NodesTable()
    node: NodeName = ""
    uplink: LinkName = ""
    mtu: Mtu = 0
    ipam: IpamTable = IpamTable()
    masquerade: MasqueradeTable = MasqueradeTable()
    cni: CniTable = CniTable()
    kubernetes: KubernetesTable = KubernetesTable()
    paths: PathsTable = PathsTable()
    metrics: MetricsTable = MetricsTable()
    log: LogTable = LogTable()

    def of(self, backend: Backend[S]) -> S:
        """The table of *backend*, by its defaults where the file has none."""
        found = getattr(self, backends.BACKENDS[backend.name], None)
        return found if isinstance(found, backend.table) else backend.table()


@cache
def whole(names: frozenset[str]) -> type[Config]:
    """The type of a file that has tables of the backends of these *names*."""
    tables = {backends.BACKENDS[name]: backends.load(name).table for name in backends.BACKENDS if name in names}
    fields = [(key, table, table()) for key, table in tables.items() if table.__struct_fields__]
    made = msgspec.defstruct("Whole", fields, bases=(Config,), frozen=True, forbid_unknown_fields=True, kw_only=True)
    return cast("type[Config]", made)


class FileKey(NamedTuple):
    """One key of the schema: *default* is ``msgspec.NODEFAULT`` where the file must give it."""

    allowed: str
    default: object


def sections(file: type[Config]) -> Iterator[tuple[str, type[Section]]]:
    """The tables by name; "" is the top of the file, and "a.b" one of which there can be several, [[a.b]]."""
    yield "", file
    for field in msgspec.structs.fields(file):
        if isinstance(field.type, type) and issubclass(field.type, Section):
            yield field.name, field.type
            for inner in msgspec.structs.fields(field.type):
                of_list = get_args(inner.type)[0] if get_origin(inner.type) is tuple else None
                if isinstance(of_list, type) and issubclass(of_list, Section):
                    yield f"{field.name}.{inner.name}", of_list


def keys(file: type[Config]) -> dict[str, FileKey]:
    """Every key that such a *file* may have, dotted, as in ``ipam.cooldown``."""
    found = {}
    for table, section in sections(file):
        for field in msgspec.structs.fields(section):
            if get_origin(field.type) is Annotated:
                meta = next(one for one in get_args(field.type)[1:] if isinstance(one, Meta))
                made = field.default_factory is not msgspec.NODEFAULT
                default = field.default_factory() if made else field.default
                found[f"{table}.{field.name}".lstrip(".")] = FileKey(meta.description or "", default)
    return found


def endpoint(listen: str) -> tuple[str, int]:
    """The address and port of "address:port". Raises ValueError."""
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([1-9][0-9]{0,4})", listen, re.ASCII)
    if found is None or int(found[3]) > 65535:
        raise ValueError("is not address:port")
    address = addresses.address(found[1] or found[2])
    if (address.version == 6) != bool(found[1]):
        raise ValueError("is not address:port")
    return str(address), int(found[3])
