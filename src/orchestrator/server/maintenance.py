"""What whoever holds the database may do to it while nothing is served: migrate it, make a first admin.

Apart from `run.py`, so that no service imports what only a migration needs.
"""

from collections.abc import Awaitable, Callable

import trio

from orchestrator.app.passwords import Passwords
from orchestrator.app.users import Change, NewUser, Users
from orchestrator.config import Settings
from orchestrator.domain.users import Role
from orchestrator.server.run import dsn_of
from orchestrator.store.db import Connection, Database, open_database
from orchestrator.store.migrate import migrate_down, migrate_up
from orchestrator.store.schema import schema_status


def migrate(settings: Settings, direction: str) -> str:
    """`up`, `down` (one step) or `status`; what was done, in words."""
    dsn = dsn_of(settings)
    if direction == "status":
        return _once(dsn, _status)
    done = trio.run(migrate_up if direction == "up" else migrate_down, dsn)
    if not done:
        return "Nothing to do."
    verb = "Applied" if direction == "up" else "Took back"
    return "\n".join(f"{verb} {name}." for name in done)


async def _status(db: Database) -> str:
    async def work(conn: Connection) -> str:
        status = await schema_status(conn)
        lines = [f"applied  {name}" for name in status.applied] + [f"missing  {name}" for name in status.pending]
        return "\n".join(lines)

    return await db.read(work)


def create_first_admin(settings: Settings, handle: str, password: str) -> str:
    """For whoever holds the database: makes an admin without being one. Answers the handle as stored."""

    async def make(db: Database) -> str:
        wanted = NewUser(handle, password, roles=frozenset({Role.ADMIN}))
        return (await Users(db, Passwords()).create(wanted, Change(None))).handle

    return _once(dsn_of(settings), make)


def _once(dsn: str, what: Callable[[Database], Awaitable[str]]) -> str:
    async def main() -> str:
        async with open_database(dsn, pool_size=2) as db:
            return await what(db)

    return trio.run(main)
