"""What an attempt's end does to its job: tries, back-off, final errors. Pure."""

from dataclasses import dataclass
from datetime import datetime

from orchestrator.domain.ids import AssignmentId, JobId, NodeId, TaskId, UserId
from orchestrator.domain.states import Event, JobStatus, Outcome, TaskStatus, step

BACKOFF_SECONDS = (1.0, 5.0, 25.0)
NODE_FAULTS = ("image_pull", "sandbox_start", "spool_full")
"""Errors of a node that do not speak against the job: it is tried again, at the cost of a try."""

NODE_LOST = "node_lost"
BAD_REPORT = "bad_report"


@dataclass(slots=True)
class AttemptRow:
    """An attempt with its job and task, as locked by one unit of work, which changes it and saves what changed."""

    job_id: JobId
    attempt: int
    assignment_id: AssignmentId
    node_id: NodeId
    spool_id: str
    timeout_seconds: float
    accepted_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    outcome: Outcome | None
    exit_code: int | None
    error: str | None
    runtime: str | None
    stdout_length: int
    stderr_length: int
    stdout_truncated: bool
    stderr_truncated: bool
    bad_report: str | None
    gap: str | None
    stop_reason: str | None
    stop_requested_at: datetime | None
    stopped_at: datetime | None
    job: "JobRow"

    @property
    def is_open(self) -> bool:
        return self.ended_at is None


@dataclass(slots=True)
class JobRow:
    id: JobId
    task_id: TaskId
    owner: UserId
    requirement_id: int
    status: JobStatus
    priority: int
    attempt: int
    tries: int
    max_attempts: int
    retry_on: frozenset[str]
    error: str | None
    task_status: TaskStatus
    only_job: bool = False
    """Of its task, which ends with it."""
    retry_in: float | None = None
    """Seconds before it is queued again, counted by the database, whose clock says when it is due."""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    queue_deadline: datetime | None = None
    changed: bool = False
    """Set by whoever changes it here, so that an unchanged job is neither written nor queued anew."""


@dataclass(frozen=True, slots=True)
class End:
    """How an attempt ended, and when; `final_error` is for ends after which the job cannot be tried again."""

    outcome: Outcome
    at: datetime
    exit_code: int | None = None
    error: str | None = None
    final_error: str | None = None
    stopped: bool = True
    """Whether nothing of it runs any more."""


def end_attempt(row: AttemptRow, end: End, *, jitter: float) -> None:
    """Ends an open attempt and moves its job: to its own end, or back into the queue. `jitter` is in 0…1."""
    row.outcome, row.ended_at = end.outcome, end.at
    row.exit_code, row.error = end.exit_code, end.final_error or end.error
    if end.stopped:
        row.stopped_at = end.at
    job = row.job
    if end.outcome is Outcome.COMPLETED:
        end_job(job, Event.COMPLETE, None, end.at)
    elif end.final_error is not None:
        end_job(job, Event.FAIL, end.final_error, end.at)
    elif is_free_of_charge(row, end):
        _queue_again(job, None)
    elif not may_be_tried_again(row, end):
        end_job(job, Event.FAIL, final_error(row, end), end.at)
    else:
        job.tries += 1
        if job.tries >= job.max_attempts:
            end_job(job, Event.FAIL, final_error(row, end), end.at)
        else:
            _queue_again(job, backoff(job.tries, jitter))


def is_free_of_charge(row: AttemptRow, end: End) -> bool:
    """A rejected attempt, and one handed back before its start or that may start again, cost no try."""
    if end.outcome is Outcome.REJECTED:
        return True
    return end.outcome is Outcome.HANDED_BACK and (row.started_at is None or row.job.max_attempts > 1)


def may_be_tried_again(row: AttemptRow, end: End) -> bool:
    """A job that ran and failed is final, unless it asked to be tried again; a node's fault never is."""
    if end.outcome is Outcome.TIMEOUT:
        return "timeout" in row.job.retry_on
    if end.outcome is Outcome.FAILED and not is_node_fault(row, end):
        return "exit" in row.job.retry_on
    return end.outcome is not Outcome.HANDED_BACK


def is_node_fault(row: AttemptRow, end: End) -> bool:
    if end.outcome is not Outcome.FAILED:
        return False
    code = (end.error or "").partition(":")[0]
    return code in NODE_FAULTS or (row.started_at is None and end.exit_code is None)


def final_error(row: AttemptRow, end: End) -> str | None:
    """The job's error, once no try is left: a lost node, or the attempt's own; none for a plain exit code."""
    if end.outcome in (Outcome.LOST, Outcome.CANCELED):
        return NODE_LOST
    if end.outcome in (Outcome.TIMEOUT, Outcome.HANDED_BACK):
        return end.error or str(end.outcome)
    return end.error or ("sandbox_start" if row.started_at is None else None)


def backoff(tries: int, jitter: float) -> float:
    """Seconds to wait after so many tries: 1, 5, 25, give or take a fifth."""
    return BACKOFF_SECONDS[min(tries, len(BACKOFF_SECONDS)) - 1] * (0.8 + 0.4 * jitter)


def start_attempt(row: AttemptRow, at: datetime, runtime: str | None) -> None:
    row.started_at, row.runtime = at, runtime
    row.accepted_at = row.accepted_at or at
    job = row.job
    job.changed, job.status = True, step(job.status, Event.STARTED)
    job.started_at = job.started_at or at
    job.queue_deadline = None
    job.task_status = step(job.task_status, Event.JOB_STARTED)


def _queue_again(job: JobRow, retry_in: float | None) -> None:
    job.changed, job.status = True, step(job.status, Event.QUEUE_AGAIN)
    job.retry_in = retry_in


def end_job(job: JobRow, event: Event, error: str | None, at: datetime) -> None:
    job.changed, job.status = True, step(job.status, event)
    job.error, job.ended_at, job.queue_deadline = error, at, None
