"""A user gateway with tasks on a real port and a real database; what nodes would report is written by SQL."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import trio

from http_client import serving
from identity import Identity, client_of, make_identity
from orchestrator.app.clock import new_id, now
from orchestrator.app.events import TaskEvents
from orchestrator.app.results import Results
from orchestrator.app.sandbox_rule import SandboxRule
from orchestrator.app.submit import Submissions
from orchestrator.app.tasks import Tasks
from orchestrator.app.watch import Watch
from orchestrator.domain.ids import SessionId, UserId
from orchestrator.domain.jobspec import JobRules
from orchestrator.store.db import Connection, Database
from orchestrator.store.notify import listen
from orchestrator.user_gateway.app import create_user_gateway
from orchestrator.user_gateway.events import event_routes
from orchestrator.user_gateway.jobs import job_routes
from orchestrator.user_gateway.queue import queue_routes
from orchestrator.user_gateway.tasks import task_routes

Headers = dict[str, str]


@dataclass(frozen=True)
class World:
    db: Database
    identity: Identity
    client: httpx.AsyncClient
    watch: Watch
    tasks: Tasks

    async def log_in(self, handle: str) -> Headers:
        """A new user with a session, without the price of a password."""
        user, session = UserId(new_id()), SessionId(new_id())
        await self.sql("INSERT INTO users (id, handle) VALUES ($1, $2)", user, handle)
        await self.sql(
            "INSERT INTO projects (id, slug, display_name, default_of) VALUES ($1, $2, $2, $3)", new_id(), handle, user
        )
        await self.sql(
            "INSERT INTO refresh_sessions (id, user_id, refresh_token_hash, expires_at) VALUES ($1, $2, $3, $4)",
            session, user, session.bytes, now() + timedelta(days=1),
        )  # fmt: skip
        return {"Authorization": f"Bearer {self.identity.tokens.access(user, handle, session, now()).text}"}

    async def sql(self, query: str, *args: Any) -> list[Any]:
        async def work(conn: Connection) -> list[Any]:
            return [tuple(row.values()) for row in await conn.fetch(query, *args)]

        return await self.db.transact(work)

    async def create(self, headers: Headers, **fields: Any) -> dict[str, Any]:
        body = {"prompt": "echo hi", "input_mode": "script"} | fields
        answer = await self.client.post("/v1/tasks", json=body, headers=headers)
        assert answer.status_code == 201, answer.text
        task: dict[str, Any] = answer.json()
        return task

    async def get(self, path: str, headers: Headers, **params: Any) -> dict[str, Any]:
        answer = await self.client.get(path, headers=headers, params=params)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def hand(self, task: dict[str, Any]) -> "Hand":
        """Plays the node for the task's job."""
        [(job,)] = await self.sql("SELECT id FROM jobs WHERE task_id = $1", UUID(task["id"]))
        return Hand(self, UUID(task["id"]), job)


