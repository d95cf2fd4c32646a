"""``python -m backends.gcp.worker``: a process that has the client library and makes the calls that it is asked for.

The library costs more memory than the whole agent, and is needed for seconds a day; so it is loaded here. The process
ends by itself when nothing was asked of it for a while, and when the agent ends, whose socket it was given. One request
at a time: what was asked for is read only when the answer before it has been sent.

What always holds: a request is read whole or not at all, so whoever could not send it knows that nothing was done.
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys
from typing import Any, Protocol

from backends.cloud.failures import CloudError
from backends.gcp.frames import Garbage, receive, send


class Api(Protocol):
    """`backends.gcp.client.Compute`."""

    def call(self, action: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """One call, once. CloudError: see there."""


def main(arguments: list[str] | None = None) -> int:
    """Serve until it is time to end."""
    parser = argparse.ArgumentParser(prog="python -m backends.gcp.worker", description=__doc__)
    parser.add_argument("socket", type=int, help="the number of the descriptor to serve on")
    parser.add_argument("--endpoint", default="", help="where the API is; default: where it usually is")
    parser.add_argument("--idle", type=float, default=20.0, metavar="SECONDS", help="default: %(default)s")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the agent's: it ends us
    with socket.socket(fileno=options.socket) as sock:
        try:
            from backends.gcp.client import Compute
        except ImportError as error:
            send(sock, {"missing": str(error)})
            return 1
        send(sock, {"ready": True})
        serve(sock, Compute(options.endpoint), options.idle)
    return 0


def serve(sock: socket.socket, api: Api, idle: float) -> None:
    """Answer what is asked on *sock*, until nothing was for *idle* seconds, or nobody is there."""
    is_last = False
    while True:
        try:
            sock.settimeout(idle)
            asked = receive(sock)
            if asked is None:
                return
            sock.settimeout(None)
            send(sock, answered(api, asked))
        except TimeoutError:
            if is_last:
                return
            # From now on nothing can be sent here; what was sent a moment ago is still to be had.
            sock.shutdown(socket.SHUT_RD)
            is_last = True
        except (Garbage, OSError):
            return


def answered(api: Api, asked: dict[str, Any]) -> dict[str, Any]:
    """What to answer: what the API did, or how the call failed."""
    try:
        return {"answer": api.call(asked["action"], asked["parameters"])}
    except CloudError as error:
        return {"failed": type(error).__name__, "code": error.code, "message": error.message}


if __name__ == "__main__":
    sys.exit(main())
