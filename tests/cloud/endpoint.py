"""EC2 and the instance metadata of the emulated region over HTTP, for clients that are not ours to change."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

from tests.cloud import query
from tests.cloud.faults import ERRORS
from tests.cloud.region import NoAnswer, Refusal, Region
from tests.cloud.serving import Endpoint, Handler, Pages

PAGES: Pages = {
    "html500": (500, b"<?xml version='1.0'?>\n<html>\n<body><h1>500</h1></body>\n</html>\n", "text/html"),
    "text503": (503, b"Service Unavailable\r\n", "text/plain"),
    "throttled": (429, b"", "text/plain"),
    "unauthorized": (401, b"<html>\n401 - Unauthorized\n</html>\n", "text/html"),
    "hang": (0, b"", ""),
}
"""What the metadata may answer instead (EC2 User Guide, "Query throttling" and "HTTP response codes" of the instance
metadata service)."""


class Ec2(Endpoint):
    """The API of *region*: signed requests alone. *keys* are the access keys that were used, *invalid* those that are
    not good (any more), *expired* those whose time is over, *delay* (seconds) is how long each answer takes. Who calls
    is known by the key."""

    def __init__(self, region: Region, listener: socket.socket | None = None) -> None:
        self.keys: list[str] = []
        self.invalid: set[str] = set()
        self.expired: set[str] = set()
        self.delay = 0.0
        protocol = query.Protocol()

        class Asked(Handler):
            def do_POST(handler) -> None:  # noqa: N802, N805 - the base class's name; self is the endpoint's
                body = handler.rfile.read(int(handler.headers["Content-Length"]))
                try:
                    self.keys.append(_access_key(handler.headers.get("Authorization", "")))
                    if self.keys[-1] in self.invalid:
                        raise _invalid()
                    if self.keys[-1] in self.expired:
                        raise ERRORS["expired"]
                    action, parameters = protocol.read(body)
                    time.sleep(self.delay)
                    found = region.call(action, parameters, self.keys[-1])
                    time.sleep(region.took)
                    answer = protocol.write(action, found)
                except Refusal as refusal:
                    kind, text = refusal.page or ("text/xml", query.error(refusal).decode())
                    handler.answer(refusal.status, text.encode(), kind)
                except NoAnswer:
                    handler.close_connection = True
                    handler.connection.shutdown(socket.SHUT_RDWR)
                else:
                    handler.answer(200, answer, "text/xml;charset=UTF-8")

        super().__init__(Asked, listener)


class Sts(Endpoint):
    """The token service, for web identities: *tokens* are those that were shown, *key* and *seconds* what is issued;
    with a *code* it refuses instead (STS API Reference, AssumeRoleWithWebIdentity, Errors)."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.key, self.seconds = "AKIDWEB", 3600.0
        self.code = ""

        class Asked(Handler):
            def do_POST(handler) -> None:  # noqa: N802, N805 - as above
                asked = parse_qs(handler.rfile.read(int(handler.headers["Content-Length"])).decode())
                if asked["Action"] != ["AssumeRoleWithWebIdentity"]:
                    handler.answer(400, b"")
                    return
                self.tokens += asked["WebIdentityToken"]
                if self.code:
                    error = f"<Error><Code>{self.code}</Code><Message>no</Message></Error>"
                    handler.answer(400, f"<ErrorResponse>{error}</ErrorResponse>".encode(), "text/xml")
                    return
                fields = {"AccessKeyId": self.key, "SecretAccessKey": "secret", "SessionToken": "session"}
                fields["Expiration"] = _expiration(time.time() + self.seconds)
                found = "".join(f"<{name}>{value}</{name}>" for name, value in fields.items())
                body = f"<Credentials>{found}</Credentials>"
                for name in ("Result", "Response"):
                    body = f"<AssumeRoleWithWebIdentity{name}>{body}</AssumeRoleWithWebIdentity{name}>"
                handler.answer(200, body.encode(), "text/xml")

        super().__init__(Asked, None)


def _expiration(when: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))


def _invalid() -> Refusal:
    return Refusal("AuthFailure", "AWS was not able to validate the provided access credentials", 401)


def _access_key(authorization: str) -> str:
    method, _, rest = authorization.partition(" Credential=")
    if method != "AWS4-HMAC-SHA256" or "Signature=" not in rest:
        raise _invalid()
    return rest.partition("/")[0]


