"""An agent is replaced by one of another version, as a DaemonSet's roll does: the old ends, then the new starts."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from demo.lab import Lab, Node, built, eventually
from demo.runtime import Pod, Refused
from demo.stream import Datagrams

ROOT = Path(__file__).parents[2]
AT_ONCE = 3
"""Pods that are begun at the same time, all the time."""


@pytest.fixture(params=["static", "vxlan"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Two dual-stack nodes with a pod each."""
    with built(nodes=2, backend=request.param, family="dual") as lab:
        for node in lab.nodes:
            node.add()
        yield lab


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of an agent to come, which keeps more of each lease than this one knows."""
    directory = tmp_path_factory.mktemp("newer")
    for name in ("agent", "backends", "cluster", "cni", "dataplane", "ipam"):
        shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    schema = directory / "ipam" / "schema.py"
    text, then = schema.read_text(), 'ADDED: Final = (("tomorrow", "TEXT DEFAULT NULL"), '
    assert "ADDED: Final = (" in text
    schema.write_text(text.replace("ADDED: Final = (", then))
    return directory


class Adding:
    """Pods that are added and deleted on *node* without an end, and what became of it."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(AT_ONCE)]
        self.done = 0
        self.failed: list[str] = []

    def _run(self) -> None:
        while not self._is_over.is_set():
            place = self._node.pod_place()
            try:
                pod: Pod = self._node.runtime.add(place.name, place)
                self._node.runtime.delete(pod)
                self.done += 1
            except Refused as refused:
                self.failed.append(str(refused))
            finally:
                place.remove()

    def await_more(self) -> None:
        """Until every pod that is under way now is served, or one was not."""
        enough = self.done + 2 * AT_ONCE
        eventually("pods are added", lambda: self.failed or self.done >= enough)

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """While the body runs."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            for thread in self._threads:
                thread.join()


def roll(node: Node, *launcher: str) -> None:
    """The old agent ends by SIGTERM, then one begins that is started by *launcher*."""
    assert node.stop() == 0
    node.launcher = launcher
    node.launch()
    node.await_ready()


def columns(node: Node) -> set[str]:
    """What the journal's leases have."""
    with closing(sqlite3.connect(f"file:{node.directory}/state.db?mode=ro", uri=True)) as database:
        return {name for _, name, *_ in database.execute("PRAGMA table_info(tenure)")}


def test_a_roll_to_another_version_and_back_loses_no_packet_and_no_add(lab: Lab, newer: Path) -> None:
    """Under a stream between two nodes' pods, and while pods are added and deleted without a pause: those that come
    while there is no agent wait for the next one. The leases are those from before."""
    (node, pod), (_, other) = lab.pods
    adding = Adding(node)
    # Not measured (`make coverage`): these files are gone when it is told.
    apart = ("env", "-u", "COVERAGE_PROCESS_START", "-u", "COVERAGE_PROCESS_CONFIG", f"--chdir={newer}")
    with Datagrams(pod, other) as stream, adding.going_on():
        for launcher in (apart, (), apart, ()):
            roll(node, *launcher)
            assert "tomorrow" in columns(node)
            adding.await_more()
    assert adding.failed == []
    assert stream.lost == 0, stream.losses()
    assert stream.sent > 1000
    (lease,) = node.status()["leases"]
    assert (lease["container"], set(lease["addresses"])) == (pod.container, set(pod.addresses))
    assert node.status()["problems"] == []
