"""The instance metadata service, version 2 (IMDSv2): what the instance is, and which interfaces it has.

It costs no API calls, and answers while EC2 does not; it lags behind by seconds. A token is asked for before anything
else, and renewed when it is refused.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from netaddr import IPAddress, IPNetwork

from backends.aws.calls import Lost
from backends.aws.model import PRIMARY, Eni, Seen

ENDPOINT: Final = "http://169.254.169.254"
"""Unless AWS_EC2_METADATA_SERVICE_ENDPOINT says another, as for every AWS client."""
_TTL: Final = 21600
_TIMEOUT: Final = 2.0
_MACS: Final = "latest/meta-data/network/interfaces/macs/"


class Imds:
    """At *endpoint*, a URL. One thread calls."""

    def __init__(self, endpoint: str = ENDPOINT) -> None:
        self._host = urlsplit(endpoint).netloc
        self._token = ""

    def look(self) -> Seen:
        """All that an agent wants to know. Lost: there was no whole answer."""
        try:
            document = json.loads(self._get("latest/dynamic/instance-identity/document"))
            macs = [line.strip("/") for line in self._get(_MACS).split()]
            primary = self._get("latest/meta-data/mac")
            enis = tuple(self._eni(mac) for mac in macs)
            of_primary = f"{_MACS}{primary}/"
            if not any(one.index == PRIMARY for one in enis):
                raise LookupError("it does not show the primary interface")
            return Seen(
                instance=document["instanceId"],
                type=document["instanceType"],
                region=document["region"],
                zone=document["availabilityZone"],
                vpc=self._get(f"{of_primary}vpc-id"),
                networks=tuple(map(IPNetwork, self._lines(f"{of_primary}vpc-ipv4-cidr-blocks"))),
                enis=enis,
                subnets={one.subnet: IPNetwork(self._get(f"{_MACS}{one.mac}/subnet-ipv4-cidr-block")) for one in enis},
                groups=tuple(self._lines(f"{of_primary}security-group-ids")),
            )
        except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
            raise Lost("IMDS", type(error).__name__, f"{self._host}: {error}") from error

    def _eni(self, mac: str) -> Eni:
        at = f"{_MACS}{mac}/"
        own, *more = self._lines(f"{at}local-ipv4s")
        blocks = [*more, *self._lines(f"{at}ipv4-prefix"), *self._lines(f"{at}ipv6-prefix")]
        return Eni(
            id=self._get(f"{at}interface-id"),
            mac=mac,
            subnet=self._get(f"{at}subnet-id"),
            address=IPAddress(own),
            index=int(self._get(f"{at}device-number")),
            blocks=frozenset(map(IPNetwork, blocks)),
        )

    def _lines(self, path: str) -> list[str]:
        """The words at *path*; none where there is nothing."""
        try:
            return self._get(path).split()
        except LookupError:
            return []

    def _get(self, path: str) -> str:
        for _ in range(2):
            if not self._token:
                ttl = {"X-aws-ec2-metadata-token-ttl-seconds": str(_TTL)}
                self._token = self._asked("PUT", "latest/api/token", ttl)[1]
            status, text = self._asked("GET", path, {"X-aws-ec2-metadata-token": self._token})
            if status != http.client.UNAUTHORIZED:
                break
            self._token = ""
        if status == http.client.NOT_FOUND:
            raise LookupError(f"/{path} is not there")
        if status != http.client.OK:
            raise ValueError(f"/{path} answered {status}")
        return text

    def _asked(self, method: str, path: str, headers: Mapping[str, Any]) -> tuple[int, str]:
        connection = http.client.HTTPConnection(self._host, timeout=_TIMEOUT)
        try:
            connection.request(method, f"/{path}", headers=dict(headers))
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()
