"""How a call of a cloud can fail: by what is known afterwards. Each cloud tells at its edge which of these it is."""

from __future__ import annotations


class CloudError(Exception):
    """A call that did not succeed: *action* and *code* as the API names them, *message* its own words."""

    def __init__(self, action: str, code: str, message: str) -> None:
        super().__init__(action, code, message)
        self.action = action
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.action}: {self.code}: {self.message}"


class Refused(CloudError):
    """It was refused, and nothing was done."""


class Throttled(CloudError):
    """Too many calls, of this node or others of the account; nothing was done."""


class Lost(CloudError):
    """There was no answer, or an internal error: it may have been done, now or later, or not."""
