"""How the API server is reached and how it comes to believe us: service account, or kubeconfig.

What always holds: nothing is remembered. Token, client certificate and CA are read anew for every connection, so what
is rotated on disk counts from the next one on, and nothing is asked with what is out of date.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cni.errors import ConfigInvalid

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True)
class Access:
    """What one connection needs. *name* is whose certificate the server must have, *prefix* what paths begin with."""

    server: str
    host: str
    port: int
    prefix: str
    name: str
    context: ssl.SSLContext
    token: str = ""


Credentials = Callable[[], Access]
"""What holds now. ConfigInvalid: it cannot be used, and which file is to blame."""


def access(server: str, context: ssl.SSLContext, *, name: str = "", token: str = "") -> Access:
    """To the API server at the URL *server*. ConfigInvalid: that is none."""
    try:
        parts = urlsplit(server)
        host, port = parts.hostname or "", parts.port or 443
    except ValueError:
        host, port = "", 0
    if not host or parts.scheme != "https" or parts.query or parts.fragment or parts.username is not None:
        raise ConfigInvalid(f"the API server's address {server!r}", "is not a URL such as https://192.0.2.1:6443")
    return Access(server, host, port, parts.path.rstrip("/"), name or host, context, token)


def service_account(
    environment: Mapping[str, str], server: str = "", directory: Path = SERVICE_ACCOUNT
) -> tuple[Credentials, str]:
    """What a pod has of its service account, and the API server's URL. Without *server* the *environment* says where
    that is, by the address of its Service. ConfigInvalid: it does not."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST", ""), environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not server and not host:
        remedy = "give nodes.kubeconfig, or run the agent in a pod with a service account, and give nodes.server where"
        raise ConfigInvalid("KUBERNETES_SERVICE_HOST is not set", f"{remedy} Services do not work yet")
    url = server or f"https://{f'[{host}]' if ':' in host else host}:{port}"

    def now() -> Access:
        return access(url, trust(text(directory / "ca.crt")), token=token(directory / "token"))

    return now, url


def text(path: Path) -> str:
    """The content of a file of credentials. ConfigInvalid: it cannot be read."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "is not text"
        raise ConfigInvalid(f"{path}: cannot be read", f"{why}; it is needed to talk to the API server") from error


def token(path: Path) -> str:
    """The token in a file. ConfigInvalid: there is none."""
    found = text(path).strip()
    if not found or not found.isprintable() or not found.isascii() or " " in found:
        raise ConfigInvalid(f"{path}: is not a token", "it is one line, as the API server or a token request gives it")
    return found


def trust(authorities: str, origin: str = "the CA") -> ssl.SSLContext:
    """A context that believes in servers whom *authorities* (PEM) vouch for; where that is '', the system's.

    Not `ssl.create_default_context`: from Python 3.13 on it refuses CAs without key identifiers, as many clusters have.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # As Kubernetes' own clients: a cluster's CA may be one that a company's root vouches for, without that root.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        if authorities:
            context.load_verify_locations(cadata=authorities)
        else:
            context.load_default_certs()
    except (ssl.SSLError, ValueError) as error:
        why = f"{_reason(error)}; it is a PEM file of certificates"
        raise ConfigInvalid(f"{origin} cannot be used", why) from error
    return context


def identify(context: ssl.SSLContext, certificate: str, key: str, origin: str) -> None:
    """Have *context* show the client *certificate* with its *key*. ConfigInvalid: they are none, or not of each other,
    as for the moment between the two when they are replaced."""
    with ExitStack() as opened:
        try:
            # The library takes files alone. What was read is what is used, not what stands there a moment later.
            chain, private = (_in_memory(opened, one) for one in (certificate, key))
            context.load_cert_chain(chain, private, password=lambda: b"")
        except (ssl.SSLError, ValueError, OSError) as error:
            why = f"{_reason(error)}; both are PEM, the key without a password and of that certificate"
            raise ConfigInvalid(f"the client certificate of {origin} cannot be used", why) from error


def _in_memory(opened: ExitStack, content: str) -> str:
    descriptor = os.memfd_create("credentials", os.MFD_CLOEXEC)
    opened.callback(os.close, descriptor)
    os.write(descriptor, content.encode())
    return f"/proc/self/fd/{descriptor}"


def _reason(error: Exception) -> str:
    return (error.reason if isinstance(error, ssl.SSLError) else "") or str(error)
