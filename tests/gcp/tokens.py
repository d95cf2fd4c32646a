"""Access tokens of the emulated project: who has which, and until when; and the services that issue them over HTTP."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.cloud.serving import Endpoint, Handler
from tests.gcp.documents import narrow, unauthenticated
from tests.gcp.estate import PLATFORM

CHANGING = (PLATFORM, "https://www.googleapis.com/auth/compute")
READING = ("https://www.googleapis.com/auth/compute.readonly",)
"""Scopes of tokens for Compute Engine (API reference, Authorization scopes)."""
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class Tokens:
    """*seconds* is how long those that are issued from now on are good; *keys* are accounts' public keys."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.seconds = 3600.0
        self.issued: dict[str, tuple[str, float, tuple[str, ...]]] = {}
        self.keys: dict[str, rsa.RSAPublicKey] = {}

    def issue(self, account: str, scopes: tuple[str, ...] = (PLATFORM,)) -> tuple[str, float]:
        """A new token, and how long it is good."""
        token = f"ya29.token-{len(self.issued)}"
        self.issued[token] = account, self._clock() + self.seconds, scopes
        return token, self.seconds

    def revoke(self) -> None:
        """None is good any more."""
        self.issued = {token: (account, 0.0, scopes) for token, (account, _, scopes) in self.issued.items()}

    def holder(self, authorization: str, is_change: bool = False) -> str:
        """Whose token that header has. Refusal: nobody's, or its time is over, or it is not for such a call."""
        kind, _, token = authorization.partition(" ")
        if kind != "Bearer":
            raise unauthenticated()
        if token.count(".") == 2 and not token.startswith("ya29."):
            return self.signer(token)
        account, until, scopes = self.issued.get(token, ("", 0.0, ()))
        if until <= self._clock():
            raise unauthenticated()
        if not {*CHANGING, *(() if is_change else READING)} & set(scopes):
            raise narrow()
        return account

    def signer(self, token: str) -> str:
        """Who signed it (AIP-4111, self-signed JWT). Refusal: nobody that is known, or its time is over."""
        head, body, signature = token.split(".")
        claims = json.loads(_decoded(body))
        key = self.keys.get(claims.get("iss", ""))
        if key is None or claims.get("exp", 0) <= self._clock():
            raise unauthenticated()
        try:
            key.verify(_decoded(signature), f"{head}.{body}".encode(), padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature as error:
            raise unauthenticated() from error
        return str(claims["iss"])


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Issuer(Endpoint):
    """Google's token services: OAuth (/token) for service accounts' keys, STS (/v1/token) for workload identity
    federation, and the impersonation of a service account. *shown* are the subject tokens that came."""

    def __init__(self, tokens: Tokens, listener: socket.socket | None = None) -> None:
        self.shown: list[str] = []
        self.is_down = False

        def answered(path: str, asked: Mapping[str, str], authorization: str) -> dict[str, Any] | None:
            if path.endswith(":generateAccessToken"):
                tokens.holder(authorization)
                token, seconds = tokens.issue(path.rpartition("/")[2].partition(":")[0])
                until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))
                return {"accessToken": token, "expireTime": until}
            if (path, asked.get("grant_type")) == ("/v1/token", EXCHANGE):
                self.shown.append(asked["subject_token"])
                token, seconds = tokens.issue(f"principal:{asked['audience']}")
                kind = "urn:ietf:params:oauth:token-type:access_token"
                found = {"access_token": token, "issued_token_type": kind, "token_type": "Bearer"}
                return {**found, "expires_in": int(seconds)}
            if (path, asked.get("grant_type")) == ("/token", BEARER):
                token, seconds = tokens.issue(tokens.signer(asked["assertion"]))
                return {"access_token": token, "token_type": "Bearer", "expires_in": int(seconds)}
            return None

        class Asked(Handler):
            def do_POST(handler) -> None:  # noqa: N802, N805 - the base class's name; self is the endpoint's
                text = handler.rfile.read(int(handler.headers["Content-Length"])).decode()
                is_json = "json" in handler.headers.get("Content-Type", "")
                asked = json.loads(text) if is_json else {key: one[0] for key, one in parse_qs(text).items()}
                found = answered(handler.path, asked, handler.headers.get("Authorization", ""))
                if self.is_down:
                    handler.answer(503, b"")
                elif found is None:
                    handler.answer(400, b'{"error": "invalid_grant"}', "application/json")
                else:
                    handler.answer(200, json.dumps(found).encode(), "application/json")

        super().__init__(Asked, listener)
