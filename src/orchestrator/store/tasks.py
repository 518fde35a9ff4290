"""Rows of tasks, found and listed."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from uuid import UUID

from orchestrator.domain.ids import TaskId, UserId
from orchestrator.domain.states import TaskStatus
from orchestrator.domain.tasks import Task
from orchestrator.store.db import Connection, Row

_COLUMNS = """
    SELECT id, created_by, project_id, name, summary, input_mode, prompt, attachments, labels, priority, status,
           retry_of, created_at, updated_at
      FROM tasks
"""
BY_IDS = _COLUMNS + "WHERE id = ANY($1::uuid[])"
OWN_BY_ID = _COLUMNS + "WHERE created_by = $1 AND id = $2"
OWN_BY_NAME = _COLUMNS + "WHERE created_by = $1 AND name = $2"
ID_BY_ID = "SELECT id FROM tasks WHERE created_by = $1 AND id = $2"
ID_BY_NAME = "SELECT id FROM tasks WHERE created_by = $1 AND name = $2"

# One text for each way to filter, since a plan that fits all of them would use no index. The parameters are the same.
_PAGE = (
    " AND id < coalesce($2::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff') AND ($5::text IS NULL OR status = $5::text)"
)
_LABELS = " AND labels <> '{}' AND labels @> $6::text::jsonb"
_NO_LABELS = " AND $6::text IS NULL"
_NEWEST = " ORDER BY id DESC LIMIT $3 OFFSET $4"
LIST_ALL = _COLUMNS + "WHERE created_by = $1" + _PAGE + _NO_LABELS + _NEWEST
LIST_BY_STATUS = _COLUMNS + "WHERE created_by = $1 AND status = $5::text" + _PAGE + _NO_LABELS + _NEWEST
LIST_BY_LABELS = _COLUMNS + "WHERE created_by = $1" + _PAGE + _LABELS + _NEWEST


@dataclass(frozen=True, slots=True)
class Filter:
    status: TaskStatus | None = None
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


async def list_tasks(
    conn: Connection, owner: UserId, wanted: Filter, *, before: UUID | None, offset: int, limit: int
) -> list[Task]:
    """Newest first; `before` is the id of the last task of the page before."""
    rows = await conn.fetch(
        LIST_BY_LABELS if wanted.labels else LIST_BY_STATUS if wanted.status else LIST_ALL,
        owner,
        before,
        limit,
        offset,
        None if wanted.status is None else wanted.status.value,
        json.dumps(dict(wanted.labels)) if wanted.labels else None,
    )
    return [_task(row) for row in rows]


async def find_tasks(conn: Connection, ids: Iterable[TaskId]) -> dict[TaskId, Task]:
    return {row["id"]: _task(row) for row in await conn.fetch(BY_IDS, list(ids))}


async def find_own_task(conn: Connection, owner: UserId, key: TaskId | str) -> Task | None:
    """`key` is an id or a normalised name."""
    row = await conn.fetchrow(OWN_BY_ID if isinstance(key, UUID) else OWN_BY_NAME, owner, key)
    return None if row is None else _task(row)


async def find_own_id(conn: Connection, owner: UserId, key: TaskId | str) -> TaskId | None:
    found: TaskId | None = await conn.fetchval(ID_BY_ID if isinstance(key, UUID) else ID_BY_NAME, owner, key)
    return found


def _task(row: Row) -> Task:
    return Task(
        id=row["id"],
        owner=row["created_by"],
        project_id=row["project_id"],
        name=row["name"],
        summary=row["summary"],
        input_mode=row["input_mode"],
        prompt=row["prompt"],
        attachments=tuple(row["attachments"]),
        labels=row["labels"],
        priority=row["priority"],
        status=TaskStatus(row["status"]),
        retry_of=row["retry_of"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
