"""Brings the schema forward and back: yoyo over plain SQL files, one at a time for the whole database.

An advisory lock on a connection of its own lets one migrator in; it falls with that connection, so under it a lock row
that a killed migrator of yoyo's left behind is nobody's. Each file is applied and noted in one transaction: a kill at
any moment leaves it wholly done or not begun. (A file with `-- transactional: false` must bear to be run again.)

A file's `-- min_code: N` is the oldest code that can live with it; it is kept in the database, where old code reads it
(`schema.py`).
"""

import glob
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import psycopg
import trio
import yoyo

from orchestrator.domain.errors import Conflict, DatabaseAway
from orchestrator.store.schema import find_migrations, migration_names, min_code_of

LOCK_KEY = 0x63796E6F6465  # "cynode"
T = TypeVar("T")

TRY_TO_LOCK = "SELECT pg_advisory_lock(%s)"
MAKE_VERSIONS = """
    CREATE TABLE IF NOT EXISTS schema_version (migration_id text PRIMARY KEY, min_code integer NOT NULL)
"""
NOTE_VERSION = "INSERT INTO schema_version (migration_id, min_code) VALUES (:id, :min_code)"
FORGET_VERSION = "DELETE FROM schema_version WHERE migration_id = :id"


async def migrate_up(dsn: str, folder: Path | None = None) -> list[str]:
    """Applies what is missing and names it. Waits for another migrator; cancelled, it ends with the file in hand."""
    return await _in_thread(dsn, _up, folder or find_migrations())


async def migrate_down(dsn: str, *, count: int = 1, folder: Path | None = None) -> list[str]:
    """Takes back the last `count` files and names them."""
    return await _in_thread(dsn, lambda backend, where: _down(backend, where, count), folder or find_migrations())


async def _in_thread(dsn: str, what: Callable[[Any, Path], T], folder: Path) -> T:
    def work() -> T:
        try:
            with psycopg.connect(dsn, autocommit=True, connect_timeout=5) as holder, _alone(holder):
                return _with_yoyo(dsn, what, folder)
        except psycopg.OperationalError as error:
            raise DatabaseAway(str(error).strip()) from error

    return await trio.to_thread.run_sync(work)


@contextmanager
def _alone(holder: "psycopg.Connection[Any]") -> Iterator[None]:
    """Waits in short turns, between which this thread notices that nobody wants its result any more."""
    holder.execute("SET lock_timeout = '500ms'")
    while True:
        try:
            holder.execute(TRY_TO_LOCK, [LOCK_KEY])
            break
        except psycopg.errors.LockNotAvailable:
            trio.from_thread.check_cancelled()
    yield  # the lock falls with the connection


def _with_yoyo(dsn: str, what: Callable[[Any, Path], T], folder: Path) -> T:
    parameters = psycopg.conninfo.conninfo_to_dict(dsn)
    with yoyo.get_backend(f"postgresql+psycopg:///?{urlencode(parameters)}") as backend:
        backend.break_lock()
        with backend.lock():
            backend.ensure_internal_schema_updated()
            backend.execute(MAKE_VERSIONS)
            return what(backend, folder)


def _read(folder: Path) -> Any:
    """The numbered files alone: schema.sql beside them is their result."""
    names = migration_names(folder)
    found = yoyo.read_migrations(glob.escape(str(folder)))
    return found.filter(lambda migration: migration.id in names)


def _up(backend: Any, folder: Path) -> list[str]:
    done = []
    for migration in backend.to_apply(_read(folder)):
        migration.load()
        note = {"id": migration.id, "min_code": min_code_of(Path(migration.path))}
        if not migration.use_transactions:
            migration.process_steps(backend, "apply")
        with backend.transaction():
            if migration.use_transactions:
                migration.process_steps(backend, "apply")
            backend.mark_one(migration, log=False)
            backend.execute(NOTE_VERSION, note)
        done.append(migration.id)
        trio.from_thread.check_cancelled()
    return done


def _down(backend: Any, folder: Path, count: int) -> list[str]:
    done = []
    for migration in list(backend.to_rollback(_read(folder)))[:count]:
        if not Path(migration.path).with_suffix(".rollback.sql").exists():
            raise Conflict(f"{migration.id} has no way back: restore a backup instead")
        with backend.transaction():
            migration.process_steps(backend, "rollback")
            backend.unmark_one(migration, log=False)
            backend.execute(FORGET_VERSION, {"id": migration.id})
        done.append(migration.id)
    return done
