"""Attempts with their jobs and tasks: locked in one order, changed by domain code, saved in few statements."""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from orchestrator.domain.attempts import AttemptRow, JobRow
from orchestrator.domain.ids import AssignmentId, JobId, NodeId, TaskId
from orchestrator.domain.reports import Chunk
from orchestrator.domain.states import Event, JobStatus, Outcome, TaskStatus, step
from orchestrator.store.db import Connection, Row
from orchestrator.store.queue_rows import QueueRow, enqueue

# Tasks, then jobs, each by id; the attempt is locked with its job, so that what is read is the newest.
_LOCKED = """
    SELECT a.job_id, a.attempt, a.assignment_id, a.node_id, a.spool_id, a.timeout_seconds, a.accepted_at, a.started_at,
           a.ended_at, a.outcome,
           a.exit_code, a.error, a.runtime, a.stdout_length, a.stderr_length, a.stdout_truncated, a.stderr_truncated,
           a.bad_report, a.gap, a.stop_reason, a.stop_requested_at, a.stopped_at,
           j.task_id, j.owner, j.requirement_id, j.status, j.priority, j.attempt AS job_attempt, j.tries,
           j.max_attempts, j.retry_on, j.error AS job_error, j.started_at AS job_started_at,
           j.ended_at AS job_ended_at, j.queue_deadline, t.status AS task_status,
           NOT EXISTS (SELECT FROM jobs o WHERE o.task_id = t.id AND o.id <> j.id) AS only_job
      FROM job_attempts a JOIN jobs j ON j.id = a.job_id JOIN tasks t ON t.id = j.task_id
"""
LOCK_BY_ASSIGNMENT = (
    _LOCKED
    + """
     WHERE a.assignment_id = ANY($1::uuid[]) AND ($2::uuid[] IS NULL OR a.node_id = ANY($2::uuid[]))
  ORDER BY t.id, j.id FOR NO KEY UPDATE OF t, j, a
"""
)
LOCK_ON_NODE = (
    _LOCKED
    + """
     WHERE a.node_id = $1 AND a.stopped_at IS NULL
  ORDER BY t.id, j.id FOR NO KEY UPDATE OF t, j, a
"""
)
LOCK_QUEUED = """
    SELECT j.id AS job_id, j.task_id, j.owner, j.requirement_id, j.status, j.priority, j.attempt AS job_attempt,
           j.tries,
           j.max_attempts, j.retry_on, j.error AS job_error, j.started_at AS job_started_at,
           j.ended_at AS job_ended_at, j.queue_deadline, t.status AS task_status,
           NOT EXISTS (SELECT FROM jobs o WHERE o.task_id = t.id AND o.id <> j.id) AS only_job
      FROM jobs j JOIN tasks t ON t.id = j.task_id
     WHERE j.id = ANY($1::uuid[]) AND j.status = 'queued'
  ORDER BY t.id, j.id FOR NO KEY UPDATE OF t, j
"""

