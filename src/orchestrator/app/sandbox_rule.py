"""Where plain processes are for admins only: what others submit runs in a sandbox, or is refused with the reason."""

from collections.abc import Sequence
from dataclasses import replace

from orchestrator.domain.access import Principal
from orchestrator.domain.errors import Forbidden
from orchestrator.domain.tasks import TaskWanted
from orchestrator.store.db import Connection, Database
from orchestrator.store.nodes import offers_sandbox

NAMES_PROCESS = "job.requires.runtime: process has no isolation, and here only admins may use it"
NO_SANDBOX = (
    "no node here has a sandbox (install bubblewrap or podman on it), and only admins may run tasks without one"
)


class SandboxRule:
    def __init__(self, db: Database, *, process_for_admins_only: bool) -> None:
        self._db = db
        self._applies = process_for_admins_only

    async def apply(self, who: Principal, wanted: Sequence[TaskWanted]) -> Sequence[TaskWanted]:
        """The tasks as they may be submitted by `who`. Raises Forbidden."""
        if not self._applies or who.is_admin:
            return wanted
        if any(task.job.runtime == "process" for task in wanted):
            raise Forbidden(NAMES_PROCESS, field="job.requires.runtime")

        async def work(conn: Connection) -> bool:
            return await offers_sandbox(conn)

        if not await self._db.read(work):
            raise Forbidden(NO_SANDBOX)
        return [replace(task, job=replace(task.job, sandboxed=True)) for task in wanted]