class Imds(Endpoint):
    """The metadata of one *instance*, version 2 alone: without a token that is still good there is nothing.

    *credentials* answers what its role has now: access key and seconds until it expires.
    """

    def __init__(
        self,
        region: Region,
        instance: str,
        listener: socket.socket | None = None,
        credentials: Callable[[], tuple[str, float]] = lambda: ("AKIDROLE", 3600.0),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.tokens: dict[str, float] = {}
        """By when each ends."""
        self.is_down = False
        self.faults: list[tuple[str, str]] = []
        """Beginnings of paths, and the kind of `PAGES` with which the next request below it is answered."""

        def fault(path: str) -> str:
            time.sleep(region.drawn(region.unkind.metadata_taking))
            planned = next((one for one in self.faults if path.startswith(one[0])), None)
            if planned is not None:
                self.faults.remove(planned)
                return planned[1]
            chance = region.unkind.metadata_failing
            return list(PAGES)[int(region.chance() * len(PAGES))] if chance and region.chance() < chance else ""

        class Asked(Handler):
            def do_PUT(handler) -> None:  # noqa: N802, N805 - as above
                if kind := fault(handler.path):
                    handler.page(PAGES, kind)
                    return
                ttl = handler.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
                if handler.path != "/latest/api/token" or not ttl.isdigit() or not 1 <= int(ttl) <= 21600:
                    handler.answer(400, b"")
                    return
                token = f"token-{len(self.tokens)}"
                self.tokens[token] = clock() + int(ttl)
                handler.answer(200, token.encode())

            def do_GET(handler) -> None:  # noqa: N802, N805 - as above
                token = handler.headers.get("X-aws-ec2-metadata-token", "")
                if kind := fault(handler.path):
                    handler.page(PAGES, kind)
                elif self.is_down:
                    handler.answer(503, b"")
                elif self.tokens.get(token, 0.0) <= clock():
                    handler.answer(401, b"")
                else:
                    found = _lookup(metadata(region, instance, credentials, clock()), handler.path)
                    handler.answer(404 if found is None else 200, (found or "").encode())

        super().__init__(Asked, listener)


def _lookup(tree: Mapping[str, Any], path: str) -> str | None:
    found: Any = tree
    for word in path.strip("/").split("/"):
        if not isinstance(found, Mapping) or word not in found:
            return None
        found = found[word]
    if isinstance(found, Mapping):
        return "\n".join(f"{name}/" if isinstance(one, Mapping) else name for name, one in found.items())
    return str(found)


def metadata(region: Region, instance: str, credentials: Callable[[], tuple[str, float]], now: float) -> dict[str, Any]:
    """The whole tree, as the metadata lags behind the truth."""
    one = region.instances[instance]
    shown = region.seen(instance)
    primary = min(shown, key=lambda row: (row["Attachment"]["NetworkCardIndex"], row["Attachment"]["DeviceIndex"]))
    document = {
        "instanceId": instance,
        "instanceType": one.type,
        "region": one.subnet.zone[:-1],
        "availabilityZone": one.subnet.zone,
        "privateIp": primary["PrivateIpAddress"],
    }
    key, left = credentials()
    role = {
        "Code": "Success",
        "AccessKeyId": key,
        "SecretAccessKey": "secret",
        "Token": "session",
        "Expiration": _expiration(now + left),
    }
    return {
        "latest": {
            "dynamic": {"instance-identity": {"document": json.dumps(document)}},
            "meta-data": {
                "instance-id": instance,
                "instance-type": one.type,
                "mac": primary["MacAddress"],
                "local-ipv4": primary["PrivateIpAddress"],
                "placement": {"region": document["region"], "availability-zone": one.subnet.zone},
                "iam": {"security-credentials": {"node": json.dumps(role)}},
                "network": {"interfaces": {"macs": {row["MacAddress"]: _interface(region, row) for row in shown}}},
            },
        }
    }


def _interface(region: Region, row: Mapping[str, Any]) -> dict[str, str]:
    """As aws/amazon-vpc-cni-k8s pull request 3047 lists it; of cards it tells only where there are several (3041)."""
    subnet = region.subnets[row["SubnetId"]]
    is_of_many = len(region.instances[row["Attachment"]["InstanceId"]].shape.cards) > 1
    found = {
        "device-number": str(row["Attachment"]["DeviceIndex"]),
        "network-card": str(row["Attachment"]["NetworkCardIndex"]) if is_of_many else "",
        "interface-id": row["NetworkInterfaceId"],
        "mac": row["MacAddress"],
        "local-ipv4s": "\n".join(one["PrivateIpAddress"] for one in row["PrivateIpAddresses"]),
        "ipv4-prefix": "\n".join(one["Ipv4Prefix"] for one in row["Ipv4Prefixes"]),
        "ipv6-prefix": "\n".join(one["Ipv6Prefix"] for one in row["Ipv6Prefixes"]),
        "security-group-ids": "\n".join(one["GroupId"] for one in row["Groups"]),
        "subnet-id": subnet.id,
        "subnet-ipv4-cidr-block": str(subnet.addresses.cidr),
        "vpc-id": subnet.vpc,
        "vpc-ipv4-cidr-blocks": "\n".join(map(str, region.vpcs[subnet.vpc])),
    }
    if region.unkind.metadata_halves and region.chance() < region.unkind.metadata_halves:
        found = {name: found[name] for name in ("device-number", "interface-id", "mac")}
    return {name: value for name, value in found.items() if value}
