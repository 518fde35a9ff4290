"""The database: absent at the start, killed under load. What was accepted is found, and ends once."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trio

from orchestrator.local.postgres import open_postgres
from orchestrator.local.state import open_state
from orchestrator.store.migrate import migrate_up
from postgres_fixture import in_memory, open_folder
from world import World, open_world, until

TASKS = 60


@pytest.fixture
def place() -> Iterator[Path]:
    with open_folder(in_memory()) as folder:
        yield folder / "database"


def postmaster(place: Path) -> int:
    return int((place / "postgres" / "data" / "postmaster.pid").read_text().split()[0])


async def test_killed_under_load_nothing_accepted_is_missing_and_every_job_ends_once(place: Path) -> None:
    """Durable settings, unlike other tests: what a SIGKILL may take is what matters."""
    with open_state(place) as state:
        async with open_postgres(state) as dsn:
            await migrate_up(dsn)
            async with open_world(dsn) as world:
                await world.start("n1", "n2", control={"NODE_LEASE_SECONDS": "30"}, NODE_SLOTS="4")
                accepted: list[str] = []
                async with trio.open_nursery() as nursery:
                    for nth in range(4):
                        nursery.start_soon(submit_some, world, accepted, nth)
                    for enough in (10, 30):
                        await until(lambda enough=enough: at_least(accepted, enough), what="accepted tasks")  # type: ignore[misc]
                        killed = postmaster(place)
                        os.kill(killed, signal.SIGKILL)
                        await until(lambda killed=killed: other_postmaster(place, killed))  # type: ignore[misc]
                await all_ended(world, accepted)


async def at_least(accepted: list[str], count: int) -> bool:
    return len(accepted) >= count


async def other_postmaster(place: Path, killed: int) -> bool:
    try:
        return postmaster(place) != killed
    except (FileNotFoundError, IndexError):
        return False


async def submit_some(world: World, accepted: list[str], nth: int) -> None:
    """Each with a key of its own and asked for until it is answered, as a client does."""
    for number in range(TASKS // 4):
        body = {"prompt": f"echo {nth} {number}", "input_mode": "script"}
        key = {"Idempotency-Key": f"{nth}-{number}"}
        with trio.fail_after(60):
            while True:
                try:
                    answer = await world.client.post("/v1/tasks", json=body, headers=key)
                except httpx.TransportError:
                    continue
                if answer.status_code in (200, 201):
                    accepted.append(answer.json()["id"])
                    break
                assert answer.status_code == 503, answer.text
                assert answer.headers["retry-after"]
                await trio.sleep(0.05)


async def all_ended(world: World, accepted: list[str]) -> None:
    assert len(set(accepted)) == TASKS

    async def none_open() -> bool:
        return await world.sql("SELECT 1 FROM jobs WHERE status NOT IN ('completed', 'failed')") == []

    await until(none_open, 60, "the end of all jobs")
    rows = await world.sql("SELECT id::text AS id, status FROM tasks")
    assert sorted(row["id"] for row in rows) == sorted(accepted)
    assert {row["status"] for row in rows} == {"completed"}
    ends = await world.sql(
        "SELECT job_id, count(*) FILTER (WHERE outcome = 'completed') AS ends FROM job_attempts GROUP BY job_id"
    )
    assert {row["ends"] for row in ends} == {1}
    output = await world.sql("SELECT count(*) AS n FROM job_output")
    assert output == [{"n": TASKS}]


async def test_absent_at_the_start_it_is_waited_for(place: Path) -> None:
    with open_state(place) as state:
        async with open_postgres(state) as dsn:
            await migrate_up(dsn)
        async with open_world(dsn) as world:
            gateway = await world.gateway(READY_REQUIRES="database")
            await world.control_plane()
            plane = f"http://127.0.0.1:{world.wire.upstream}"
            for base in (str(world.client.base_url).rstrip("/"), plane):
                assert (await world.client.get(f"{base}/healthz")).text == "ok"
                answer = await world.client.get(f"{base}/readyz")
                assert answer.status_code == 503
                assert "database" in answer.text
            refused = await world.client.post("/v1/auth/login", json={"handle": "admin", "password": "x"})
            assert (refused.status_code, refused.headers["retry-after"] != "") == (503, True)
            async with open_postgres(state):
                for base in (str(world.client.base_url).rstrip("/"), plane):
                    await until(lambda base=base: is_ready(world, base), what="ready")  # type: ignore[misc]
                await world.log_in()
            assert gateway.popen.poll() is None


async def is_ready(world: World, base: str) -> bool:
    return (await world.client.get(f"{base}/readyz")).status_code == 200
