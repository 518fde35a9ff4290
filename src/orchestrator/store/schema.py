"""Which migrations there are, which of them the database has, and whether this code may serve on it."""

import re
from dataclasses import dataclass
from pathlib import Path

from orchestrator.store.db import Connection

CODE_VERSION = 1
"""What this code is, in the numbers of `min_code`; raised with a release that an older schema promise names."""
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
