"""The "ec2" query protocol, both ways, as botocore's service model describes it: nothing here knows any action."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from botocore.loaders import Loader
from botocore.model import ListShape, ServiceModel, Shape, StructureShape

from tests.cloud.region import Refusal


@cache
def service() -> ServiceModel:
    """What botocore knows of EC2; reading it takes a moment."""
    return ServiceModel(Loader().load_service_model("ec2", "service-2"), "ec2")


class Protocol:
    """Reads requests and writes answers."""

    def __init__(self) -> None:
        self._model = service()
        self._xmlns = self._model.metadata["xmlNamespace"]

    def read(self, body: bytes) -> tuple[str, dict[str, Any]]:
        """The action and its parameters in boto3's shapes. Refusal: something there is unknown, or of another type."""
        fields = dict(parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True))
        action = fields.pop("Action", "")
        version = fields.pop("Version", "")
        if action not in self._model.operation_names or version != self._model.api_version:
            raise Refusal("InvalidAction", f"The action {action} is not valid for this web service, version {version}")
        shape = self._model.operation_model(action).input_shape
        found = _structure(shape, "", fields) if shape is not None else {}
        if fields:
            raise Refusal("UnknownParameter", f"The parameter {sorted(fields)[0]} is not recognized")
        return action, found

    def write(self, action: str, answer: Mapping[str, Any]) -> bytes:
        """The document that answers *action*."""
        shape = self._model.operation_model(action).output_shape
        inner = _xml_members(shape, answer) if shape is not None else "<return>true</return>"
        head = f'<{action}Response xmlns="{self._xmlns}"><requestId>of-an-emulator</requestId>'
        return f"{head}{inner}</{action}Response>".encode()


def error(refusal: Refusal) -> bytes:
    """The document of an error."""
    inner = f"<Code>{escape(refusal.code)}</Code><Message>{escape(refusal.message)}</Message>"
    return f"<Response><Errors><Error>{inner}</Error></Errors><RequestID>of-an-emulator</RequestID></Response>".encode()


def _structure(shape: Shape, prefix: str, fields: dict[str, str]) -> dict[str, Any]:
    assert isinstance(shape, StructureShape)
    found = {}
    for name, member in shape.members.items():
        key = prefix + _query_name(name, member)
        if any(field == key or field.startswith(f"{key}.") for field in fields):
            found[name] = _value(member, key, fields)
    return found


def _query_name(name: str, member: Shape) -> str:
    serialized: Mapping[str, str] = member.serialization
    if "queryName" in serialized:
        return serialized["queryName"]
    named = serialized.get("name", name)
    return named[0].upper() + named[1:]


def _value(shape: Shape, key: str, fields: dict[str, str]) -> Any:
    if isinstance(shape, StructureShape):
        return _structure(shape, f"{key}.", fields)
    if isinstance(shape, ListShape):
        found: list[Any] = []
        while any(field == (at := f"{key}.{len(found) + 1}") or field.startswith(f"{at}.") for field in fields):
            found.append(_value(shape.member, f"{key}.{len(found) + 1}", fields))
        return found
    text = fields.pop(key)
    if shape.type_name == "boolean":
        if text not in ("true", "false"):
            raise Refusal("InvalidParameterValue", f"Value ({text}) for parameter {key} is invalid")
        return text == "true"
    if shape.type_name in ("integer", "long"):
        if not text.lstrip("-").isdigit():
            raise Refusal("InvalidParameterValue", f"Value ({text}) for parameter {key} is invalid")
        return int(text)
    return text


def _xml_members(shape: Shape, value: Mapping[str, Any]) -> str:
    assert isinstance(shape, StructureShape)
    unknown = value.keys() - shape.members.keys()
    if unknown:
        raise ValueError(f"{shape.name} has no members {sorted(unknown)}")
    return "".join(
        _xml(member, member.serialization.get("name", name), value[name])
        for name, member in shape.members.items()
        if name in value
    )


def _xml(shape: Shape, tag: str, value: Any) -> str:
    if isinstance(shape, StructureShape):
        inner = _xml_members(shape, value)
    elif isinstance(shape, ListShape):
        item = shape.member.serialization.get("name", "member")
        inner = "".join(_xml(shape.member, item, one) for one in value)
    elif isinstance(value, bool):
        inner = "true" if value else "false"
    else:
        inner = escape(str(value))
    return f"<{tag}>{inner}</{tag}>"
