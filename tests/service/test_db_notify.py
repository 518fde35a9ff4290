"""Bells ring for every notification, and once each whenever the connection was lost and is back."""

from functools import partial

import trio
import trio.testing

from orchestrator.store.db import Database, asyncio_loop
from orchestrator.store.notify import listen
from postgres_fixture import run_sql
from tcp_proxy import open_proxy

END_LISTENERS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


class Bell:
    def __init__(self) -> None:
        self.rung = 0
        self._waiting = trio.Event()

    def ring(self) -> None:
        self.rung += 1
        self._waiting.set()
        self._waiting = trio.Event()

    async def wait_until(self, count: int) -> None:
        with trio.fail_after(10):
            while self.rung < count:
                await self._waiting.wait()


async def test_each_channel_rings_its_own_bell(db: Database, database: str, nursery: trio.Nursery) -> None:
    first, second = Bell(), Bell()
    await nursery.start(partial(listen, database, {"cynode_queue": first.ring, "cynode_tasks": second.ring}))
    assert (first.rung, second.rung) == (1, 1)  # nobody knows what came before
    await db.transact(lambda conn: conn.execute("NOTIFY cynode_queue"))
    await first.wait_until(2)
    assert second.rung == 1


async def test_a_notification_leaves_with_the_commit_and_never_without(db: Database, database: str) -> None:
    bell = Bell()
    async with trio.open_nursery() as nursery:
        await nursery.start(listen, database, {"cynode_queue": bell.ring})
        try:
            await db.transact(lambda conn: conn.execute("NOTIFY cynode_queue; SELECT 1/0"))
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing was committed
            assert "division" in str(error)
        await db.transact(lambda conn: conn.execute("NOTIFY cynode_queue"))
        await bell.wait_until(2)
        assert bell.rung == 2
        nursery.cancel_scope.cancel()


async def test_all_bells_ring_once_after_its_backend_was_ended(
    db: Database, database: str, nursery: trio.Nursery
) -> None:
    first, second = Bell(), Bell()
    await nursery.start(partial(listen, database, {"cynode_queue": first.ring, "cynode_tasks": second.ring}))
    for again in range(2, 5):
        run_sql(database, END_LISTENERS)
        await first.wait_until(again)
        await second.wait_until(again)
    await db.transact(lambda conn: conn.execute("NOTIFY cynode_tasks"))
    await second.wait_until(5)
    assert first.rung == 4


async def test_it_starts_without_a_database_and_rings_once_that_is_there(bare_database: str) -> None:
    bell = Bell()
    async with asyncio_loop(), open_proxy(bare_database) as proxy, trio.open_nursery() as nursery:
        proxy.refuse = True
        with trio.fail_after(8):
            await nursery.start(listen, proxy.dsn, {"cynode_queue": bell.ring})
        assert bell.rung == 0
        proxy.refuse = False
        await bell.wait_until(1)
        nursery.cancel_scope.cancel()


async def test_it_ends_at_once_when_cancelled(database: str) -> None:
    async with asyncio_loop():
        for pause in (0.0, 0.001, 0.005, 0.01, 0.02, 0.05):
            with trio.move_on_after(pause), trio.fail_after(2):
                await listen(database, {"cynode_queue": Bell().ring})
