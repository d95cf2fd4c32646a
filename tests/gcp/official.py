"""google-cloud-compute itself, in a process of its own: it takes seconds to import, and warns where tests may not.

Reads a call as JSON from each line of its input, and writes what came of it. `Official` is the other side.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Self


class Refused(Exception):
    """What the client raised: its type's *name*, its HTTP *code*, and its text."""

    def __init__(self, name: str, code: int, text: str) -> None:
        super().__init__(name, code, text)
        self.name, self.code, self.text = name, code, text


class Official:
    """The client, asked from here: a context manager."""

    def __init__(self, url: str, environment: Mapping[str, str]) -> None:
        line = [sys.executable, "-m", "tests.gcp.official", url]
        own = {**os.environ, **environment, "GOOGLE_API_USE_CLIENT_CERTIFICATE": "false"}
        self._process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=own)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def ask(self, what: str, **asked: Any) -> dict[str, Any]:
        """What the client answered, as its own dictionaries. Refused: it raised."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"what": what, "asked": asked}) + "\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        if "raised" in found:
            raise Refused(*found["raised"])
        return found


def main(url: str) -> None:
    """Serve, until there is no more input."""
    from google.cloud import compute_v1

    options = {"api_endpoint": url}
    clients = {
        "instances": compute_v1.InstancesClient(transport="rest", client_options=options),
        "zone_operations": compute_v1.ZoneOperationsClient(transport="rest", client_options=options),
        "subnetworks": compute_v1.SubnetworksClient(transport="rest", client_options=options),
    }
    for line in sys.stdin:
        call = json.loads(line)
        service, _, method = call["what"].partition(".")
        found = _found(getattr(clients[service], method), call["asked"])
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


def _found(method: Any, asked: dict[str, Any]) -> dict[str, Any]:
    timeout = asked.pop("timeout", 10.0)
    try:
        answer = method(request=asked, timeout=timeout, retry=None)
    except Exception as error:  # noqa: BLE001 - whatever it is, the other side is told
        return {"raised": [type(error).__name__, int(getattr(error, "code", None) or 0), str(error)]}
    found: dict[str, Any] = json.loads(type(answer).to_json(answer, use_integers_for_enums=False))
    return found


if __name__ == "__main__":
    main(sys.argv[1])
