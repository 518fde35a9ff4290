"""The claim: which queued jobs this control-plane gives to its nodes. Its cost does not grow with the backlog."""

from collections.abc import Iterable, Sequence
from typing import Any

from orchestrator.domain.dispatch import Candidate, ClaimedRow, Held
from orchestrator.domain.ids import AssignmentId
from orchestrator.store.db import Connection, Row

# Whether a group has rows is asked of its first row: for EXISTS the planner may read the whole queue.
# The groups that were served longest ago come first; of each the same share, by priority, then by age. Rows that
# another control-plane has locked are passed over, and so are jobs that a cancel has locked.
TURNS_AND_ROWS = """
    turn AS MATERIALIZED (
        SELECT g.id, g.requirement_id, row_number() OVER (ORDER BY g.served, g.id) AS place
          FROM queue_groups g
         WHERE g.active AND g.requirement_id = ANY($1::int[])
           AND (SELECT true FROM job_queue q WHERE q.group_id = g.id ORDER BY q.priority DESC, q.job_id LIMIT 1)
      ORDER BY g.served, g.id
         LIMIT $2
    ), share AS MATERIALIZED (
        SELECT greatest(1, ceil($2::numeric / greatest(1, count(*))))::int AS rows FROM turn
    ), taken AS MATERIALIZED (
        SELECT locked.*, turn.id AS group_id, turn.requirement_id, turn.place
          FROM turn, LATERAL (
            SELECT j.id AS job_id, j.task_id, j.attempt, j.spec, j.timeout_seconds, q.priority
              FROM job_queue q JOIN jobs j ON j.id = q.job_id
             WHERE q.group_id = turn.id
          ORDER BY q.priority DESC, q.job_id
             LIMIT (SELECT rows FROM share)
               FOR NO KEY UPDATE OF q, j SKIP LOCKED
          ) AS locked
    )"""
TAKE_ROWS = """
    WITH :turns_and_rows
    SELECT job_id, task_id, attempt, spec::text, timeout_seconds, group_id, requirement_id, place FROM taken
""".replace(":turns_and_rows", TURNS_AND_ROWS)
SOME_WAIT = """
    SELECT EXISTS (
        SELECT 1 FROM queue_groups g
         WHERE g.active AND g.requirement_id = ANY($1::int[])
           AND (SELECT true FROM job_queue q WHERE q.group_id = g.id ORDER BY q.priority DESC, q.job_id LIMIT 1)
    )
"""
ASSIGN = """
    WITH gone AS (
        DELETE FROM job_queue WHERE job_id = ANY($1::uuid[])
    ), assigned AS (
        UPDATE jobs j
           SET status = 'assigned', attempt = n.attempt, assignment_id = n.assignment_id, node_id = n.node_id,
               updated_at = now()
          FROM unnest($1::uuid[], $2::int[], $3::uuid[], $4::uuid[]) AS n (job_id, attempt, assignment_id, node_id)
         WHERE j.id = n.job_id
    ), noted AS (
        UPDATE queue_groups g SET served = nextval('queue_turns')
          FROM (SELECT id FROM queue_groups WHERE id = ANY($8::bigint[]) FOR NO KEY UPDATE SKIP LOCKED) AS mine
         WHERE g.id = mine.id
    )
    INSERT INTO job_attempts (job_id, attempt, assignment_id, node_id, link_id, spool_id, timeout_seconds)
    SELECT * FROM unnest($1::uuid[], $2::int[], $3::uuid[], $4::uuid[], $5::uuid[], $6::text[], $7::float8[])
"""
NEW_REQUIREMENTS = "SELECT id, body FROM requirements WHERE id <> ALL($1::int[])"
# An insert into job_queue holds FOR KEY SHARE on its group, so that a locked group has no insert in flight; whether it
# is empty is read by a later statement, which sees all that was committed before the lock.
LOCK_ACTIVE_GROUPS = """
    SELECT id FROM queue_groups WHERE active AND id > $1 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED
"""
REST_EMPTY_GROUPS = """
    UPDATE queue_groups g SET active = false
     WHERE g.id = ANY($1::bigint[]) AND NOT EXISTS (SELECT 1 FROM job_queue q WHERE q.group_id = g.id)
"""


async def take_rows(conn: Connection, requirements: Sequence[int], most: int) -> list[ClaimedRow]:
    """Locks up to about `most` rows, in the order in which they should be served."""
    rows = await conn.fetch(TAKE_ROWS, list(requirements), most)
    seen: dict[int, int] = {}

    def turn(row: Row) -> tuple[int, int]:
        nth = seen[row["group_id"]] = seen.get(row["group_id"], 0) + 1
        return nth, row["place"]

    order = sorted(((turn(row), row) for row in rows), key=lambda entry: entry[0])
    return [_claimed(row) for _, row in order]


async def some_wait(conn: Connection, requirements: Sequence[int]) -> bool:
    """Whether there are rows, locked ones too."""
    return bool(await conn.fetchval(SOME_WAIT, list(requirements)))


async def assign(conn: Connection, dealt: Sequence[tuple[ClaimedRow, Candidate, AssignmentId]]) -> list[Held]:
    """Turns locked rows into attempts; the rest stays queued when the transaction ends."""
    held = [_held(row, node, assignment) for row, node, assignment in dealt]
    jobs: list[Any] = [row.job_id for row, _, _ in dealt]
    attempts = [h.attempt for h in held]
    assignments = [h.assignment_id for h in held]
    nodes = [node.node_id for _, node, _ in dealt]
    await conn.execute(
        ASSIGN,
        jobs,
        attempts,
        assignments,
        nodes,
        [node.link_id for _, node, _ in dealt],
        [node.spool_id for _, node, _ in dealt],
        [h.timeout_seconds for h in held],
        sorted({row.group_id for row, _, _ in dealt}),
    )
    return held


async def new_requirements(conn: Connection, known: Iterable[int]) -> list[tuple[int, str]]:
    """Ids need not be committed in their order, so the known ones are named."""
    return [(row["id"], row["body"]) for row in await conn.fetch(NEW_REQUIREMENTS, list(known))]


async def rest_empty_groups(conn: Connection, after: int, most: int = 1000) -> int:
    """Takes groups without rows out of the turn; an insert makes them active again.

    Looks at `most` active groups from `after` on, and answers where to go on: at 0 when these were the last.
    """
    active = [row["id"] for row in await conn.fetch(LOCK_ACTIVE_GROUPS, after, most)]
    if active:
        await conn.execute(REST_EMPTY_GROUPS, active)
    return active[-1] if len(active) == most else 0


def _held(row: ClaimedRow, node: Candidate, assignment: AssignmentId) -> Held:
    timeout = row.timeout_seconds if node.max_timeout is None else min(row.timeout_seconds, node.max_timeout)
    return Held(row.job_id, row.attempt + 1, assignment, row.task_id, row.spec, timeout)


def _claimed(row: Row) -> ClaimedRow:
    return ClaimedRow(
        job_id=row["job_id"],
        task_id=row["task_id"],
        group_id=row["group_id"],
        requirement_id=row["requirement_id"],
        attempt=row["attempt"],
        spec=row["spec"],
        timeout_seconds=row["timeout_seconds"],
    )
