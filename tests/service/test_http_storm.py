"""The whole edge over a real database, with clients that hang up whenever they like."""

import random

import trio
from quart import Response
from quart_trio import QuartTrio

from http_client import raw_client, serving
from orchestrator.api.http import Body, prepare_app, read_body, reply
from orchestrator.store.db import Connection, Database

POOL = 5


class Pair(Body):
    key: int


def make_app(db: Database) -> QuartTrio:
    app = QuartTrio(__name__)
    prepare_app(app)

    @app.post("/pairs")
    async def pairs() -> Response:
        key = (await read_body(Pair)).key

        async def work(conn: Connection) -> None:
            await conn.execute("INSERT INTO pairs VALUES ($1, 1)", key)
            await conn.execute("SELECT pg_sleep(0.005)")
            await conn.execute("INSERT INTO pairs VALUES ($1, 2)", key)

        await db.transact(work)
        return reply({"key": key}, 201)

    return app


async def test_clients_that_hang_up_in_mid_transaction_leave_whole_rows_and_a_whole_pool(db: Database) -> None:
    dice = random.Random(11)
    answered: set[int] = set()
    await db.transact(lambda conn: conn.execute("CREATE TABLE pairs (key int, half int)"))

    async def ask(port: int, key: int) -> None:
        body = b'{"key": %d}' % key
        with trio.move_on_after(dice.uniform(0.001, 0.15)):
            async with raw_client(port) as client:
                await client.send(
                    b"POST /pairs HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
                )
                if (await client.answer()).status == 201:
                    answered.add(key)

    async with serving(make_app(db)) as port:
        for _ in range(10):
            async with trio.open_nursery() as nursery:
                for key in range(20):
                    nursery.start_soon(ask, port, len(answered) * 100_000 + dice.randrange(100_000) + key)

        rows = await db.read(lambda conn: conn.fetch("SELECT key, count(*) AS n FROM pairs GROUP BY key"))
        assert {row["n"] % 2 for row in rows} == {0}
        assert answered <= {row["key"] for row in rows}
        assert 0 < len(answered) < 200
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                for _ in range(POOL):
                    nursery.start_soon(db.read, lambda conn: conn.fetchval("SELECT pg_sleep(0.1)"))
