"""A task's events for one reader: what has happened, then what happens, until the end."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from orchestrator.app.outputs import Outputs
from orchestrator.app.tasks import require_own_id
from orchestrator.app.watch import Follower, Watch
from orchestrator.domain.cursors import decode_cursor
from orchestrator.domain.errors import DatabaseAway
from orchestrator.domain.events import Event, ReadOutput, Teller
from orchestrator.domain.history import OutputPage
from orchestrator.domain.ids import TaskId, UserId
from orchestrator.store.db import Connection, Database


class TaskEvents:
    def __init__(self, db: Database, watch: Watch) -> None:
        self._db = db
        self._watch = watch
        self._outputs = Outputs(db)

    async def find(self, user: UserId, reference: str) -> TaskId:
        async def work(conn: Connection) -> TaskId:
            return await require_own_id(conn, user, reference)

        return await self._db.read(work)

    @contextmanager
    def read(self, task_id: TaskId, cursor: str | None) -> "Iterator[Reader]":
        """`cursor`: that of the last event the reader was told; an unknown one counts as none."""
        with self._watch.follow(task_id) as follower:
            yield Reader(follower, self._outputs, task_id, cursor)


class Reader:
    def __init__(self, follower: Follower, outputs: Outputs, task_id: TaskId, cursor: str | None) -> None:
        self._follower = follower
        self._outputs = outputs
        self._told = decode_cursor(cursor, task_id) if cursor else None
        self._teller: Teller | None = None

    async def next(self) -> list[Event]:
        """What comes next, at least one event; empty after the end, and when the server stops.

        Cancelled, nothing of it is lost: what moves the teller on is not interrupted.
        """
        if self._teller is None:
            first = await self._follower.wait_news()
            if first is None:
                return []
            self._teller = Teller(first, self._told)
        return await self._ask(self._teller)

    async def _ask(self, teller: Teller) -> list[Event]:
        while not teller.over:
            step = teller.next()
            if isinstance(step, Event):
                return [step]
            if isinstance(step, ReadOutput):
                events = list(teller.give(step, await self._read(step)))
                if events:
                    return events
                continue
            news = await self._follower.wait_news()
            if news is None:
                break
            teller.look(news)
        return []

    async def _read(self, asked: ReadOutput) -> OutputPage:
        while True:
            try:
                return await self._outputs.read(asked)
            except DatabaseAway:
                await trio.sleep(random.uniform(0.2, 1.0))  # a reader who waits for output waits for this, too
