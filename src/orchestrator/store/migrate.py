"""Brings the schema forward and back: yoyo over plain SQL files, one at a time for the whole database.

An advisory lock on a connection of its own lets one migrator in; it falls with that connection, so under it a lock row
that a killed migrator of yoyo's left behind is nobody's. Each file is applied and noted in one transaction: a kill at
any moment leaves it wholly done or not begun. (A file with `-- transactional: false` must bear to be run again.)

A file's `-- min_code: N` is the oldest code that can live with it; it is kept in the database, where old code reads it.
"""

import glob
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import psycopg
import trio
import yoyo

from orchestrator.domain.errors import Conflict, DatabaseAway
from orchestrator.store.db import Connection

CODE_VERSION = 1
"""What this code is, in the numbers of `min_code`; raised with a release that an older schema promise names."""
LOCK_KEY = 0x63796E6F6465  # "cynode"
T = TypeVar("T")

TRY_TO_LOCK = "SELECT pg_advisory_lock(%s)"
MAKE_VERSIONS = """
    CREATE TABLE IF NOT EXISTS schema_version (migration_id text PRIMARY KEY, min_code integer NOT NULL)
"""
NOTE_VERSION = "INSERT INTO schema_version (migration_id, min_code) VALUES (:id, :min_code)"
FORGET_VERSION = "DELETE FROM schema_version WHERE migration_id = :id"
HAS_VERSIONS = "SELECT to_regclass('schema_version') IS NOT NULL"
READ_VERSIONS = "SELECT migration_id, min_code FROM schema_version ORDER BY migration_id"


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    applied: tuple[str, ...]
    pending: tuple[str, ...]
    min_code: int

    def misfit(self) -> str | None:
        """Why this code must not serve on this schema, and what to do; None when it may."""
        if self.min_code > CODE_VERSION:
            return f"the database needs cynode code {self.min_code} or later and this is {CODE_VERSION}: update cynode"
        if self.pending:
            return f"the database lacks {', '.join(self.pending)}: run `cynode migrate up`"
        return None


async def migrate_up(dsn: str, folder: Path | None = None) -> list[str]:
    """Applies what is missing and names it. Waits for another migrator; cancelled, it ends with the file in hand."""
    return await _in_thread(dsn, _up, folder or find_migrations())


async def migrate_down(dsn: str, *, count: int = 1, folder: Path | None = None) -> list[str]:
    """Takes back the last `count` files and names them."""
    return await _in_thread(dsn, lambda backend, where: _down(backend, where, count), folder or find_migrations())


async def schema_status(conn: Connection, folder: Path | None = None) -> SchemaStatus:
    """Two small reads, for `/readyz` and `cynode migrate status`."""
    rows = await conn.fetch(READ_VERSIONS) if await conn.fetchval(HAS_VERSIONS) else []
    applied = tuple(row["migration_id"] for row in rows)
    pending = tuple(name for name in migration_names(folder or find_migrations()) if name not in applied)
    return SchemaStatus(applied, pending, max((row["min_code"] for row in rows), default=0))


async def schema_fits(conn: Connection) -> str | None:
    return (await schema_status(conn)).misfit()


def find_migrations() -> Path:
    """Beside the code in a wheel, at the root of a checkout."""
    here = Path(__file__).resolve()
    for folder in (here.parents[1] / "migrations", here.parents[3] / "migrations"):
        if folder.is_dir():
            return folder
    raise FileNotFoundError("the migrations are missing from this installation: install cynode again")


def migration_names(folder: Path) -> list[str]:
    return sorted(file.stem for file in folder.glob("[0-9]*.sql") if not file.name.endswith(".rollback.sql"))


def min_code_of(file: Path) -> int:
    found = re.match(r"-- min_code: (\d+)\n", file.read_text())
    if not found:
        raise ValueError(f"{file.name} must begin with a line `-- min_code: N`, the oldest code that can live with it")
    return int(found[1])


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
