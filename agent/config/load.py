"""Reading the agent's configuration: one TOML file, checked whole before anything is done.

What holds always: a ``Config`` that ``load`` returned needs no further checking by whoever uses it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from netaddr import IPAddress, IPNetwork

import backends
from agent.config.schema import NODE_NAME, SOCKET_MAX, Config, endpoint, keys, sections, whole
from backends.descriptor import Backend
from cluster import addresses, tomlfile
from cni.errors import ConfigInvalid

__all__ = ["Config", "load"]


def load(path: str, *, hostname: str) -> Config:
    """The configuration in the file *path*; its ``node`` is *hostname* where the file names none.

    Raises ConfigInvalid, which names file, line, key, value and what is allowed.
    """
    try:
        _, raw = tomlfile.read(Path(path))
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigInvalid(f"{path}: cannot be read", f"{why}; name the agent's configuration file") from error
    text, document = tomlfile.parse(path, raw)
    file = _File(path, text, document, whole(_concerned(document)))
    file.refuse_unknown()
    file.refuse_missing()
    config = file.convert()
    file.refuse_contradictions(config)
    file.refuse_of_backend(config, backends.load(config.backend))
    file.refuse_repeated_paths(config)
    if config.node:
        return config
    # A Node is called as kubelet calls it: the host's name in small letters.
    is_node = config.nodes.source == "kubernetes" or config.kubernetes.announce
    return msgspec.structs.replace(config, node=file.node(hostname.lower() if is_node else hostname))


def _concerned(document: Mapping[str, Any]) -> frozenset[str]:
    """The backends whose tables the file has, and the one that it chooses: no other is even looked at."""
    chosen = document.get("backend")
    return frozenset(name for name, table in backends.BACKENDS.items() if name == chosen or table in document)


def _decode(wanted: type, value: object) -> object:
    if wanted is IPNetwork and isinstance(value, str):
        return addresses.cidr(value)
    if wanted is IPAddress and isinstance(value, str):
        return addresses.address(value)
    raise ValueError("is not a string, in quotes")


class _File(NamedTuple):
    """A file being checked: what it is called, its text, its content, and what it may say."""

    path: str
    text: str
    document: dict[str, Any]
    type: type[Config]

    def wrong(self, key: str, why: str, value: object = None) -> ConfigInvalid:
        """The complaint about the dotted *key*, which may end in an index."""
        *tables, name = re.sub(r"\[\d+\]", "", key).split(".")
        several = re.search(r"\[(\d+)\]\.", key)
        nth = int(several[1]) if several else 0
        line = tomlfile.line_of(self.text, ".".join(tables), nth, name, value if isinstance(value, str) else "")
        if line is None and not tables:
            line = tomlfile.line_of(self.text, name)  # a table of that name
        is_value = "" if value is None else f" is {tomlfile.shown(value)}"
        return ConfigInvalid(f"{tomlfile.place(self.path, line)}: {key}{is_value}", why)

    def refuse_unknown(self) -> None:
        for table, section in sections(self.type):
            known = section.__struct_fields__
            for path, present in self.present(table):
                for name in present:
                    if name not in known:
                        place = f"[{table}]" if table else "the top of the file"
                        every = known if table else _all().__struct_fields__
                        why = _suggestion(table, name) or f"allowed in {place}: {', '.join(every)}"
                        raise self.wrong(f"{path}.{_bare(name)}".lstrip("."), f"unknown key; {why}")

    def present(self, table: str) -> list[tuple[str, dict[str, Any]]]:
        """What the file has of *table*, each with its dotted path: there may be several of one."""
        found = [("", self.document)]
        for name in filter(None, table.split(".")):
            found = [inner for path, one in found for inner in _below(path, one, name)]
        return found

    def refuse_missing(self) -> None:
        chosen = self.document.get("backend")
        nodes = self.document.get("nodes", {})
        has_list = chosen not in tuple(backends.BACKENDS) or backends.load(str(chosen)).needs_nodes
        has_list = has_list and not (isinstance(nodes, dict) and nodes.get("source", "file") != "file")
        for key, one in keys(self.type).items():
            table, _, name = key.rpartition(".")
            is_needed = one.default is msgspec.NODEFAULT or (key == "nodes.file" and has_list)
            is_absent = "." not in table and table not in self.document and bool(table)
            for path, present in [(table, {})] if is_absent else self.present(table):
                if is_needed and name not in present:
                    where = f"{path}.{name}".lstrip(".")
                    raise ConfigInvalid(f"{self.path}: {where} is missing", f"it must be given: {one.allowed}")

    def convert(self) -> Config:
        try:
            return msgspec.convert(self.document, self.type, dec_hook=_decode)
        except msgspec.ValidationError as error:
            found = re.search(r" - at `\$\.([^`]*)`\Z", str(error))
            if found is None:
                raise ConfigInvalid(f"{self.path}: is not a configuration", str(error)) from error
            key = found[1]
            # Our own reader's reason (a ValueError) says more than msgspec's.
            reason = f"{error.__cause__}; " if isinstance(error.__cause__, ValueError) else ""
            schema = keys(self.type).get(re.sub(r"\[\d+\]", "", key))
            allowed = schema.allowed if schema else f"a table, [{key}]"
            raise self.wrong(key, f"{reason}allowed: {allowed}", self._value(key)) from error

    def _value(self, key: str) -> object:
        value: Any = self.document
        for step in re.findall(r"\w+", key):
            value = value[int(step)] if isinstance(value, list) else value[step]
        return value

    def refuse_contradictions(self, config: Config) -> None:
        """What the types cannot say."""
        allowed = {key: f"allowed: {one.allowed}" for key, one in keys(self.type).items()}
        if config.backend not in backends.BACKENDS:
            near = difflib.get_close_matches(config.backend, backends.BACKENDS, 1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            choice = ", ".join(f'"{one}"' for one in sorted(backends.BACKENDS))
            raise self.wrong("backend", f"allowed: {choice}{hint}", config.backend)
        if 0 < config.mtu < addresses.MTU_MIN[4]:
            raise self.wrong("mtu", allowed["mtu"], config.mtu)
        if len(config.paths.socket.encode()) > SOCKET_MAX:
            raise self.wrong("paths.socket", allowed["paths.socket"], config.paths.socket)
        if config.metrics.listen:
            try:
                endpoint(config.metrics.listen)
            except ValueError as error:
                raise self.wrong("metrics.listen", allowed["metrics.listen"], config.metrics.listen) from error
        for key in ("kubeconfig", "server") if config.nodes.source == "file" else ("file",):
            if getattr(config.nodes, key):
                raise self.wrong(f"nodes.{key}", f'is not for nodes.source = "{config.nodes.source}"')
        if config.cni.template and not config.cni.conflist:
            raise self.wrong("cni.template", "needs cni.conflist, where the agent is to write what it makes of it")
        if config.kubernetes.advertise_capacity and not config.kubernetes.announce:
            raise self.wrong("kubernetes.advertise_capacity", "needs kubernetes.announce = true")

    def refuse_of_backend(self, config: Config, backend: Backend[Any]) -> None:
        """What *backend* makes impossible."""
        if config.masquerade.enabled and backend.instead_of_masquerade:
            raise self.wrong("masquerade.enabled", f"is not for {backend.name}: use {backend.instead_of_masquerade}")
        if config.kubernetes.advertise_capacity and not backend.has_pod_cidrs:
            why = f"is not for {backend.name}, whose addresses become more and fewer: give kubelet its --max-pods"
            raise self.wrong("kubernetes.advertise_capacity", why)
        for one in map(backends.load, sorted(_concerned(self.document))):
            for wrong in one.contradictions(config.of(one)):
                raise self.wrong(*wrong)
        if config.masquerade.enabled and not config.masquerade.routable:
            why = "is empty while masquerade.enabled is true; list at least the pods' own ranges"
            raise self.wrong("masquerade.routable", f"{why}, or pods would not see each other's addresses")

    def refuse_repeated_paths(self, config: Config) -> None:
        """Each path is of one thing."""
        taken: dict[str, str] = {}
        for key in ("paths.socket", "paths.state", "paths.spool", "nodes.file", "cni.conflist", "cni.template"):
            section, name = key.split(".")
            value = getattr(getattr(config, section), name)
            if value and value in taken:
                raise self.wrong(key, f"is also {taken[value]}; allowed: a path of its own", value)
            taken[value] = key

    def node(self, hostname: str) -> str:
        """*hostname*, if it can be a node's name."""
        if not re.fullmatch(NODE_NAME, hostname, re.ASCII):
            why = f"this machine's name {tomlfile.shown(hostname)} cannot stand in for it; set node"
            raise ConfigInvalid(f"{self.path}: node is not given", why)
        return hostname


def _all() -> type[Config]:
    return whole(frozenset(backends.BACKENDS))


def _below(path: str, table: dict[str, Any], name: str) -> list[tuple[str, dict[str, Any]]]:
    inner, where = table.get(name), f"{path}.{name}".lstrip(".")
    found = [(f"{where}[{n}]", one) for n, one in enumerate(inner)] if isinstance(inner, list) else [(where, inner)]
    return [(where, one) for where, one in found if isinstance(one, dict)]


def _bare(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name, re.ASCII) else tomlfile.shown(name)


def _suggestion(table: str, name: str) -> str:
    """The key that was probably meant: a near miss in the same table first, then the same or a near name elsewhere."""
    everything = [*keys(_all()), *(f"[{section}]" for section, _ in sections(_all()) if section)]
    here = {key.rpartition(".")[2].strip("[]"): key for key in everything if key.rpartition(".")[0] == table}
    anywhere = {key.rpartition(".")[2].strip("[]"): key for key in everything}
    for choice in (here, anywhere):
        near = difflib.get_close_matches(name, choice, 1, 0.7)
        if near:
            return f"did you mean {choice[near[0]]}?"
    return ""
