"""Real PostgreSQL for tests: one server a test process, one database a test, cloned from a migrated template."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
import trio

from orchestrator.local.postgres import running_postgres
from orchestrator.local.state import open_state
from orchestrator.store.migrate import migrate_up

FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "200",
        "max_wal_size": "256MB"}  # fmt: skip
MEMORY = Path("/dev/shm")
MEMORY_BYTES = 4 << 30


def with_database(dsn: str, name: str) -> str:
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))


def run_sql(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        for statement in statements:
            conn.execute(statement.encode())


def in_memory() -> Path | None:
    """Where a database of a few hundred files is made in a tenth of the time, if there is room and programs may run."""
    try:
        found = os.statvfs(MEMORY)
    except OSError:
        return None
    fits = found.f_bavail * found.f_frsize >= MEMORY_BYTES and not found.f_flag & os.ST_NOEXEC
    return MEMORY if fits and os.access(MEMORY, os.W_OK) else None


@contextmanager
def open_folder(parent: Path | None = None) -> Iterator[Path]:
    """Not pytest's own: its parents are closed to PostgreSQL's account."""
    folder = Path(tempfile.mkdtemp(prefix="cynode-test-", dir=parent))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def postgres_server() -> Iterator[str]:
    with (
        open_folder(in_memory()) as folder,
        open_state(folder / "state") as state,
        running_postgres(state, settings=FAST) as dsn,
    ):
        yield dsn


@contextmanager
def empty_database(server: str, template: str = "template0") -> Iterator[str]:
    name = f"t_{uuid4().hex}"
    run_sql(server, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    try:
        yield with_database(server, name)
    finally:
        run_sql(server, f"DROP DATABASE {name} WITH (FORCE)")


def make_template(server: str) -> str:
    name = "migrated"
    run_sql(server, f"CREATE DATABASE {name} TEMPLATE template0")
    trio.run(migrate_up, with_database(server, name))
    return name
