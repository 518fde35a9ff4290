"""Putting jobs into the queue, so that a claim cannot miss them.

A claim passes over groups that are not active, and takes an empty one out of the turn only while it holds the group's
row FOR UPDATE. An insert into job_queue holds FOR KEY SHARE on that row; the group is made active by a later statement,
which therefore sees what such a claim committed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestrator.domain.ids import JobId, UserId
from orchestrator.store.db import Connection

REQUIREMENTS = "SELECT body, id FROM requirements WHERE body = ANY($1::text[])"
ADD_REQUIREMENTS = "INSERT INTO requirements (body) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING"
GROUPS = """
    SELECT g.owner, g.requirement_id, g.id
      FROM unnest($1::uuid[], $2::int[]) AS x (owner, requirement_id)
      JOIN queue_groups g ON g.requirement_id = x.requirement_id AND g.owner = x.owner
"""
ADD_GROUPS = """
    INSERT INTO queue_groups (owner, requirement_id) SELECT * FROM unnest($1::uuid[], $2::int[]) ON CONFLICT DO NOTHING
"""
ADD_ROWS = """
    INSERT INTO job_queue (job_id, group_id, priority) SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::int[])
"""
# Not FOR UPDATE: that would wait for every insert in flight.
ACTIVATE = """
    UPDATE queue_groups SET active = true
     WHERE id IN (SELECT id FROM queue_groups WHERE id = ANY($1::bigint[]) AND NOT active ORDER BY id FOR NO KEY UPDATE)
"""
BELL = "NOTIFY cynode_queue"

Group = tuple[UserId, int]


@dataclass(frozen=True, slots=True)
class QueueRow:
    job_id: JobId
    owner: UserId
    requirement_id: int
    priority: int


async def ensure_requirements(conn: Connection, bodies: Iterable[str]) -> dict[str, int]:
    """The row of each requirement, given as canonical JSON. Rows are never deleted."""
    wanted = sorted(set(bodies))
    found = await _requirements(conn, wanted)
    missing = [body for body in wanted if body not in found]
    if missing:
        await conn.execute(ADD_REQUIREMENTS, missing)
        found |= await _requirements(conn, missing)
    return found


async def enqueue(conn: Connection, rows: Sequence[QueueRow]) -> None:
    """For jobs that are queued and due. The bell rings when the transaction commits."""
    if not rows:
        return
    groups = await _ensure_groups(conn, {(row.owner, row.requirement_id) for row in rows})
    await conn.execute(
        ADD_ROWS,
        [row.job_id for row in rows],
        [groups[row.owner, row.requirement_id] for row in rows],
        [row.priority for row in rows],
    )
    await conn.execute(ACTIVATE, sorted(groups.values()))
    await conn.execute(BELL)


async def _requirements(conn: Connection, bodies: Sequence[str]) -> dict[str, int]:
    return {row["body"]: row["id"] for row in await conn.fetch(REQUIREMENTS, bodies)}


async def _ensure_groups(conn: Connection, wanted: set[Group]) -> dict[Group, int]:
    found = await _groups(conn, sorted(wanted))
    missing = sorted(wanted - found.keys())
    if missing:
        await conn.execute(ADD_GROUPS, *_columns(missing))
        found |= await _groups(conn, missing)
    return found


async def _groups(conn: Connection, wanted: Sequence[Group]) -> dict[Group, int]:
    rows = await conn.fetch(GROUPS, *_columns(wanted))
    return {(row["owner"], row["requirement_id"]): row["id"] for row in rows}


def _columns(groups: Sequence[Group]) -> tuple[list[UserId], list[int]]:
    return [owner for owner, _ in groups], [requirement for _, requirement in groups]
