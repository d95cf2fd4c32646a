"""What can go wrong, classed by who must act; the CNI error code lives on the class.

Codes 1-99 are the specification's (SPEC.md 1.1.0, "Error"); 100 and above are ours. A library's error is
translated into one of these once, at the edge where it appears, with ``raise … from``.
"""

from __future__ import annotations


class Failure(Exception):
    """A request that could not be served: *message* says what and where, *details* why and what to do."""

    code = 999

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def __str__(self) -> str:
        return f"{self.message}: {self.details}" if self.details else self.message


def bug(error: Exception) -> Failure:
    """What a runtime is told of an *error* that is none of these: we act."""
    details = f"{type(error).__name__}: {error}; the agent's log has the traceback; please report it"
    return Failure("the agent has a bug", details)


class VersionUnsupported(Failure):
    """The configuration's cniVersion is not one that we speak (the user acts)."""

    code = 1


class FieldUnsupported(Failure):
    """A field of the configuration has a value that we cannot serve (the user acts)."""

    code = 2


class UnknownContainer(Failure):
    """CHECK for an attachment that has no lease (the runtime acts). DEL answers success instead."""

    code = 3


class EnvironmentInvalid(Failure):
    """A CNI_* variable is missing or malformed; the message names it (the runtime acts)."""

    code = 4


class Unreadable(Failure):
    """Standard input or a frame could not be read (the runtime acts)."""

    code = 5


class Undecodable(Failure):
    """Standard input is not the JSON that the specification describes (the runtime acts)."""

    code = 6


class ConfigInvalid(Failure):
    """A configuration file or network configuration is wrong; the message names file and key (the user acts)."""

    code = 7


class TryAgain(Failure):
    """Not now, but soon: the runtime is expected to retry."""

    code = 11


class NotReady(Failure):
    """STATUS: no ADD can be served, whatever the pods do: see `agent.tell.trouble` (the operator acts)."""

    code = 50


class Limited(Failure):
    """Something is impaired: told to people, never by STATUS, which would cost the pods (the operator acts)."""

    code = 51


class Exhausted(Failure):
    """No address is left and none will come by waiting (the operator acts)."""

    code = 100


class FabricRefused(Failure):
    """The source of addresses refused, for example for lack of permission (the operator acts)."""

    code = 101


class KernelRefused(Failure):
    """The kernel refused a change (the operator acts): *errno* says how, *kind* what kind of object it was about."""

    code = 102

    def __init__(self, message: str, details: str = "", errno: int = 0, kind: str = "") -> None:
        super().__init__(message, details)
        self.errno = errno
        self.kind = kind


class Drifted(Failure):
    """CHECK: what is there differs from what should be; the details are the difference (the runtime acts)."""

    code = 103


class StateCorrupt(Failure):
    """The store cannot be trusted and guessing would be unsafe (the operator acts)."""

    code = 104


class InterfaceExists(Failure):
    """ADD for an interface that exists already; nothing was changed (the runtime acts)."""

    code = 105
