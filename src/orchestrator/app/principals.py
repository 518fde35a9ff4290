"""Whom a session stands for, as of now: asked at every request, and once for all requests that ask at the same time."""

from collections.abc import Sequence
from typing import NoReturn

import trio

from orchestrator.app.clock import now
from orchestrator.domain.access import Principal
from orchestrator.domain.ids import SessionId, UserId
from orchestrator.store.batch import Batcher
from orchestrator.store.db import Connection, Database
from orchestrator.store.sessions import find_principals

Key = tuple[SessionId, UserId]


class Principals:
    """Works without `run`, too; then each request asks for itself."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._shared = False
        self._batcher: Batcher[Key, Principal | None] = Batcher(self._read, name="sessions")

    async def find(self, session: SessionId, user: UserId) -> Principal | None:
        """None when the session or its user may do nothing any more."""
        if self._shared:
            return await self._batcher.submit((session, user))
        [found] = await self._read([(session, user)])
        return found

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> NoReturn:
        self._shared = True
        await self._batcher.run(task_status=task_status)

    async def _read(self, wanted: Sequence[Key]) -> list[Principal | None]:
        async def work(conn: Connection) -> dict[Key, Principal]:
            return await find_principals(conn, set(wanted), now())

        found = await self._db.read(work)
        return [found.get(key) for key in wanted]
