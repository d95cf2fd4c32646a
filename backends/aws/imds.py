"""The instance metadata service, version 2 (IMDSv2): what the instance is, and which interfaces it has.

It costs no API calls, and answers while EC2 does not; it lags behind by seconds. A token is asked for before anything
else, and kept for as long as it works. What always holds: an answer that is not one (an error page, a redirect, half
of it, words of another kind) is never taken for one, and nothing of it is kept.
"""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

import msgspec
from netaddr import AddrFormatError, IPAddress, IPNetwork

from backends.aws.model import Eni, Seen
from backends.cloud.failures import Lost
from backends.cloud.web import Web, fit

ENDPOINT: Final = "http://169.254.169.254"
"""Unless AWS_EC2_METADATA_SERVICE_ENDPOINT says another, as for every AWS client."""
_TTL: Final = 21600
_TOKEN: Final = re.compile(r"[A-Za-z0-9+/=_.\-]{1,4096}")
_MAC: Final = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
_NAME: Final = re.compile(r"[a-z]+-[0-9a-z]+")
_MACS: Final = "latest/meta-data/network/interfaces/macs/"


class _Identity(msgspec.Struct, frozen=True, rename="camel"):
    """What is read of the instance identity document."""

    instance_id: str
    instance_type: str
    region: str
    availability_zone: str


class Imds:
    """At *endpoint*, a URL; *clock* answers seconds. One thread calls."""

    def __init__(self, endpoint: str = ENDPOINT, clock: Callable[[], float] = time.monotonic) -> None:
        self._web = Web(urlsplit(endpoint).netloc, clock)
        self._token = ""

    def look(self) -> Seen:
        """All that an agent wants to know. Lost: there was no whole answer."""
        try:
            return self._seen()
        except (OSError, http.client.HTTPException, ValueError, LookupError, AddrFormatError) as error:
            raise Lost("IMDS", type(error).__name__, f"{self._web.host}: {error}") from error

    def _seen(self) -> Seen:
        text = self._get("latest/dynamic/instance-identity/document")
        try:
            document = msgspec.json.decode(text, type=_Identity)
        except msgspec.DecodeError as error:
            raise ValueError(f"the instance identity document: {error}") from error
        macs = [fit(_MAC, word.strip("/"), "the list of interfaces") for word in self._get(_MACS).split()]
        enis = tuple(map(self._eni, macs))
        primary = next((one for one in enis if one.is_primary), None)
        if primary is None:
            raise LookupError("it does not show the primary interface")
        if primary.address is None:
            raise LookupError("the primary interface has no IPv4 address, and pods shall have some of its subnet")
        at = f"{_MACS}{primary.mac}/"
        return Seen(
            instance=document.instance_id,
            type=document.instance_type,
            region=document.region,
            zone=document.availability_zone,
            vpc=self._name(f"{at}vpc-id"),
            networks=tuple(map(IPNetwork, self._get(f"{at}vpc-ipv4-cidr-blocks").split())),
            enis=enis,
            subnets=dict(pair for one in enis for pair in self._subnet(one)),
            groups=tuple(fit(_NAME, word, "its groups") for word in self._lines(f"{at}security-group-ids")),
        )

    def _eni(self, mac: str) -> Eni:
        at = f"{_MACS}{mac}/"
        addresses = [IPAddress(word) for word in self._lines(f"{at}local-ipv4s")]
        prefixes = [*self._cidrs(f"{at}ipv4-prefix"), *self._cidrs(f"{at}ipv6-prefix")]
        (card,) = self._lines(f"{at}network-card") or ["0"]
        return Eni(
            id=self._name(f"{at}interface-id"),
            mac=mac,
            subnet=self._name(f"{at}subnet-id"),
            address=addresses[0] if addresses else None,
            card=int(card),
            index=int(self._get(f"{at}device-number")),
            blocks=frozenset((*map(IPNetwork, addresses[1:]), *prefixes)),
        )

    def _subnet(self, one: Eni) -> list[tuple[str, IPNetwork]]:
        """The id and the IPv4 range of its subnet; nothing where that has none."""
        return [(one.subnet, cidr) for cidr in self._cidrs(f"{_MACS}{one.mac}/subnet-ipv4-cidr-block")]

    def _name(self, path: str) -> str:
        return fit(_NAME, self._get(path).strip(), f"/{path}")

    def _cidrs(self, path: str) -> list[IPNetwork]:
        return [*map(IPNetwork, self._lines(path))]

    def _lines(self, path: str) -> list[str]:
        """The words at *path*; none where there is nothing: not every interface has all."""
        try:
            return self._get(path).split()
        except LookupError:
            return []

    def _get(self, path: str) -> str:
        """What is at *path*. LookupError: nothing is; ValueError and others: there was no answer."""
        is_kept, token, self._token = bool(self._token), self._token or self._new_token(), ""
        status, text, _ = self._web.ask("GET", path, {"X-aws-ec2-metadata-token": token})
        if status == http.client.UNAUTHORIZED and is_kept:  # it has ended
            token = self._new_token()
            status, text, _ = self._web.ask("GET", path, {"X-aws-ec2-metadata-token": token})
        is_missing = status == http.client.NOT_FOUND
        if not is_missing and (status != http.client.OK or not text.strip()):
            raise ValueError(f"/{path} answered {status}{', and nothing' if status == http.client.OK else ''}")
        self._token = token  # it worked: what did not is forgotten
        if is_missing:
            raise LookupError(f"/{path} is not there")
        return text

    def _new_token(self) -> str:
        path = "latest/api/token"
        status, text, _ = self._web.ask("PUT", path, {"X-aws-ec2-metadata-token-ttl-seconds": str(_TTL)})
        if status != http.client.OK:
            raise ValueError(f"/{path} answered {status}")
        return fit(_TOKEN, text.strip(), f"/{path}")
