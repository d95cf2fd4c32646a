"""Asking an agent: the commands of ``routablectl``, by the same socket and in the same frames as CNI requests.

CNI_COMMAND is one of these, none of which is a verb of the specification; standard input and output are JSON.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from contextlib import closing
from typing import Any, Final

from cni import frame
from cni.errors import ConfigInvalid, Failure, TryAgain

STATUS: Final = "routablectl/status"
IP: Final = "routablectl/ip"
SWITCH: Final = "routablectl/switch"
PROGRESS: Final = "routablectl/progress"

AT_REST, PREPARING, MOVING, WAITING, FINISHING = "at rest", "preparing", "moving", "waiting for peers", "finishing"
"""The phases of a change of backend, as `PROGRESS` answers them."""
NOT_READY: Final = 3
"""The exit code of ``routablectl switch`` while peers are not ready."""

PATIENCE: Final = 10.0
"""Seconds for the agent's answer."""


def ask(path: str, command: str, arguments: Mapping[str, Any]) -> Any:
    """What the agent at the socket *path* answers.

    Raises:
        TryAgain: no agent answers there; ConfigInvalid: not this user; Failure: the agent's own.
    """
    request = frame.Request({"CNI_COMMAND": command.encode()}, json.dumps(arguments).encode())
    try:
        with closing(socket.socket(socket.AF_UNIX)) as stream:
            stream.settimeout(PATIENCE)
            stream.connect(path)
            stream.sendall(frame.encode(request))
            answer = bytearray()
            while data := stream.recv(1 << 16):
                answer += data
    except PermissionError as error:
        raise ConfigInvalid(f"the agent's socket {path} is for root alone", "run this command as root") from error
    except OSError as error:
        why = f"{error.strerror or error}; see that routable-agent runs on this node and what its log says"
        raise TryAgain(f"the agent does not answer at {path}", why) from error
    if not answer:
        why = "it answers its own user alone: run this command as root; or it has just ended: see its log"
        raise TryAgain(f"the agent at {path} hung up without an answer", why)
    code, body = frame.decode_response(bytes(answer))
    document = json.loads(body)
    if code:
        raise Failure(document["msg"], document.get("details", ""))
    return document
