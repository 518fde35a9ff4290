"""Which tasks somebody wants listed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from uuid import UUID

from orchestrator.domain.cursors import decode_position, encode_position
from orchestrator.domain.errors import Invalid
from orchestrator.domain.states import TaskStatus
from orchestrator.domain.tasks import Task, read_status

DEFAULT_LIMIT, MOST = 50, 200
BAD_PAGE = "Invalid limit, offset, or cursor"


@dataclass(frozen=True, slots=True)
class ListWanted:
    limit: int = DEFAULT_LIMIT
    offset: int | None = None
    before: UUID | None = None
    """The last task of the page before."""
    status: TaskStatus | None = None
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class TaskPage:
    tasks: tuple[Task, ...]
    next_cursor: str | None
    next_offset: int | None


def read_wanted(
    limit: str | None, offset: str | None, cursor: str | None, status: str | None, labels: Sequence[str]
) -> ListWanted:
    """From the texts of a query; what is absent or empty is not said."""
    if offset and cursor:
        raise Invalid(BAD_PAGE, field="cursor")
    return ListWanted(
        limit=_number(limit, "limit", 1, MOST) if limit else DEFAULT_LIMIT,
        offset=_number(offset, "offset", 0, (1 << 53) - 1) if offset else None,
        before=_position(cursor) if cursor else None,
        status=read_status(status) if status else None,
        labels=dict(map(_label, labels)),
    )


def cut_page(found: Sequence[Task], wanted: ListWanted) -> TaskPage:
    """`found` holds one more than the limit when there is a next page."""
    tasks = tuple(found[: wanted.limit])
    if len(found) <= wanted.limit:
        return TaskPage(tasks, None, None)
    by_cursor = wanted.before is not None
    return TaskPage(tasks, encode_position(tasks[-1].id), None if by_cursor else (wanted.offset or 0) + wanted.limit)


def _number(text: str, name: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 17 and least <= int(text) <= most):
        raise Invalid(BAD_PAGE, field=name)
    return int(text)


def _position(cursor: str) -> UUID:
    position = decode_position(cursor)
    if position is None:
        raise Invalid(BAD_PAGE, field="cursor")
    return position


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals or "\0" in text:
        raise Invalid("label: write label=NAME=VALUE", field="label")
    return name, value
