"""A kubeconfig: the server of its current context, and who we are there.

Read anew for every connection, like all that it names. What is not done is refused by name: a program that fetches
tokens would be a child of the agent's on every node; a file that is kept fresh, as kubelet keeps its own, does as well.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from cluster.access import Access, Credentials, access, identify, text, token, trust
from cni.errors import ConfigInvalid

_NOT_DONE: Final = {
    "cluster": ("insecure-skip-tls-verify", "proxy-url"),
    "user": ("exec", "auth-provider", "username", "password", "as", "as-uid", "as-groups", "as-user-extra"),
}

_ALLOWED: Final = "is not for the agent; allowed: a CA, and a token, a tokenFile or a client certificate"


def kubeconfig(path: Path, server: str = "") -> Credentials:
    """The credentials in the file *path*; *server* stands in for the address there. ConfigInvalid: what reads such a
    file is not installed."""
    try:
        import yaml
    except ImportError as error:
        remedy = "install routable[kubernetes], or PyYAML beside it"
        raise ConfigInvalid("what reads a kubeconfig, PyYAML, is not installed", remedy) from error

    def now() -> Access:
        try:
            document = yaml.safe_load(text(path))
        except yaml.YAMLError as error:
            raise ConfigInvalid(f"{path}: is not YAML", " ".join(str(error).split())) from error
        return _File(path, document if isinstance(document, dict) else {}).access(server)

    return now


class _File(NamedTuple):
    path: Path
    document: Mapping[str, Any]

    def access(self, server: str) -> Access:
        """What the file says now."""
        context = self._named("context", self._text(self.document, "current-context", is_needed=True))
        cluster = self._named("cluster", self._text(context, "cluster", is_needed=True))
        user = self._named("user", self._text(context, "user", is_needed=True))
        trusted = trust(self._content(cluster, "certificate-authority"), f"{self.path}: certificate-authority")
        certificate = self._content(user, "client-certificate")
        if certificate:
            identify(trusted, certificate, self._content(user, "client-key"), str(self.path))
        name = self._text(cluster, "tls-server-name")
        return access(
            server or self._text(cluster, "server", is_needed=True), trusted, name=name, token=self._token(user)
        )

    def _named(self, kind: str, name: str) -> Mapping[str, Any]:
        entries = self.document.get(f"{kind}s")
        for entry in entries if isinstance(entries, list) else ():
            found = entry.get(kind) if isinstance(entry, dict) and entry.get("name") == name else None
            if isinstance(found, dict):
                for key in _NOT_DONE.get(kind, ()):
                    if found.get(key):
                        raise self._wrong(f"{key} of {kind} {name!r}", _ALLOWED)
                return found
        raise self._wrong(f"{kind} {name!r}", "is not there")

    def _text(self, table: Mapping[str, Any], key: str, *, is_needed: bool = False) -> str:
        found = table.get(key, "")
        if not isinstance(found, str) or (is_needed and not found):
            raise self._wrong(key, "is missing" if found in ("", None) else "is not a string")
        return found

    def _token(self, user: Mapping[str, Any]) -> str:
        # As kubectl has it: a file, which may be rotated, before a token that stands here.
        file = self._text(user, "tokenFile")
        return token(self.path.parent / file) if file else self._text(user, "token")

    def _content(self, table: Mapping[str, Any], key: str) -> str:
        """What stands here in base64, or in the file that is named, by its path from here."""
        data = self._text(table, f"{key}-data")
        if data:
            try:
                return base64.b64decode(data, validate=True).decode()
            except (binascii.Error, UnicodeDecodeError) as error:
                raise self._wrong(f"{key}-data", "is not base64 of PEM") from error
        file = self._text(table, key)
        return text(self.path.parent / file) if file else ""

    def _wrong(self, what: str, why: str) -> ConfigInvalid:
        return ConfigInvalid(f"{self.path}: {what}", why)
