"""For all tests: none may run in the machine's own network namespace, and those that draw their examples draw the same
in every run, so that what fails was broken by a change. With FUZZ in the environment they draw others each time."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

from demo import isolate

settings.register_profile("repeatable", derandomize=True)
if not os.environ.get("FUZZ"):
    settings.load_profile("repeatable")


def pytest_sessionstart(session: pytest.Session) -> None:
    """End at once where a test could touch the machine."""
    if not isolate.is_isolated():
        pytest.exit("run the tests in namespaces of their own: make test, or python -m demo.isolate pytest …", 2)
