"""Taking tasks in: concurrent requests share one commit, and nobody gets an error for what was stored."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import trio

from orchestrator.app.settle import settle
from orchestrator.domain.errors import AppError, BadData, Conflict, DatabaseAway, Unavailable
from orchestrator.domain.ids import TaskId, UserId
from orchestrator.domain.names import generated_name
from orchestrator.domain.tasks import NewTask, Task
from orchestrator.faults import reach
from orchestrator.store.batch import Batcher
from orchestrator.store.db import Connection, Database
from orchestrator.store.idempotency import KeyUse, claim_keys
from orchestrator.store.new_tasks import insert_tasks
from orchestrator.store.quick_tasks import Group, find_groups, submit_tasks
from orchestrator.store.tasks import find_tasks

WEIGHT_OF_A_TASK = 2048
"""Bytes that a task counts for beside its texts, so that one commit holds at most about 2000."""

MOST_GROUPS = 10_000

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Submission:
    """The tasks of one request, stored all or none; `key` and `body_hash` if it may be repeated."""

    user: UserId
    tasks: tuple[NewTask, ...]
    key: str | None = None
    body_hash: bytes = b""

    @property
    def task_ids(self) -> tuple[TaskId, ...]:
        return tuple(task.id for task in self.tasks)

    @property
    def weight(self) -> int:
        return sum(WEIGHT_OF_A_TASK + len(task.prompt) + len(task.spec) for task in self.tasks)


@dataclass(frozen=True, slots=True)
class Submitted:
    tasks: tuple[Task, ...]
    fresh: bool
    """False: an earlier request with the same key made them."""


Answer = Submitted | AppError


class Submissions:
    def __init__(self, db: Database) -> None:
        self._db = db
        self._groups = _Groups(db)
        self._batcher: Batcher[Submission, Submitted] = Batcher(
            self._write, most=500, most_weight=8 << 20, weigh=lambda item: item.weight, name="submit"
        )

    async def submit(self, submission: Submission) -> Submitted:
        return await self._batcher.submit(submission)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> NoReturn:
        await self._batcher.run(task_status=task_status)

    async def _write(self, batch: Sequence[Submission]) -> Sequence[Submitted | Exception]:
        async def work(conn: Connection) -> list[Answer]:
            answers = await _store(conn, batch, {})
            reach("gateway.submit.before_commit")
            return answers

        async def look(conn: Connection) -> list[Answer] | None:
            stored = await find_tasks(conn, [task_id for submission in batch for task_id in submission.task_ids])
            return await _store(conn, batch, stored) if stored else None

        async def first() -> list[Answer]:
            answers = await self._store_quickly(batch)
            return await self._db.transact(work) if answers is None else answers

        try:
            answers = await settle(self._db, work, look, first=first)
        except Unavailable as error:
            log.warning("the outcome of a commit stays unknown", exc_info=error.__cause__)
            return [error for _ in batch]  # told, not raised: the batcher would write its halves once more
        reach("gateway.submit.after_commit")
        await self._groups.learn(group_of(task) for submission in batch for task in submission.tasks)
        return answers

    async def _store_quickly(self, batch: Sequence[Submission]) -> list[Answer] | None:
        """In one statement; None where that cannot be, and nothing was stored."""
        tasks = [task for submission in batch for task in submission.tasks]
        groups = self._groups.known(map(group_of, tasks))
        if groups is None or any(task.name != generated_name(task.id) for task in tasks):
            return None
        keys = [KeyUse(s.user, s.key, s.body_hash, s.task_ids) for s in batch if s.key is not None]

        async def work(conn: Connection) -> dict[TaskId, Task]:
            return await submit_tasks(conn, tasks, groups, keys)

        reach("gateway.submit.before_commit")
        try:
            stored = await self._db.commit_one(work)
        except BadData:
            return None  # a key that was used before, say: the long way tells
        return [_answer(submission, None, stored) for submission in batch]


class _Groups:
    """The queue's groups that were seen; their rows are never deleted, and a wrong one here stores nothing."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._ids: dict[Group, int] = {}

    def known(self, wanted: Iterable[Group]) -> Mapping[Group, int] | None:
        return self._ids if all(group in self._ids for group in wanted) else None

    async def learn(self, seen: Iterable[Group]) -> None:
        """After a commit, since what was not committed must not be remembered."""
        new = [group for group in set(seen) if group not in self._ids]
        if not new:
            return

        async def work(conn: Connection) -> dict[Group, int]:
            return await find_groups(conn, new)

        try:
            found = await self._db.read(work)
        except DatabaseAway:
            return  # then the next time
        if len(self._ids) + len(found) > MOST_GROUPS:
            self._ids.clear()
        self._ids |= found


def group_of(task: NewTask) -> Group:
    return task.owner, task.requirement


async def _store(conn: Connection, batch: Sequence[Submission], stored: dict[TaskId, Task]) -> list[Answer]:
    """`stored`: the tasks of this batch that are known to be in the database already."""
    uses = {nth: KeyUse(s.user, s.key, s.body_hash, s.task_ids) for nth, s in enumerate(batch) if s.key is not None}
    first = await claim_keys(conn, list(uses.values())) if uses else {}
    earlier = {nth: first[use.user, use.key] for nth, use in uses.items() if first[use.user, use.key] != use}
    new = [task for nth, s in enumerate(batch) if nth not in earlier for task in s.tasks if task.id not in stored]
    if new:
        stored = stored | await insert_tasks(conn, new)
    wanted = {task_id for nth, use in earlier.items() for task_id in use.task_ids if _same(batch[nth], use)}
    known = stored | (await find_tasks(conn, wanted) if wanted else {})
    return [_answer(submission, earlier.get(nth), known) for nth, submission in enumerate(batch)]


def _same(submission: Submission, earlier: KeyUse) -> bool:
    return submission.body_hash == earlier.body_hash


def _answer(submission: Submission, earlier: KeyUse | None, known: dict[TaskId, Task]) -> Answer:
    if earlier is None:
        return Submitted(tuple(known[task_id] for task_id in submission.task_ids), fresh=True)
    if not _same(submission, earlier):
        return Conflict("this Idempotency-Key was used for another request: take a new key for a new request")
    return Submitted(tuple(known[task_id] for task_id in earlier.task_ids if task_id in known), fresh=False)
