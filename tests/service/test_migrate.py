"""Migrations: forward and back, many at once, killed in their middle, and the schema that they make."""

import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import trio

from orchestrator.domain.errors import Conflict, DatabaseAway
from orchestrator.store.db import open_database
from orchestrator.store.migrate import migrate_down, migrate_up
from orchestrator.store.schema import (
    CODE_VERSION,
    SchemaStatus,
    find_migrations,
    migration_names,
    min_code_of,
    schema_fits,
    schema_status,
)
from schema_dump import dump_schema

ROOT = Path(__file__).parents[2]
RUN_UP = """
import sys, trio
from pathlib import Path
from orchestrator.store.migrate import migrate_up
print(trio.run(migrate_up, sys.argv[1], Path(sys.argv[2])))
"""


def write(folder: Path, name: str, sql: str, back: str | None = None, min_code: int = 1) -> None:
    (folder / f"{name}.sql").write_text(f"-- min_code: {min_code}\n{sql}\n")
    if back is not None:
        (folder / f"{name}.rollback.sql").write_text(f"{back}\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "a folder [with] marks"
    place.mkdir()
    write(place, "0001.first", "CREATE TABLE a (id int);", "DROP TABLE a;")
    write(place, "0002.second", "CREATE TABLE b (id int);\nINSERT INTO b VALUES (1);", "DROP TABLE b;")
    return place


def start_up(dsn: str, folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", RUN_UP, dsn, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def tables(dsn: str) -> set[str]:
    with psycopg.connect(dsn) as conn:
        found = conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    return {name for (name,) in found}


async def status(dsn: str, folder: Path | None = None) -> SchemaStatus:
    async with open_database(dsn) as db:
        return await db.read(lambda conn: schema_status(conn, folder))


async def test_up_down_and_up_again(bare_database: str, folder: Path) -> None:
    assert (await status(bare_database, folder)).pending == ("0001.first", "0002.second")
    assert await migrate_up(bare_database, folder) == ["0001.first", "0002.second"]
    assert await migrate_up(bare_database, folder) == []
    assert (await status(bare_database, folder)).applied == ("0001.first", "0002.second")
    assert await migrate_down(bare_database, folder=folder) == ["0002.second"]
    assert "b" not in tables(bare_database)
    assert (await status(bare_database, folder)).pending == ("0002.second",)
    assert await migrate_up(bare_database, folder) == ["0002.second"]


async def test_a_failing_file_leaves_the_ones_before_it_and_nothing_of_itself(bare_database: str, folder: Path) -> None:
    write(folder, "0003.third", "CREATE TABLE c (id int);\nSELECT 1 / 0;", "DROP TABLE c;")
    with pytest.raises(psycopg.errors.DivisionByZero):
        await migrate_up(bare_database, folder)
    assert {"a", "b"} <= tables(bare_database)
    assert "c" not in tables(bare_database)
    assert (await status(bare_database, folder)).pending == ("0003.third",)


async def test_a_file_without_a_way_back_stays(bare_database: str, folder: Path) -> None:
    (folder / "0002.second.rollback.sql").unlink()
    await migrate_up(bare_database, folder)
    with pytest.raises(Conflict, match=r"0002\.second"):
        await migrate_down(bare_database, folder=folder)


async def test_a_file_must_say_what_code_can_live_with_it(bare_database: str, folder: Path) -> None:
    (folder / "0003.third.sql").write_text("CREATE TABLE c (id int);\n")
    with pytest.raises(ValueError, match="min_code"):
        await migrate_up(bare_database, folder)
    assert "c" not in tables(bare_database)


def test_five_at_once_apply_everything_once(bare_database: str) -> None:
    migrators = [start_up(bare_database, find_migrations()) for _ in range(5)]
    said = [migrator.communicate(timeout=60) for migrator in migrators]
    assert [migrator.returncode for migrator in migrators] == [0] * 5, said
    assert sorted(out.strip() for out, _ in said) == sorted(["[]"] * 4 + [str(migration_names(find_migrations()))])


@pytest.mark.parametrize("transactional", [True, False])
def test_one_that_is_killed_in_its_middle_is_simply_run_again(
    bare_database: str, folder: Path, transactional: bool
) -> None:
    head = "" if transactional else "-- transactional: false\n"
    create = "CREATE TABLE IF NOT EXISTS c (id int);"
    write(folder, "0003.third", f"{head}{create}\nSELECT pg_advisory_xact_lock(42);\n", "DROP TABLE c;")
    with psycopg.connect(bare_database) as gate:
        gate.execute("SELECT pg_advisory_lock(42)")
        migrator = start_up(bare_database, folder)
        wait = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 42 AND NOT granted"
        while not gate.execute(wait).fetchone()[0]:  # type: ignore[index]
            assert migrator.poll() is None
        migrator.send_signal(signal.SIGKILL)
        migrator.communicate()
        assert gate.execute("SELECT count(*) FROM yoyo_lock").fetchone() == (1,)
    assert trio.run(migrate_up, bare_database, folder) == ["0003.third"]
    assert "c" in tables(bare_database)


async def test_who_waits_for_another_migrator_can_be_cancelled(bare_database: str, folder: Path) -> None:
    with psycopg.connect(bare_database) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [0x63796E6F6465])
        with trio.fail_after(5), trio.move_on_after(0.2) as waiting:
            await migrate_up(bare_database, folder)
        assert waiting.cancelled_caught
    assert tables(bare_database) == set()


async def test_no_database_is_away() -> None:
    with pytest.raises(DatabaseAway):
        await migrate_up("postgresql://nobody@127.0.0.1:1/none")


async def test_code_is_refused_only_when_it_is_too_old_or_the_schema_is(bare_database: str, database: str) -> None:
    async with open_database(bare_database) as db:
        reason = await db.read(schema_fits)
        assert reason is not None
        assert "cynode migrate up" in reason
    async with open_database(database) as db:
        assert await db.read(schema_fits) is None
        newer = "INSERT INTO schema_version VALUES ('9000.newer', $1)"
        await db.transact(lambda conn: conn.execute(newer, CODE_VERSION))
        assert await db.read(schema_fits) is None
        await db.transact(lambda conn: conn.execute("UPDATE schema_version SET min_code = $1", CODE_VERSION + 1))
        reason = await db.read(schema_fits)
        assert reason is not None
        assert "update cynode" in reason


def test_every_file_is_numbered_has_a_way_back_and_says_its_min_code() -> None:
    names = migration_names(find_migrations())
    assert [name[:4] for name in names] == [f"{nth:04}" for nth in range(1, len(names) + 1)]
    for name in names:
        assert min_code_of(find_migrations() / f"{name}.sql") <= CODE_VERSION
        assert (find_migrations() / f"{name}.rollback.sql").exists()


def test_all_the_way_back_leaves_nothing_but_the_books(bare_database: str) -> None:
    run_all = len(migration_names(find_migrations()))
    trio.run(migrate_up, bare_database)

    async def down() -> None:
        await migrate_down(bare_database, count=run_all)

    trio.run(down)
    assert {name for name in tables(bare_database) if "yoyo" not in name} == {"schema_version"}
    with psycopg.connect(bare_database) as conn:
        left = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('S', 'v')"
        assert conn.execute(left).fetchall() == []


def test_the_written_schema_is_the_one_that_the_migrations_make(database: str) -> None:
    written = (ROOT / "migrations" / "schema.sql").read_text()
    assert dump_schema(database) == written, "run `python tests/schema_dump.py` and look at what changed"
