"""What came of a task: results, logs, and its events as they happen."""

from dataclasses import dataclass
from typing import Any, Literal

import trio

from orchestrator.app.tasks import require_own_id
from orchestrator.app.watch import Watch
from orchestrator.domain.errors import NotFound
from orchestrator.domain.history import STREAMS, AttemptHistory, History, JobHistory, Stream
from orchestrator.domain.ids import JobId, TaskId, UserId
from orchestrator.domain.results import build_result, output_text, shown_attempt
from orchestrator.store.db import Connection, Database
from orchestrator.store.results import find_task_of_job, read_histories, read_output

LogStream = Literal["all", "stdout", "stderr"]


@dataclass(frozen=True, slots=True)
class JobReport:
    job: JobHistory
    result: dict[str, Any] | None
    """Absent until the job has ended."""


@dataclass(frozen=True, slots=True)
class TaskReport:
    history: History
    jobs: tuple[JobReport, ...]


@dataclass(frozen=True, slots=True)
class Logs:
    task_id: TaskId
    stdout: str
    stderr: str


class Results:
    def __init__(self, db: Database, watch: Watch) -> None:
        self._db = db
        self._watch = watch

    async def of_task(self, user: UserId, reference: str, wait_seconds: float = 0) -> TaskReport:
        """With `wait_seconds`, when the task has ended or the time is over."""
        task_id = await self._own_id(user, reference)
        if wait_seconds:
            with trio.move_on_after(wait_seconds), self._watch.follow(task_id) as follower:
                while (news := await follower.wait_news()) and not news.status.is_closed:
                    pass

        async def work(conn: Connection) -> TaskReport:
            history = await _history(conn, task_id)
            return TaskReport(history, tuple([await _report(conn, task_id, job) for job in history.jobs]))

        return await self._db.read(work)

    async def of_job(self, user: UserId, job_id: JobId) -> tuple[TaskId, JobReport]:
        async def work(conn: Connection) -> tuple[TaskId, JobReport]:
            task_id = await find_task_of_job(conn, job_id, user)
            if task_id is None:
                raise NotFound("Job not found")
            history = await _history(conn, task_id)
            job = next(job for job in history.jobs if job.id == job_id)
            return task_id, await _report(conn, task_id, job)

        return await self._db.read(work)

    async def logs(self, user: UserId, reference: str, stream: LogStream = "all", attempt: int | None = None) -> Logs:
        """Of the attempt that started last, or of the one named."""

        async def work(conn: Connection) -> Logs:
            task_id = await require_own_id(conn, user, reference)
            found = _pick_attempt(await _history(conn, task_id), attempt)
            texts = dict.fromkeys(STREAMS, "")
            if found is not None:
                for name in STREAMS:
                    if stream in ("all", name):
                        texts[name] = await _text(conn, found[0], found[1], name)
            return Logs(task_id, **texts)

        return await self._db.read(work)

    async def _own_id(self, user: UserId, reference: str) -> TaskId:
        async def work(conn: Connection) -> TaskId:
            return await require_own_id(conn, user, reference)

        return await self._db.read(work)


def _pick_attempt(history: History, number: int | None) -> tuple[JobHistory, AttemptHistory] | None:
    pairs = [(job, attempt) for job in history.jobs for attempt in job.attempts]
    if number is None:
        started = [pair for pair in pairs if pair[1].started_at is not None]
        return max(started, key=lambda pair: (pair[1].started_at, pair[0].id, pair[1].attempt), default=None)
    named = [pair for pair in pairs if pair[1].attempt == number]
    if not named:
        raise NotFound("Attempt not found", field="attempt")
    return named[-1]


async def _history(conn: Connection, task_id: TaskId) -> History:
    return (await read_histories(conn, [task_id]))[task_id]


async def _report(conn: Connection, task_id: TaskId, job: JobHistory) -> JobReport:
    if not job.ended:
        return JobReport(job, None)
    attempt = shown_attempt(job)
    read = [await read_output(conn, job.id, attempt.attempt, name) if attempt else b"" for name in STREAMS]
    return JobReport(job, build_result(task_id, job, *read))


async def _text(conn: Connection, job: JobHistory, attempt: AttemptHistory, stream: Stream) -> str:
    return output_text(attempt, stream, await read_output(conn, job.id, attempt.attempt, stream))
