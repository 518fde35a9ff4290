"""Text frame ↔ message, with the size limit. Errors say what the link does about them."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import from_json

from node_link.messages import (
    MAX_FRAME_BYTES,
    MESSAGES,
    FinishedRecord,
    Message,
    OutputRecord,
    Record,
    RecordType,
    ReportMessage,
    StartedRecord,
)

_RECORDS: dict[RecordType, TypeAdapter[Any]] = {
    StartedRecord: TypeAdapter(tuple[StartedRecord, ...]),
    OutputRecord: TypeAdapter(tuple[OutputRecord, ...]),
    FinishedRecord: TypeAdapter(tuple[FinishedRecord, ...]),
}
BY_TYPE: dict[str, type[Message]] = {m.model_fields["type"].default: m for m in MESSAGES}

P = TypeVar("P", bound=BaseModel)
T = TypeVar("T")


class BadFrame(Exception):
    """Not JSON, not an object, or wrong fields: the link closes with 4400 and this text."""


class FrameTooLarge(Exception):
    """More than MAX_FRAME_BYTES of UTF-8: the link closes with 1009."""


class UnknownType(Exception):
    """A type of a newer protocol: answered with an `error` frame; the link goes on."""

    def __init__(self, message_type: str) -> None:
        super().__init__(f"unknown message type {message_type[:64]!r}")
        self.message_type = message_type[:64]


class Encoded(NamedTuple):
    """A message that its sender wrote as text."""

    type: str
    text: str


def encode(message: Message | Encoded) -> str:
    """One text frame. Senders split lists (`split`), so a frame above the limit is a bug here."""
    text = message.text if isinstance(message, Encoded) else message.model_dump_json(exclude_none=True)
    if len(text) > MAX_FRAME_BYTES // 4 and len(text.encode()) > MAX_FRAME_BYTES:
        raise FrameTooLarge(f"{message.type} of {len(text.encode())} bytes")
    return text


def decode(frame: str | bytes) -> Message:
    """Raises BadFrame, FrameTooLarge or UnknownType. Records of report frames are validated later, one by one."""
    if isinstance(frame, bytes):
        raise BadFrame("binary frames are not part of this protocol")
    if len(frame) > MAX_FRAME_BYTES or (len(frame) > MAX_FRAME_BYTES // 4 and len(frame.encode()) > MAX_FRAME_BYTES):
        raise FrameTooLarge(f"a frame may have {MAX_FRAME_BYTES} bytes")
    try:
        fields = from_json(frame, allow_inf_nan=False)
    except ValueError as error:
        raise BadFrame(f"not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise BadFrame("not a JSON object")
    kind = fields.get("type")
    if not isinstance(kind, str):
        raise BadFrame("no `type`")
    model = BY_TYPE.get(kind)
    if model is None:
        raise UnknownType(kind)
    try:
        return model.model_validate(fields, strict=False)
    except ValidationError as error:
        raise BadFrame(f"{kind}: {explain(error)}") from error


def explain(error: ValidationError) -> str:
    """The first fault, with the field's name; never the value, which may be large or secret."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else str(first["msg"])


def records(message: ReportMessage) -> Iterator[Record | tuple[dict[str, Any], str]]:
    """Each record of a report frame, or the raw one with what is wrong with it."""
    try:
        whole = _RECORDS[message.record].validate_python(message.jobs)
    except ValidationError:
        yield from _one_by_one(message)
    else:
        yield from whole


def _one_by_one(message: ReportMessage) -> Iterator[Record | tuple[dict[str, Any], str]]:
    for raw in message.jobs:
        try:
            yield message.record.model_validate(raw)
        except ValidationError as error:
            yield raw, explain(error)


def split(parts: Iterable[P], *, limit: int = MAX_FRAME_BYTES - 1024, most: int = 2000) -> Iterator[list[P]]:
    """Cuts a list so that each piece fits one frame together with the frame's own few bytes."""
    return _split(parts, lambda part: len(part.model_dump_json(exclude_none=True).encode()), limit, most)


def split_texts(parts: Iterable[str]) -> Iterator[list[str]]:
    """The same for parts that are written already."""
    return _split(parts, lambda text: len(text) if text.isascii() else len(text.encode()), MAX_FRAME_BYTES - 1024, 2000)


def _split(parts: Iterable[T], measure: Callable[[T], int], limit: int, most: int) -> Iterator[list[T]]:
    piece: list[T] = []
    size = 0
    for part in parts:
        length = measure(part) + 1
        if piece and (size + length > limit or len(piece) >= most):
            yield piece
            piece, size = [], 0
        piece.append(part)
        size += length
    if piece:
        yield piece
