"""A control-plane without its sockets: the use cases on a real database, and rows to begin with."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from orchestrator.app.clock import new_id, now
from orchestrator.app.dispatch import Dispatch, Open
from orchestrator.app.links import Hello, Links, Takeover
from orchestrator.app.reports import Judged, Report, Reports
from orchestrator.domain.dispatch import Held
from orchestrator.domain.ids import JobId, NodeId, TaskId, UserId
from orchestrator.domain.jobspec import JobRules
from orchestrator.domain.reports import Fact, Finished, Output, Ref, Started
from orchestrator.domain.selection import NodeAbility
from orchestrator.domain.states import Outcome
from orchestrator.domain.tasks import NewTask, TaskWanted, plan_task
from orchestrator.store.db import Connection, Database
from orchestrator.store.new_tasks import insert_tasks
from orchestrator.store.queue_rows import QueueRow, enqueue, ensure_requirements


@dataclass
class Plane:
    db: Database
    number: int = 0
    links: Links = field(init=False)
    queue: Dispatch = field(init=False)
    reports: Reports = field(init=False)

    def __post_init__(self) -> None:
        self.links = Links(self.db, new_id())
        self.queue = Dispatch(self.db)
        self.reports = Reports(self.db)

    async def sql(self, query: str, *args: object) -> list[dict[str, object]]:
        async def work(conn: Connection) -> list[dict[str, object]]:
            return [dict(row.items()) for row in await conn.fetch(query, *args)]

        return await self.db.transact(work)

    async def one(self, query: str, *args: object) -> object:
        [row] = await self.sql(query, *args)
        [value] = row.values()
        return value

    async def user(self, handle: str) -> UserId:
        user = UserId(new_id())
        await self.sql("INSERT INTO users (id, handle) VALUES ($1, $2)", user, handle)
        await self.sql(
            "INSERT INTO projects (id, slug, display_name, default_of) VALUES ($1, $2, 'x', $3)", new_id(), handle, user
        )
        return user

    async def node(self, slug: str) -> NodeId:
        node = NodeId(new_id())
        await self.sql("INSERT INTO nodes (id, slug) VALUES ($1, $2)", node, slug)
        return node

    async def jobs(self, owner: UserId, count: int = 1, **fields: object) -> list[JobId]:
        return [await self._job(owner, **fields) for _ in range(count)]

    async def backlog(self, owner: UserId, count: int, priority: int = 0) -> list[JobId]:
        """Many tasks of one job each, as a gateway stores them."""
        tasks = [planned(owner, priority) for _ in range(count)]
        for first in range(0, count, 1000):

            async def work(conn: Connection, some: Sequence[NewTask] = tasks[first : first + 1000]) -> None:
                await insert_tasks(conn, some)

            await self.db.transact(work)
        return [task.job_id for task in tasks]

    async def _job(
        self,
        owner: UserId,
        priority: int = 0,
        requirement: dict[str, object] | None = None,
        max_attempts: int = 3,
        task: UUID | None = None,
        queue_timeout: float | None = None,
    ) -> JobId:
        job = JobId(new_id())
        body = json.dumps(requirement or {})

        async def work(conn: Connection) -> None:
            nonlocal task
            if task is None:
                task = new_id()
                await conn.execute(
                    "INSERT INTO tasks (id, created_by, project_id, name, input_mode, prompt) "
                    "SELECT $1, $2, p.id, $3, 'script', 'true' FROM projects p WHERE p.default_of = $2",
                    task, owner, f"task-{task.hex}",
                )  # fmt: skip
            requirement_id = (await ensure_requirements(conn, [body]))[body]
            await conn.execute(
                "INSERT INTO jobs (id, task_id, owner, requirement_id, spec, priority, timeout_seconds, max_attempts, "
                "queue_deadline) VALUES ($1, $2, $3, $4, '{}', $5, 60, $6, now() + make_interval(secs => $7))",
                job, task, owner, requirement_id, priority, max_attempts, queue_timeout,
            )  # fmt: skip
            await enqueue(conn, [QueueRow(job, owner, requirement_id, priority)])

        await self.db.transact(work)
        return job

    async def hello(
        self, node: NodeId, slug: str, held: Sequence[Ref] = (), spool: str = "spool", dial: int = 0
    ) -> Takeover:
        return await self.links.take_over(Hello(node, slug, spool, "start", "1", 8, tuple(held), dial))

    async def claim(self, node: NodeId, takeover: Takeover, free: int, slug: str = "n") -> list[Held]:
        opened = Open(node, takeover.link_id, "spool", slug, free, NodeAbility())
        return (await self.queue.claim([opened])).given.get(node, [])

    async def report(self, node: NodeId, takeover: Takeover, *facts: Fact) -> Judged:
        [answer] = await self.reports.write([Report(node, takeover.link_id, facts)])
        if isinstance(answer, Exception):
            raise answer
        return answer


def planned(owner: UserId, priority: int = 0) -> NewTask:
    wanted = TaskWanted("true", input_mode="script", priority=priority)
    return plan_task(wanted, owner, TaskId(new_id()), JobId(new_id()), now(), JobRules())


def ref(job: Held) -> Ref:
    return Ref(job.job_id, job.attempt, job.assignment_id)


def started(job: Held) -> Started:
    return Started(ref(job), now(), "bubblewrap")


def output(job: Held, offset: int, data: bytes, stream: str = "stdout") -> Output:
    return Output(ref(job), now(), stream, offset, data)


def finished(job: Held, outcome: Outcome = Outcome.COMPLETED, code: int | None = 0, length: int = 0) -> Finished:
    return Finished(ref(job), now(), outcome, True, code, length, 0, False, False, None)
