"""What jobs have done: attempts and their output, read only."""

from collections.abc import Iterable, Sequence

from orchestrator.domain.history import STREAMS, AttemptHistory, Chunk, History, JobHistory, OutputPage, Stream
from orchestrator.domain.ids import JobId, TaskId, UserId
from orchestrator.domain.states import JobStatus, TaskStatus
from orchestrator.store.db import Connection, Row

# One statement, so that an attempt that shows as ended is one whose output is all there for the next statement.
HISTORIES = """
    SELECT t.id AS task_id, t.created_by, t.status AS task_status, j.id AS job_id, j.status, j.attempt AS last_attempt,
           j.error, j.created_at, j.started_at AS job_started_at, j.ended_at AS job_ended_at, a.attempt, n.slug,
           a.runtime, a.started_at, a.ended_at, a.outcome, a.exit_code, a.error AS attempt_error, a.stdout_length,
           a.stderr_length, a.stdout_truncated, a.stderr_truncated
      FROM tasks t
      JOIN jobs j ON j.task_id = t.id
      LEFT JOIN job_attempts a ON a.job_id = j.id
      LEFT JOIN nodes n ON n.id = a.node_id
     WHERE t.id = ANY($1::uuid[])
  ORDER BY t.id, j.id, a.attempt
"""
TASK_OF_JOB = "SELECT t.id FROM jobs j JOIN tasks t ON t.id = j.task_id WHERE j.id = $1 AND t.created_by = $2"
WHOLE_STREAM = """
    SELECT data FROM job_output WHERE job_id = $1 AND attempt = $2 AND stream = $3 ORDER BY byte_offset
"""
# Each stream from the chunk that holds its offset, which the index finds; one statement, so that neither is ahead.
PAGE = """
    (SELECT stream, byte_offset, seq, data FROM job_output
      WHERE job_id = $1 AND attempt = $2 AND stream = 'stdout' AND byte_offset >= coalesce(
            (SELECT max(byte_offset) FROM job_output
              WHERE job_id = $1 AND attempt = $2 AND stream = 'stdout' AND byte_offset <= $3), 0)
   ORDER BY byte_offset LIMIT $5)
    UNION ALL
    (SELECT stream, byte_offset, seq, data FROM job_output
      WHERE job_id = $1 AND attempt = $2 AND stream = 'stderr' AND byte_offset >= coalesce(
            (SELECT max(byte_offset) FROM job_output
              WHERE job_id = $1 AND attempt = $2 AND stream = 'stderr' AND byte_offset <= $4), 0)
   ORDER BY byte_offset LIMIT $5)
"""
MOST_CHUNKS = 200
"""Of each stream in one page; at least a few, since the first ones may have been told already."""


async def read_histories(conn: Connection, tasks: Iterable[TaskId]) -> dict[TaskId, History]:
    by_task: dict[TaskId, list[Row]] = {}
    for row in await conn.fetch(HISTORIES, list(tasks)):
        by_task.setdefault(row["task_id"], []).append(row)
    return {task: _history(rows) for task, rows in by_task.items()}


async def find_task_of_job(conn: Connection, job: JobId, owner: UserId) -> TaskId | None:
    found: TaskId | None = await conn.fetchval(TASK_OF_JOB, job, owner)
    return found


async def read_output(conn: Connection, job: JobId, attempt: int, stream: Stream) -> bytes:
    return b"".join(row["data"] for row in await conn.fetch(WHOLE_STREAM, job, attempt, stream))


async def read_page(conn: Connection, job: JobId, attempt: int, offsets: tuple[int, int]) -> OutputPage:
    """Chunks from the offsets on, in the order in which they came, as far as both streams are known."""
    rows = await conn.fetch(PAGE, job, attempt, *offsets, MOST_CHUNKS)
    chunks = [Chunk(row["stream"], row["byte_offset"], row["seq"], row["data"]) for row in rows]
    ends = [_last_of_full([chunk for chunk in chunks if chunk.stream == stream]) for stream in STREAMS]
    upto = min((end for end in ends if end is not None), default=None)
    shown = sorted((c for c in chunks if upto is None or c.seq <= upto), key=lambda chunk: chunk.seq)
    return OutputPage(tuple(shown), more=upto is not None)


def _last_of_full(chunks: Sequence[Chunk]) -> int | None:
    """The last `seq` of a stream that may go on after its page."""
    return max(chunk.seq for chunk in chunks) if len(chunks) == MOST_CHUNKS else None


def _history(rows: Sequence[Row]) -> History:
    by_job: dict[JobId, list[Row]] = {}
    for row in rows:
        by_job.setdefault(row["job_id"], []).append(row)
    first = rows[0]
    return History(
        task_id=first["task_id"],
        owner=first["created_by"],
        status=TaskStatus(first["task_status"]),
        jobs=tuple(_job(group) for group in by_job.values()),
    )


def _job(rows: Sequence[Row]) -> JobHistory:
    first = rows[0]
    return JobHistory(
        id=first["job_id"],
        status=JobStatus(first["status"]),
        attempt=first["last_attempt"],
        error=first["error"],
        created_at=first["created_at"],
        started_at=first["job_started_at"],
        ended_at=first["job_ended_at"],
        attempts=tuple(_attempt(row) for row in rows if row["attempt"] is not None),
    )


def _attempt(row: Row) -> AttemptHistory:
    return AttemptHistory(
        attempt=row["attempt"],
        node_slug=row["slug"],
        runtime=row["runtime"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        outcome=row["outcome"],
        exit_code=row["exit_code"],
        error=row["attempt_error"],
        stdout_length=row["stdout_length"],
        stderr_length=row["stderr_length"],
        stdout_truncated=row["stdout_truncated"],
        stderr_truncated=row["stderr_truncated"],
    )
