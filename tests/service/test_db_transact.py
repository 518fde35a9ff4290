"""A unit of work is wholly there or not at all, whatever is cancelled, cut or refused; and the pool stays whole."""

import random
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from orchestrator.domain.errors import BadData, CommitUnknown, DatabaseAway
from orchestrator.store.db import Connection, Database, open_database
from postgres_fixture import run_sql
from tcp_proxy import Proxy, open_proxy

POOL = 5
MAKE = "CREATE TABLE things (id int PRIMARY KEY, n int NOT NULL CHECK (n >= 0), doc jsonb)"
ADD = "INSERT INTO things (id, n) VALUES ($1, $2)"
COUNT = "SELECT count(*) FROM things"
BACKENDS = """
    SELECT count(*) FROM pg_stat_activity
     WHERE datname = current_database() AND state <> 'idle' AND pid <> pg_backend_pid()
"""


@pytest.fixture
async def things(bare_database: str) -> AsyncIterator[Database]:
    run_sql(bare_database, MAKE)
    async with open_database(bare_database, pool_size=POOL) as db:
        yield db


async def add(conn: Connection, *rows: tuple[int, int]) -> None:
    for row in rows:
        await conn.execute(ADD, *row)


async def count(db: Database) -> int:
    async def work(conn: Connection) -> int:
        return int(await conn.fetchval(COUNT))

    return await db.read(work)


async def assert_whole(db: Database) -> None:
    """Every connection of the pool can be had at once, and nobody else is busy."""
    done: list[int] = []

    async def work(conn: Connection) -> int:
        return int(await conn.fetchval("SELECT 1 FROM pg_sleep(0.05)"))

    async def one() -> None:
        done.append(await db.transact(work))

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for _ in range(POOL):
                nursery.start_soon(one)
    assert len(done) == POOL
    assert await db.read(lambda conn: conn.fetchval(BACKENDS)) == 0


async def test_all_or_nothing(things: Database) -> None:
    await things.transact(lambda conn: add(conn, (1, 1), (2, 2)))
    with pytest.raises(BadData) as caught:
        await things.transact(lambda conn: add(conn, (3, 3), (1, 1)))
    assert (caught.value.sqlstate, caught.value.constraint) == ("23505", "things_pkey")
    with pytest.raises(ZeroDivisionError):
        await things.transact(lambda conn: add_and_fail(conn, 4))
    assert await count(things) == 2
    await assert_whole(things)


async def add_and_fail(conn: Connection, key: int) -> None:
    await add(conn, (key, 1))
    raise ZeroDivisionError


async def test_what_the_database_refuses_is_bad_data(things: Database) -> None:
    for statement, state in [
        ("SELECT $1::text", "22021"),
        ("SELECT 1 / $1::int", "22012"),
        ("SELECT $1::int", "22000"),
    ]:
        value: object = {"22021": "a\0b", "22012": 0, "22000": "not a number"}[state]
        with pytest.raises(BadData) as caught:
            await things.transact(lambda conn, s=statement, v=value: conn.fetchval(s, v))
        assert caught.value.sqlstate == state
    await assert_whole(things)


async def test_a_mistake_in_the_sql_is_not_hidden(things: Database) -> None:
    with pytest.raises(Exception, match="nosuch") as caught:
        await things.transact(lambda conn: conn.execute("SELECT nosuch FROM things"))
    assert not isinstance(caught.value, (DatabaseAway, BadData))


async def test_work_that_swallows_an_error_does_not_pass_for_stored(things: Database) -> None:
    async def careless(conn: Connection) -> None:
        await add(conn, (1, 1))
        with pytest.raises(Exception, match="duplicate"):
            await add(conn, (1, 1))

    with pytest.raises(RuntimeError, match="nothing was stored"):
        await things.transact(careless)
    assert await count(things) == 0


async def test_json_comes_and_goes_as_python(things: Database) -> None:
    document = {"a": [1, None, "ü"], "b": {"c": True}}

    async def work(conn: Connection) -> object:
        await conn.execute("INSERT INTO things VALUES (1, 1, $1)", document)
        return await conn.fetchval("SELECT doc FROM things")

    assert await things.transact(work) == document


async def test_a_storm_of_cancellations_leaves_the_pool_whole_and_no_half_work(things: Database) -> None:
    dice = random.Random(7)
    committed = 0

    async def pair(key: int) -> None:
        nonlocal committed
        with trio.move_on_after(dice.uniform(0, 0.03)):
            await things.transact(lambda conn: add(conn, (2 * key, 1), (2 * key + 1, 1)))
            committed += 1

    async with trio.open_nursery() as nursery:
        for key in range(400):
            nursery.start_soon(pair, key)
            if key % 20 == 0:
                await trio.sleep(dice.uniform(0, 0.03))  # spreads the storm out
    assert await count(things) == 2 * committed
    assert 0 < committed < 400
    await assert_whole(things)


async def test_work_that_has_begun_ends_before_a_cancelled_caller_goes_on(things: Database) -> None:
    begun = trio.Event()

    async def work(conn: Connection) -> None:
        begun.set()
        await conn.execute("SELECT pg_sleep(0.2)")
        await add(conn, (1, 1))

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(things.transact, work)
            await begun.wait()
            scope.cancel()
    assert await count(things) == 1


async def test_work_that_takes_too_long_is_cut_and_its_connection_with_it(things: Database) -> None:
    began = trio.current_time()
    with pytest.raises(DatabaseAway):
        await things.transact(lambda conn: conn.execute("SELECT pg_sleep(60)"))
    assert 4.5 < trio.current_time() - began < 7
    with trio.fail_after(12):  # the server's own limit ends what we no longer hear of
        while await things.read(lambda conn: conn.fetchval(BACKENDS)):  # noqa: ASYNC110 - it waits for the server
            await trio.sleep(0.1)
    await assert_whole(things)