@dataclass
class Hand:
    world: World
    task: UUID
    job: UUID
    attempt: int = 0

    async def assign(self, slug: str = "node-1") -> None:
        self.attempt += 1
        node, assignment = await self._node(slug), uuid4()
        await self.world.sql("DELETE FROM job_queue WHERE job_id = $1", self.job)
        await self.world.sql(
            "UPDATE jobs SET status = 'assigned', attempt = $2, assignment_id = $3, node_id = $4 WHERE id = $1",
            self.job, self.attempt, assignment, node,
        )  # fmt: skip
        await self._told(
            """INSERT INTO job_attempts (job_id, attempt, assignment_id, node_id, link_id, spool_id, timeout_seconds)
               VALUES ($1, $2, $3, $4, $5, 'spool', 60)""",
            self.job, self.attempt, assignment, node, uuid4(),
        )  # fmt: skip

    async def start(self, slug: str = "node-1") -> None:
        await self.assign(slug)
        await self._told(
            """WITH task AS (UPDATE tasks SET status = 'running', started_at = now() WHERE id = $3),
                    job AS (UPDATE jobs SET status = 'running', started_at = now() WHERE id = $1)
               UPDATE job_attempts SET started_at = now(), accepted_at = now(), runtime = 'bubblewrap'
                WHERE job_id = $1 AND attempt = $2""",
            self.job, self.attempt, self.task,
        )  # fmt: skip

    async def write(self, data: bytes, stream: str = "stdout") -> None:
        column = {"stdout": ADD_STDOUT, "stderr": ADD_STDERR}[stream]
        await self._told(column, self.job, self.attempt, data, stream)

    async def end_attempt(self, outcome: str, exit_code: int | None = None, error: str | None = None) -> None:
        """The job goes back to the queue."""
        await self._told(
            """WITH job AS (UPDATE jobs SET status = 'queued', assignment_id = NULL, node_id = NULL WHERE id = $1)
               UPDATE job_attempts SET ended_at = now(), stopped_at = now(), outcome = $3, exit_code = $4, error = $5
                WHERE job_id = $1 AND attempt = $2""",
            self.job, self.attempt, outcome, exit_code, error,
        )  # fmt: skip

    async def finish(
        self, outcome: str = "completed", exit_code: int | None = 0, *, error: str | None = None, cut: bool = False
    ) -> bool:
        """Attempt, job and task end in one commit, unless the task has ended before."""
        status = "completed" if outcome == "completed" else "failed"

        async def work(conn: Connection) -> bool:
            if await conn.fetchval("SELECT closed FROM tasks WHERE id = $1 FOR NO KEY UPDATE", self.task):
                return False
            await conn.execute(
                """UPDATE jobs SET status = $2, assignment_id = NULL, node_id = NULL, ended_at = now(), error = $3
                    WHERE id = $1""",
                self.job, status, error,
            )  # fmt: skip
            await conn.execute(
                "UPDATE tasks SET status = $2, closed = true, ended_at = now() WHERE id = $1", self.task, status
            )
            await conn.execute(
                """UPDATE job_attempts SET ended_at = now(), stopped_at = now(), outcome = $3, exit_code = $4,
                                           error = $5, stdout_truncated = $6
                    WHERE job_id = $1 AND attempt = $2""",
                self.job, self.attempt, outcome, exit_code, error, cut,
            )  # fmt: skip
            await conn.execute("NOTIFY cynode_tasks")
            return True

        return await self.world.db.transact(work)

    async def _node(self, slug: str) -> Any:
        await self.world.sql("INSERT INTO nodes (id, slug) VALUES ($1, $2) ON CONFLICT DO NOTHING", new_id(), slug)
        return (await self.world.sql("SELECT id FROM nodes WHERE slug = $1", slug))[0][0]

    async def _told(self, query: str, *args: Any) -> None:
        async def work(conn: Connection) -> None:
            await conn.fetch(query, *args)
            await conn.execute("NOTIFY cynode_tasks")

        await self.world.db.transact(work)


ADD_STDOUT = """
    WITH a AS (UPDATE job_attempts SET stdout_length = stdout_length + length($3::bytea)
                WHERE job_id = $1 AND attempt = $2 RETURNING stdout_length AS upto)
    INSERT INTO job_output (job_id, attempt, stream, byte_offset, data, at)
    SELECT $1, $2, $4, a.upto - length($3::bytea), $3, now() FROM a
"""
ADD_STDERR = ADD_STDOUT.replace("stdout_length", "stderr_length")


@asynccontextmanager
async def open_world(
    dsn: str, db: Database, *, rules: JobRules | None = None, beat_seconds: float = 15.0
) -> AsyncIterator[World]:
    identity, watch, submissions = make_identity(db), Watch(db), Submissions(db)
    tasks, results, gate = Tasks(db, submissions, rules or JobRules()), Results(db, watch), identity.gate
    app = create_user_gateway([
        task_routes(tasks, results, gate, SandboxRule(db, process_for_admins_only=False)),
        event_routes(TaskEvents(db, watch), gate, identity.sessions.revalidate, beat_seconds=beat_seconds),
        job_routes(results, gate),
        queue_routes(tasks, gate),
    ])  # fmt: skip
    async with trio.open_nursery() as nursery:
        await nursery.start(submissions.run)
        await nursery.start(watch.run)
        await nursery.start(listen, dsn, {"cynode_tasks": watch.ring})
        async with serving(app) as port, client_of(port) as client:
            yield World(db, identity, client, watch, tasks)
        nursery.cancel_scope.cancel()
