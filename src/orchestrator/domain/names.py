"""Task names: lower-case words joined by single dashes, unique per user by a suffix."""

import re
from uuid import UUID

MOST = 128
_OUTSIDE = re.compile(r"[^a-z0-9]+")
_HEX = "[0-9a-f]"
_UUID = re.compile(rf"{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}|{_HEX}{{32}}")


def normalise_name(text: str) -> str:
    """Empty when nothing of `text` can stand in a name."""
    return _OUTSIDE.sub("-", text.lower()).strip("-")[:MOST].rstrip("-")


def is_uuid_shaped(text: str) -> bool:
    return _UUID.fullmatch(text.lower()) is not None


def generated_name(task_id: UUID) -> str:
    return f"task-{task_id.hex[-12:]}"


def with_suffix(name: str, number: int) -> str:
    """A long name gives way, so that the whole stays within the limit."""
    tail = f"-{number}"
    return name[: MOST - len(tail)].rstrip("-") + tail


def read_reference(text: str) -> UUID | str:
    """How a user names a task: its id, which is read first, or its name. Empty when it can be neither."""
    return UUID(text) if is_uuid_shaped(text) else normalise_name(text)