# All that a unit of work changed, in one statement. A job that waits is due by the database's clock: those of the
# control-planes may differ. A task with one job starts and ends with it; the others are looked at afterwards.
SAVE = """
    WITH attempts AS (
        UPDATE job_attempts a
           SET accepted_at = n.accepted_at, started_at = n.started_at, ended_at = n.ended_at, outcome = n.outcome,
               exit_code = n.exit_code, error = n.error, runtime = n.runtime, stdout_length = n.stdout_length,
               stderr_length = n.stderr_length, stdout_truncated = n.stdout_truncated,
               stderr_truncated = n.stderr_truncated,
               bad_report = n.bad_report, gap = n.gap, stop_reason = n.stop_reason,
               stop_requested_at = n.stop_requested_at, stopped_at = n.stopped_at
          FROM unnest($1::uuid[], $2::int[], $3::timestamptz[], $4::timestamptz[], $5::timestamptz[], $6::text[],
                      $7::int[], $8::text[], $9::text[], $10::bigint[], $11::bigint[], $12::boolean[], $13::boolean[],
                      $14::text[], $15::text[], $16::text[], $17::timestamptz[], $18::timestamptz[])
            AS n (job_id, attempt, accepted_at, started_at, ended_at, outcome, exit_code, error, runtime, stdout_length,
                  stderr_length, stdout_truncated, stderr_truncated, bad_report, gap, stop_reason, stop_requested_at,
                  stopped_at)
         WHERE a.job_id = n.job_id AND a.attempt = n.attempt
    ), saved_jobs AS (
        UPDATE jobs j
           SET status = n.status, tries = n.tries, error = n.error,
               not_before = now() + make_interval(secs => n.retry_in), started_at = n.started_at,
               ended_at = n.ended_at, queue_deadline = n.queue_deadline, updated_at = now(),
               assignment_id = CASE WHEN n.status IN ('assigned', 'running') THEN j.assignment_id END,
               node_id = CASE WHEN n.status IN ('assigned', 'running') THEN j.node_id END
          FROM unnest($19::uuid[], $20::text[], $21::int[], $22::text[], $23::float8[], $24::timestamptz[],
                      $25::timestamptz[], $26::timestamptz[])
            AS n (id, status, tries, error, retry_in, started_at, ended_at, queue_deadline)
         WHERE j.id = n.id
    ), started AS (
        UPDATE tasks SET status = 'running', started_at = coalesce(started_at, now()), updated_at = now()
         WHERE id = ANY($27::uuid[]) AND status = 'pending'
    ), ended AS (
        UPDATE tasks t
           SET status = n.status, closed = true, ended_at = n.ended_at, updated_at = now(),
               started_at = coalesce(t.started_at, CASE WHEN n.started THEN now() END)
          FROM unnest($28::uuid[], $29::text[], $30::timestamptz[], $31::boolean[]) AS n (id, status, ended_at, started)
         WHERE t.id = n.id AND NOT t.closed
    )
    SELECT pg_notify('cynode_tasks', '')
"""
JOBS_OF_TASKS = "SELECT task_id, status, ended_at FROM jobs WHERE task_id = ANY($1::uuid[])"
END_TASKS = """
    UPDATE tasks t SET status = n.status, closed = true, ended_at = n.ended_at, updated_at = now()
      FROM unnest($1::uuid[], $2::text[], $3::timestamptz[]) AS n (id, status, ended_at)
     WHERE t.id = n.id AND NOT t.closed
"""
STORE_OUTPUT = """
    INSERT INTO job_output (job_id, attempt, stream, byte_offset, data, at)
    SELECT * FROM unnest($1::uuid[], $2::int[], $3::text[], $4::bigint[], $5::bytea[], $6::timestamptz[])
"""
COUNT_DROPPED = """
    INSERT INTO dropped_reports AS d (node_id, assignment_id, kind, reason, count)
    SELECT node_id, assignment_id, kind, reason, count
      FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::bigint[])
        AS n (node_id, assignment_id, kind, reason, count)
  ORDER BY node_id, assignment_id, kind
        ON CONFLICT (node_id, assignment_id, kind)
        DO UPDATE SET count = d.count + excluded.count, reason = excluded.reason, last_at = now()
"""
DUE_BELL = "NOTIFY cynode_due"

_ATTEMPT_FIELDS = [
    "accepted_at",
    "started_at",
    "ended_at",
    "outcome",
    "exit_code",
    "error",
    "runtime",
    "stdout_length",
    "stderr_length",
    "stdout_truncated",
    "stderr_truncated",
    "bad_report",
    "gap",
    "stop_reason",
    "stop_requested_at",
    "stopped_at",
]
_ATTEMPT_COLUMNS = 22
_JOB_STATUSES = {status.value: status for status in JobStatus}
_TASK_STATUSES = {status.value: status for status in TaskStatus}
_NEVER: frozenset[str] = frozenset()
_JOB_FIELDS = ["status", "tries", "error", "retry_in", "started_at", "ended_at", "queue_deadline"]


async def lock_attempts(
    conn: Connection, assignments: Iterable[AssignmentId], nodes: Iterable[NodeId] | None
) -> dict[AssignmentId, AttemptRow]:
    """Those of the assignments that exist and are of one of these nodes (None: of any)."""
    mine = None if nodes is None else list(nodes)
    return _rows(await conn.fetch(LOCK_BY_ASSIGNMENT, list(assignments), mine))


async def lock_queued(conn: Connection, jobs: Iterable[JobId]) -> list[JobRow]:
    """Those of the jobs that are queued."""
    return [_job(row) for row in await conn.fetch(LOCK_QUEUED, list(jobs))]


async def lock_on_node(conn: Connection, node: NodeId) -> dict[AssignmentId, AttemptRow]:
    """All attempts of a node that still hold a slot: open, or ended and not known to have stopped."""
    return _rows(await conn.fetch(LOCK_ON_NODE, node))


async def save(conn: Connection, rows: Iterable[AttemptRow], chunks: Sequence[Chunk] = ()) -> None:
    """Stores what a unit of work changed: output, attempts, jobs, tasks that started or ended, the queue, the bell."""
    changed = list(rows)
    if chunks:
        await conn.execute(STORE_OUTPUT, *_chunk_columns(chunks))
    if changed:
        await _save(conn, changed, list({row.job.id: row.job for row in changed if row.job.changed}.values()))


async def count_dropped(conn: Connection, dropped: Sequence[tuple[NodeId, AssignmentId, str, str]]) -> None:
    """One row per attempt and kind, with a count: (node, assignment, kind, reason)."""
    counts: dict[tuple[NodeId, AssignmentId, str], tuple[str, int]] = {}
    for node, assignment, kind, reason in dropped:
        counts[node, assignment, kind] = (reason, counts.get((node, assignment, kind), ("", 0))[1] + 1)
    if counts:
        keys, values = list(counts), list(counts.values())
        await conn.execute(
            COUNT_DROPPED,
            [k[0] for k in keys],
            [k[1] for k in keys],
            [k[2] for k in keys],
            [v[0] for v in values],
            [v[1] for v in values],
        )


