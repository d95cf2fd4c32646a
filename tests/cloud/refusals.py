"""How a call to the emulated EC2 can end badly."""

from __future__ import annotations


class Refusal(Exception):
    """An error of the API. *page* is what comes instead of EC2's document: (type, text) of whoever stands before it."""

    def __init__(self, code: str, message: str, status: int = 400, page: tuple[str, str] | None = None) -> None:
        super().__init__(code, message)
        self.code, self.message, self.status, self.page = code, message, status, page


class NoAnswer(Exception):
    """The connection broke before an answer came."""


def no_nic(name: str) -> Refusal:
    """There is no such interface, or it cannot be seen yet."""
    return Refusal("InvalidNetworkInterfaceID.NotFound", f"The networkInterface ID '{name}' does not exist")


def no_attachment(name: str) -> Refusal:
    """Likewise."""
    return Refusal("InvalidAttachmentID.NotFound", f"The network interface attachment ID '{name}' does not exist")
