"""Server-sent events: bytes in, events out. No I/O."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

LINE_END = re.compile(rb"\r\n|\n|\r(?=.)", re.DOTALL)  # a \r at the very end may be half of \r\n


@dataclass(frozen=True, slots=True)
class Event:
    name: str
    data: dict[str, Any]
    id: str | None


def parse_events(chunks: Iterable[bytes]) -> Iterator[Event]:
    """Comments are passed over; so is an event whose data is no JSON object, which no version of ours sends."""
    name, data, last_id = "message", list[str](), None
    for line in split_lines(chunks):
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif field == "id" and "\0" not in value:
            last_id = value
        elif not line:
            found = _object("\n".join(data))
            if found is not None:
                yield Event(name, found, last_id)
            name, data = "message", []


def split_lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """At CR, LF or both, and at nothing else that Unicode counts as a line's end."""
    rest = b""
    for chunk in chunks:
        *lines, rest = LINE_END.split(rest + chunk)
        for line in lines:
            yield line.decode("utf-8", "replace")


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
