"""For all tests: none may run in the machine's own network namespace."""

from __future__ import annotations

import pytest

from demo import isolate


def pytest_sessionstart(session: pytest.Session) -> None:
    """End at once where a test could touch the machine."""
    if not isolate.is_isolated():
        pytest.exit("run the tests in namespaces of their own: make test, or python -m demo.isolate pytest …", 2)
