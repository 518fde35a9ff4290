"""Tasks as their owners use them: submitted, listed, read, canceled."""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.app.clock import new_id, now
from orchestrator.app.settle import settle
from orchestrator.app.submit import Submission, Submissions, Submitted
from orchestrator.domain.errors import NotFound
from orchestrator.domain.ids import JobId, ProjectId, TaskId, UserId
from orchestrator.domain.jobspec import JobRules
from orchestrator.domain.names import read_reference
from orchestrator.domain.queue import QueueFigures
from orchestrator.domain.task_lists import ListWanted, TaskPage, cut_page
from orchestrator.domain.tasks import NewTask, Task, TaskWanted, plan_task
from orchestrator.faults import reach
from orchestrator.store.cancel import cancel_task
from orchestrator.store.db import Connection, Database
from orchestrator.store.projects import may_use_project
from orchestrator.store.queue_figures import read_queue_figures
from orchestrator.store.tasks import Filter, find_own_id, find_own_task, list_tasks

NO_TASK = "Task not found"


@dataclass(frozen=True, slots=True)
class RepeatKey:
    """A client's Idempotency-Key, and the hash of the body that came with it."""

    key: str
    body_hash: bytes


class Tasks:
    def __init__(self, db: Database, submissions: Submissions, rules: JobRules) -> None:
        self._db = db
        self._submissions = submissions
        self._rules = rules

    async def submit(self, user: UserId, wanted: Sequence[TaskWanted], repeat: RepeatKey | None = None) -> Submitted:
        """Stores all of them or none. With a key that was used before: the tasks of then, as they are now."""
        at = now()
        tasks = tuple(plan_task(one, user, TaskId(new_id()), JobId(new_id()), at, self._rules) for one in wanted)
        await self._check_projects(user, tasks)
        if repeat is None:
            return await self._submissions.submit(Submission(user, tasks))
        return await self._submissions.submit(Submission(user, tasks, repeat.key, repeat.body_hash))

    async def page(self, user: UserId, wanted: ListWanted) -> TaskPage:
        async def work(conn: Connection) -> list[Task]:
            return await list_tasks(
                conn,
                user,
                Filter(wanted.status, wanted.labels),
                before=wanted.before,
                offset=wanted.offset or 0,
                limit=wanted.limit + 1,
            )

        return cut_page(await self._db.read(work), wanted)

    async def get(self, user: UserId, reference: str) -> Task:
        async def work(conn: Connection) -> Task | None:
            return await find_own_task(conn, user, _key(reference))

        task = await self._db.read(work)
        if task is None:
            raise NotFound(NO_TASK)
        return task

    async def cancel(self, user: UserId, reference: str) -> tuple[TaskId, bool]:
        """Whether the task is canceled now. One commit ends task, jobs and attempts; nodes stop what runs later."""
        at = now()

        async def work(conn: Connection) -> tuple[TaskId, bool]:
            task_id = await require_own_id(conn, user, reference)
            canceled = await cancel_task(conn, task_id, at)
            reach("gateway.cancel.before_commit")
            return task_id, canceled

        answer = await settle(self._db, work)
        reach("gateway.cancel.after_commit")
        return answer

    async def queue(self) -> QueueFigures:
        return await self._db.read(read_queue_figures)

    async def _check_projects(self, user: UserId, tasks: Sequence[NewTask]) -> None:
        named = {task.project_id for task in tasks if task.project_id is not None}

        async def work(conn: Connection) -> list[ProjectId]:
            return [project for project in named if not await may_use_project(conn, user, project)]

        refused = await self._db.read(work) if named else []
        if refused:
            raise NotFound("Project not found", field="project_id")


async def require_own_id(conn: Connection, user: UserId, reference: str) -> TaskId:
    """For an id or a name as a user gave it; another user's task is not there."""
    task_id = await find_own_id(conn, user, _key(reference))
    if task_id is None:
        raise NotFound(NO_TASK)
    return task_id


def _key(reference: str) -> TaskId | str:
    key = read_reference(reference)
    return key if isinstance(key, str) else TaskId(key)
