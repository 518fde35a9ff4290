"""Jobs whose time has come: the end of a back-off, or of the time that they may wait in the queue."""

from datetime import datetime
from typing import cast

from orchestrator.domain.attempts import AttemptRow, End, end_attempt, end_job
from orchestrator.domain.ids import AssignmentId, JobId
from orchestrator.domain.states import Event, JobStatus, Outcome
from orchestrator.store.attempts import lock_attempts, lock_queued, save, save_jobs
from orchestrator.store.db import Connection
from orchestrator.store.queue_rows import QueueRow, enqueue

READY = """
    UPDATE jobs SET not_before = NULL, updated_at = now()
     WHERE id IN (SELECT id FROM jobs WHERE not_before <= now() ORDER BY id LIMIT 500 FOR NO KEY UPDATE SKIP LOCKED)
 RETURNING id, owner, requirement_id, priority
"""
TOO_LATE = """
    SELECT j.id, j.assignment_id, j.node_id, now() AS at FROM jobs j
     WHERE j.queue_deadline <= now() AND j.status IN ('queued', 'assigned') ORDER BY j.id LIMIT 500
"""
NEXT = """
    SELECT extract(epoch FROM least((SELECT min(not_before) FROM jobs WHERE not_before IS NOT NULL),
                                    (SELECT min(queue_deadline) FROM jobs WHERE queue_deadline IS NOT NULL))
                              - now())::float8
"""
LEAVE_QUEUE = "DELETE FROM job_queue WHERE job_id = ANY($1::uuid[])"
STOP_BELL = "NOTIFY cynode_stops"
QUEUE_TIMEOUT = "queue_timeout"


async def promote(conn: Connection) -> float | None:
    """Does what is due now; answers in how many seconds to come again, None when nothing waits for a time."""
    ready = await conn.fetch(READY)
    if ready:
        await enqueue(conn, [QueueRow(r["id"], r["owner"], r["requirement_id"], r["priority"]) for r in ready])
    late = await conn.fetch(TOO_LATE)
    if late:
        await _give_up(conn, [r["assignment_id"] for r in late if r["assignment_id"]], late[0]["at"])
        await _drop(conn, [r["id"] for r in late], late[0]["at"])
    return cast("float | None", await conn.fetchval(NEXT))


async def _give_up(conn: Connection, assignments: list[AssignmentId], at: datetime) -> None:
    """Those that a node has and has not started: ended here, stopped there as by a cancel."""
    rows = await lock_attempts(conn, assignments, None) if assignments else {}
    ended: list[AttemptRow] = []
    for row in rows.values():
        if row.is_open and row.started_at is None:
            end_attempt(row, End(Outcome.TIMEOUT, at, final_error=QUEUE_TIMEOUT, stopped=False), jitter=0)
            row.stop_reason, row.stop_requested_at = "timeout", at
            ended.append(row)
    if ended:
        await save(conn, ended)
        await conn.execute(STOP_BELL)


async def _drop(conn: Connection, jobs: list[JobId], at: datetime) -> None:
    rows = [job for job in await lock_queued(conn, jobs) if job.status is JobStatus.QUEUED]
    for job in rows:
        end_job(job, Event.FAIL, QUEUE_TIMEOUT, at)
    if rows:
        await conn.execute(LEAVE_QUEUE, [job.id for job in rows])
        await save_jobs(conn, rows)