async def test_what_is_cut_holds_its_locks_no_longer(things: Database) -> None:
    async def late(conn: Connection) -> None:
        await add(conn, (1, 0))
        await conn.execute("SELECT pg_sleep(4.5)")
        await conn.execute("SELECT pg_sleep(60)")  # the server's own limit begins here, and is 6 s

    with pytest.raises(DatabaseAway):
        await things.transact(late)
    with trio.fail_after(3):
        while await things.read(lambda conn: conn.fetchval(BACKENDS)):  # noqa: ASYNC110 - it waits for the server
            await trio.sleep(0.05)
    await assert_whole(things)


async def test_a_deadlock_is_run_again(things: Database) -> None:
    await things.transact(lambda conn: add(conn, (1, 0), (2, 0)))
    runs = 0
    both = 0

    async def cross(conn: Connection, first: int, second: int) -> None:
        nonlocal runs, both
        runs += 1
        await conn.execute("UPDATE things SET n = n + 1 WHERE id = $1", first)
        both += 1
        await conn.execute("SELECT pg_sleep(0.1)")
        await conn.execute("UPDATE things SET n = n + 1 WHERE id = $1", second)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(things.transact, lambda conn: cross(conn, 1, 2))
        nursery.start_soon(things.transact, lambda conn: cross(conn, 2, 1))
    rows = await things.read(lambda conn: conn.fetch("SELECT n FROM things"))
    assert [row["n"] for row in rows] == [2, 2]
    assert runs > 2


async def test_a_prepared_statement_survives_a_change_of_its_table(things: Database, bare_database: str) -> None:
    await things.transact(lambda conn: add(conn, (1, 1)))
    look = "SELECT * FROM things"
    for _ in range(POOL):
        await things.transact(lambda conn: conn.fetch(look))
    run_sql(bare_database, "ALTER TABLE things ADD COLUMN more int")
    rows = await things.transact(lambda conn: conn.fetch(look))
    assert "more" in dict(rows[0].items())


async def test_a_backend_that_is_ended_is_away_and_its_work_is_not_stored(things: Database) -> None:
    async def suicide(conn: Connection) -> None:
        await add(conn, (1, 1))
        await conn.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(DatabaseAway) as caught:
        await things.transact(suicide)
    assert not isinstance(caught.value, CommitUnknown)
    assert await count(things) == 0
    await assert_whole(things)


async def test_idle_connections_that_were_ended_are_replaced(things: Database, bare_database: str) -> None:
    await assert_whole(things)
    run_sql(
        bare_database,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    await trio.testing.wait_all_tasks_blocked(0.05)
    await assert_whole(things)


async def test_a_database_that_is_not_there_is_away_and_opening_does_not_need_it() -> None:
    async with open_database("postgresql://nobody@127.0.0.1:1/none", pool_size=2) as db:
        with pytest.raises(DatabaseAway):
            await db.transact(lambda conn: conn.execute("SELECT 1"))


async def test_who_waits_for_a_turn_can_be_cancelled_at_once(things: Database) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(POOL):
            nursery.start_soon(things.read, lambda conn: conn.execute("SELECT pg_sleep(0.5)"))
        await trio.testing.wait_all_tasks_blocked(0.05)
        began = trio.current_time()
        with trio.move_on_after(0.05) as waiting:
            await count(things)
        assert waiting.cancelled_caught
        assert trio.current_time() - began < 0.3


@pytest.fixture
async def far(bare_database: str) -> AsyncIterator[tuple[Proxy, Database]]:
    """The same database behind a wire that can be cut."""
    run_sql(bare_database, MAKE)
    async with open_proxy(bare_database) as proxy, open_database(proxy.dsn, pool_size=POOL) as db:
        yield proxy, db


@pytest.mark.parametrize("stored", [True, False])
async def test_a_connection_lost_during_commit_says_that_nobody_knows(
    far: tuple[Proxy, Database], stored: bool
) -> None:
    proxy, db = far
    await count(db)
    proxy.cut_at(b"COMMIT", deliver=stored)
    with pytest.raises(CommitUnknown):
        await db.transact(lambda conn: add(conn, (1, 1)))
    assert await count(db) == (1 if stored else 0)
    await assert_whole(db)


async def test_a_connection_lost_before_commit_is_just_away(far: tuple[Proxy, Database]) -> None:
    proxy, db = far
    await count(db)
    proxy.cut_at(b"INSERT", deliver=True)
    with pytest.raises(DatabaseAway) as caught:
        await db.transact(lambda conn: add(conn, (1, 1)))
    assert not isinstance(caught.value, CommitUnknown)
    assert await count(db) == 0


async def test_a_wire_that_falls_silent_during_commit_is_given_up(far: tuple[Proxy, Database]) -> None:
    proxy, db = far
    await count(db)
    proxy.swallow_answers_after(b"COMMIT")
    with trio.fail_after(9), pytest.raises(CommitUnknown):
        await db.transact(lambda conn: add(conn, (1, 1)))
    proxy.mend()
    assert await count(db) == 1


async def test_a_schema_that_is_not_there_yet_is_waited_for_and_named(things: Database) -> None:
    with pytest.raises(DatabaseAway, match="run `cynode migrate up`"):
        await things.commit_one(lambda conn: conn.execute("SELECT 1 FROM jobs_of_tomorrow"))