async def save_jobs(conn: Connection, jobs: Sequence[JobRow]) -> None:
    """For jobs that change without an attempt (a queue deadline that passed)."""
    await _save(conn, [], jobs)


async def _save(conn: Connection, rows: Sequence[AttemptRow], jobs: Sequence[JobRow]) -> None:
    over = [job for job in jobs if job.status.is_ended and not job.task_status.is_closed]
    alone = {job.task_id: job for job in over if job.only_job}
    started = [j.task_id for j in jobs if j.task_status is TaskStatus.RUNNING and j.task_id not in alone]
    ends = list(alone.values())
    await conn.execute(
        SAVE,
        *_attempt_columns(rows),
        *_job_columns(jobs),
        started,
        [job.task_id for job in ends],
        [_end_of([job.status], job.task_status) for job in ends],
        [job.ended_at for job in ends],
        [job.task_status is TaskStatus.RUNNING for job in ends],
    )
    if len(over) > len(alone):
        await _end_tasks(conn, {job.task_id: job.task_status for job in over if not job.only_job})
    if any(job.retry_in is not None for job in jobs):
        await conn.execute(DUE_BELL)
    ready = [job for job in jobs if job.status is JobStatus.QUEUED and job.retry_in is None]
    if ready:
        await enqueue(conn, [QueueRow(job.id, job.owner, job.requirement_id, job.priority) for job in ready])


async def _end_tasks(conn: Connection, tasks: dict[TaskId, TaskStatus]) -> None:
    """A task ends with its last job: failed if one failed, else completed."""
    jobs: dict[TaskId, list[Row]] = {}
    for row in await conn.fetch(JOBS_OF_TASKS, list(tasks)):
        jobs.setdefault(row["task_id"], []).append(row)
    ends: list[tuple[TaskId, TaskStatus, Any]] = []
    for task, rows in jobs.items():
        if all(row["ended_at"] for row in rows):
            status = _end_of([row["status"] for row in rows], tasks[task])
            ends.append((task, status, max(row["ended_at"] for row in rows)))
    if ends:
        await conn.execute(END_TASKS, [e[0] for e in ends], [str(e[1]) for e in ends], [e[2] for e in ends])


def _end_of(jobs: Sequence[str], task: TaskStatus) -> TaskStatus:
    return step(task, Event.SOME_FAILED if JobStatus.FAILED in jobs else Event.ALL_COMPLETED)


def _chunk_columns(chunks: Sequence[Chunk]) -> list[list[Any]]:
    return [
        [c.row.job_id for c in chunks],
        [c.row.attempt for c in chunks],
        [c.stream for c in chunks],
        [c.offset for c in chunks],
        [c.data for c in chunks],
        [c.at for c in chunks],
    ]


def _attempt_columns(rows: Sequence[AttemptRow]) -> list[list[Any]]:
    keys: list[list[Any]] = [[row.job_id for row in rows], [row.attempt for row in rows]]
    return keys + [[getattr(row, name) for row in rows] for name in _ATTEMPT_FIELDS]


def _job_columns(jobs: Sequence[JobRow]) -> list[list[Any]]:
    ids: list[Any] = [job.id for job in jobs]
    return [ids, *([getattr(job, name) for job in jobs] for name in _JOB_FIELDS)]


def _rows(rows: Iterable[Row]) -> dict[AssignmentId, AttemptRow]:
    jobs: dict[UUID, JobRow] = {}
    return {row["assignment_id"]: _attempt(row, jobs.setdefault(row["job_id"], _job(row))) for row in rows}


def _job(row: Row) -> JobRow:
    return JobRow(
        id=row["job_id"],
        task_id=row["task_id"],
        owner=row["owner"],
        requirement_id=row["requirement_id"],
        status=_JOB_STATUSES[row["status"]],
        priority=row["priority"],
        attempt=row["job_attempt"],
        tries=row["tries"],
        max_attempts=row["max_attempts"],
        retry_on=frozenset(row["retry_on"]) if row["retry_on"] else _NEVER,
        error=row["job_error"],
        task_status=_TASK_STATUSES[row["task_status"]],
        only_job=row["only_job"],
        started_at=row["job_started_at"],
        ended_at=row["job_ended_at"],
        queue_deadline=row["queue_deadline"],
    )


def _attempt(row: Row, job: JobRow) -> AttemptRow:
    """The columns come in the order of the fields."""
    found = AttemptRow(*[*row.values()][:_ATTEMPT_COLUMNS], *[job])
    found.outcome = None if found.outcome is None else Outcome(found.outcome)
    return found
