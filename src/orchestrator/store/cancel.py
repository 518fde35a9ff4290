"""The end of a task by its owner's will: task, jobs and attempts in one commit."""

from datetime import datetime

from orchestrator.domain.ids import TaskId
from orchestrator.domain.states import TaskStatus
from orchestrator.store.db import Connection

LOCK_TASK = "SELECT status FROM tasks WHERE id = $1 FOR NO KEY UPDATE"
CANCEL_TASK = """
    UPDATE tasks SET status = 'canceled', closed = true, ended_at = $2, updated_at = $2 WHERE id = $1 AND NOT closed
"""
LEAVE_QUEUE = "DELETE FROM job_queue WHERE job_id IN (SELECT id FROM jobs WHERE task_id = $1)"
LOCK_JOBS = """
    SELECT id FROM jobs WHERE task_id = $1 AND status IN ('queued', 'assigned', 'running') ORDER BY id FOR NO KEY UPDATE
"""
CANCEL_JOBS = """
    UPDATE jobs SET status = 'canceled', ended_at = $2, updated_at = $2, assignment_id = NULL, node_id = NULL,
                    not_before = NULL, queue_deadline = NULL
     WHERE id = ANY($1::uuid[])
"""
END_ATTEMPTS = """
    UPDATE job_attempts SET outcome = 'canceled', ended_at = $2, stop_requested_at = $2, stop_reason = 'canceled'
     WHERE job_id = ANY($1::uuid[]) AND ended_at IS NULL
 RETURNING job_id
"""
TASK_BELL = "NOTIFY cynode_tasks"
STOP_BELL = "NOTIFY cynode_stops"


async def cancel_task(conn: Connection, task: TaskId, at: datetime) -> bool:
    """Whether the task is canceled now. A finish that holds the task's row is waited for, and has then won."""
    status = await conn.fetchval(LOCK_TASK, task)
    if status is None or TaskStatus(status).is_closed:
        return bool(status == TaskStatus.CANCELED)
    await conn.execute(CANCEL_TASK, task, at)
    # A claim locks the row of the queue before the job: so here, too; once more for a job that came back meanwhile.
    await conn.execute(LEAVE_QUEUE, task)
    jobs = [row["id"] for row in await conn.fetch(LOCK_JOBS, task)]
    await conn.execute(LEAVE_QUEUE, task)
    await conn.execute(CANCEL_JOBS, jobs, at)
    if await conn.fetch(END_ATTEMPTS, jobs, at):
        await conn.execute(STOP_BELL)
    await conn.execute(TASK_BELL)
    return True
