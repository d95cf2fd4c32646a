"""The metadata server: which machine this is, and which alias ranges its interface has.

It costs no call of the API's, and answers while that does not; it lags behind by seconds. What always holds: an answer
that is not one (an error page, half of it, words of another kind, something that stands in its place) is never taken
for one. `Waiting` is told of every change at once: the server answers when there is one.
"""

from __future__ import annotations

import http.client
import re
import threading
from collections.abc import Callable
from typing import Final

import msgspec
from netaddr import AddrFormatError, IPAddress, IPNetwork

from backends.cloud.failures import Lost
from backends.cloud.web import Web, fit
from backends.gcp.model import NIC, Seen
from backends.threads import OnDeath, thread
from backends.told import Told

HOST: Final = "169.254.169.254"
"""Unless GCE_METADATA_HOST says another, as for Google's own libraries."""
PATIENCE: Final = 60.0
"""Seconds after which the server answers, where nothing has changed."""
PAUSE: Final = 0.5
"""Seconds from an answer to the next question."""
AGAIN: Final = 5.0
"""Seconds until it is asked again, where there was no answer."""
_FLAVOR: Final = "Metadata-Flavor"
_GOOGLE: Final = "Google"
_INTERFACE: Final = f"instance/network-interfaces/{NIC.removeprefix('nic')}/?recursive=true"
_ID: Final = re.compile(r"[0-9]{1,20}")
_NAME: Final = re.compile(r"[a-z0-9.:\-]{1,255}")
_ZONE: Final = re.compile(r"projects/[^/\s]+/zones/([a-z0-9\-]+)")
_MAC: Final = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")


class _Interface(msgspec.Struct, frozen=True, rename="camel"):
    """What is read of an interface."""

    ip: str
    mac: str
    subnetmask: str
    mtu: int
    ip_aliases: list[str] = []


class Metadata:
    """At *host*, which may have a port. Any thread may call."""

    def __init__(self, host: str = HOST) -> None:
        self._web = Web(host)

    def look(self) -> Seen:
        """All that an agent wants to know. Lost: there was no whole answer."""
        try:
            return self._seen()
        except (OSError, http.client.HTTPException, ValueError, AddrFormatError) as error:
            raise Lost("metadata", type(error).__name__, f"{self._web.host}: {error}") from error

    def changed(self, tag: str) -> str:
        """Wait until the interface is not as it was when its answer had that *tag*; the new one's. Lost: see `look`."""
        query = f"&wait_for_change=true&timeout_sec={PATIENCE:.0f}&last_etag={tag}"
        try:
            return self._get(_INTERFACE + (query if tag else ""), PATIENCE if tag else 0.0)[1]
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Lost("metadata", type(error).__name__, f"{self._web.host}: {error}") from error

    def _seen(self) -> Seen:
        try:
            found = msgspec.json.decode(self._get(_INTERFACE)[0], type=_Interface)
        except msgspec.DecodeError as error:
            raise ValueError(f"the interface: {error}") from error
        address = IPAddress(found.ip)
        return Seen(
            instance=self._word("instance/id", _ID),
            name=self._word("instance/name", _NAME),
            project=self._word("project/project-id", _NAME),
            zone=self._word("instance/zone", _ZONE).rpartition("/")[2],
            address=address,
            mac=fit(_MAC, found.mac, "the interface's mac"),
            mtu=found.mtu,
            subnet=IPNetwork(f"{address}/{found.subnetmask}").cidr,
            blocks=frozenset(map(IPNetwork, found.ip_aliases)),
        )

    def _word(self, path: str, form: re.Pattern[str]) -> str:
        return fit(form, self._get(path)[0].strip(), f"/{path}")

    def _get(self, path: str, patience: float = 0.0) -> tuple[str, str]:
        """What is at *path*, and its tag. ValueError and others: there was no answer."""
        answer = self._web.ask("GET", f"computeMetadata/v1/{path}", {_FLAVOR: _GOOGLE}, patience)
        if answer.status != http.client.OK:
            raise ValueError(f"/{path} answered {answer.status}")
        if answer.headers.get(_FLAVOR.lower()) != _GOOGLE:
            raise ValueError(f"/{path} was answered by something that is not Google's metadata server")
        return answer.text, answer.headers.get("etag", "")


class Waiting:
    """A `backends.descriptor.Part`: waits for changes of the interface, and tells *on_change*, each time one came.
    *on_death* is told if the thread ends unasked."""

    name: Final = "metadata"

    def __init__(self, metadata: Metadata, on_change: Callable[[], object], on_death: OnDeath) -> None:
        self._metadata = metadata
        self._on_change = on_change
        self._stop = threading.Event()
        self._thread = thread(self.name, self._wait, on_death)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End: nothing is kept, so a question that is under way need not be waited for."""
        self._stop.set()

    def wake(self) -> None:
        """Pods wait: that is nothing to it."""

    def told(self) -> Told:
        """Nothing: what is seen, the fabric tells."""
        return Told()

    def _wait(self) -> None:
        tag = ""
        while not self._stop.is_set():
            try:
                now = self._metadata.changed(tag)
            except Lost:
                now = ""
            if now and tag and now != tag:
                self._on_change()
            # No answer, or one of a server that has no tags: the look each minute has to do. One that does not wait for
            # changes must not keep us busy.
            self._stop.wait(PAUSE if now else AGAIN)
            tag = now
