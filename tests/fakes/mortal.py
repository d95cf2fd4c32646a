"""The agent, one of whose threads dies when the process gets SIGUSR1: ``python -m tests.fakes.mortal THREAD FUNCTION
ERROR ARGUMENTS…``.

The next call of FUNCTION in a thread whose name begins with THREAD raises ERROR, a built-in exception's name: the
interpreter's own profiling hook does so, and nothing of the agent is another than it is, but
for how long a minute is.
"""

from __future__ import annotations

import builtins
import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType

from agent.keep import reconciler
from agent.main import main

ARMED = "it may die now"
"""What is in the log from then on."""
LATE = "MORTAL_LATE"
"""The variable that says from how many seconds on a pass is late."""
HANG = "hang"
"""In the place of an error: it does not die, but goes on no more."""
HANGS = "it hangs"
"""What is in the log from then on."""


def run(thread: str, function: str, error: str, arguments: Sequence[str]) -> int:
    """Run the agent with *arguments* until the signal, and for as long as it then lives."""
    is_time = threading.Event()

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event != "call" or frame.f_code.co_name != function or not is_time.is_set():
            return
        if threading.current_thread().name.startswith(thread):
            if error == HANG:
                os.write(2, f"{HANGS}\n".encode())
                threading.Event().wait()
            raise getattr(builtins, error)("killed by the test")

    threading.setprofile(profile)

    def arm(*_: object) -> None:
        is_time.set()
        os.write(2, f"{ARMED}\n".encode())

    signal.signal(signal.SIGUSR1, arm)
    vars(reconciler)["LATE"] = float(os.environ.get(LATE, reconciler.LATE))
    return main(arguments)


if __name__ == "__main__":
    thread, function, error, *arguments = sys.argv[1:]
    sys.exit(run(thread, function, error, arguments))
