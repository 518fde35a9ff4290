"""Waiting for tasks to change: one question to the database answers for all who wait in this process."""

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from orchestrator.domain.errors import DatabaseAway
from orchestrator.domain.history import History
from orchestrator.domain.ids import TaskId
from orchestrator.store.db import Connection, Database
from orchestrator.store.results import read_histories

PERIOD = 5.0
LONGEST_PAUSE = 2.0

log = logging.getLogger(__name__)


class Watch:
    """`ring` is the bell for `cynode_tasks`. A bell during a question makes one more question, however many ring.

    `close` ends all waiting, so that a server that stops need not cut it off.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._watched: dict[TaskId, _Watched] = {}
        self._bell = trio.Event()
        self._closed = False

    def ring(self) -> None:
        self._bell.set()

    @contextmanager
    def follow(self, task_id: TaskId) -> "Iterator[Follower]":
        """Without a scope or an await, so that a generator may hold it open over its yields."""
        watched = self._watched.setdefault(task_id, _Watched(self._closed))
        watched.followers += 1
        self.ring()
        try:
            yield Follower(watched)
        finally:
            watched.followers -= 1
            if not watched.followers:
                del self._watched[task_id]

    def close(self) -> None:
        self._closed = True
        for watched in self._watched.values():
            watched.close()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        pause = 0.0
        while True:
            with trio.move_on_after(PERIOD):
                await self._bell.wait()
            self._bell = trio.Event()
            if not self._watched:
                continue
            try:
                await self._ask()
            except DatabaseAway as error:
                if not pause:
                    log.warning("those who wait for tasks wait for the database, too: %s", error)
                pause = min(max(pause * 2, 0.1), LONGEST_PAUSE)
                self.ring()
                await trio.sleep(random.uniform(pause / 2, pause))
            else:
                pause = 0.0

    async def _ask(self) -> None:
        asked = dict(self._watched)

        async def work(conn: Connection) -> dict[TaskId, History]:
            return await read_histories(conn, asked)

        found = await self._db.read(work)
        for task_id, watched in asked.items():
            history = found.get(task_id)
            if history is not None and history != watched.history:
                watched.news(history)


class _Watched:
    """One task, and who waits for it."""

    def __init__(self, closed: bool) -> None:
        self.history: History | None = None
        self.followers = 0
        self.closed = closed
        self._changed = trio.Event()

    def news(self, history: History) -> None:
        self.history = history
        self._changed.set()
        self._changed = trio.Event()

    def close(self) -> None:
        self.closed = True
        self._changed.set()

    async def wait(self) -> None:
        await self._changed.wait()


class Follower:
    def __init__(self, watched: _Watched) -> None:
        self._watched = watched
        self._seen: History | None = None

    async def wait_news(self) -> History | None:
        """The task's history, once it is another than this follower was last given; None when the server stops."""
        while not self._watched.closed and (self._watched.history is None or self._watched.history is self._seen):
            await self._watched.wait()
        if self._watched.closed:
            return None
        self._seen = self._watched.history
        return self._seen
