"""A database that is away for a minute, for all or for one of two control-planes: no job is restarted."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from link_wire import open_wire
from orchestrator.local.postgres import open_postgres
from orchestrator.local.state import open_state
from orchestrator.store.migrate import migrate_up
from postgres_fixture import open_folder
from tcp_proxy import Proxy, open_proxy
from world import World, open_world, port_of, until

pytestmark = [pytest.mark.crash, pytest.mark.timeout(300)]

AWAY = 60.0
LEASE = {"NODE_LEASE_SECONDS": "12"}
"""A node that dials again every three seconds at most is back before a count that begins with the database's return."""
SLOW = {"NODE_HEARTBEAT_SECONDS": "2", "NODE_LEASE_SECONDS": "12"}
"""A node that is told at once is told long before it notices the silence itself."""


@pytest.fixture
def place() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder / "database"


async def test_away_for_a_minute_and_back_no_job_is_restarted(place: Path) -> None:
    """Five leases: one job ends meanwhile, one speaks all the time, and one ends after. The reapers come back first."""
    with open_state(place) as state:
        async with open_postgres(state) as dsn:
            await migrate_up(dsn)
        async with open_world(dsn) as world:
            meanwhile, after = world.gate("meanwhile"), world.gate("after")
            stop = world.folder / "stop"
            async with open_postgres(state):
                gateway, first, node = await world.start("n1", control=LEASE, NODE_SLOTS="3")
                second = await world.control_plane(wired=False, **LEASE)
                tasks = [
                    await world.submit(f"echo begun; {meanwhile.wait}; echo done"),
                    await world.submit(f"i=0; until [ -e {stop} ]; do echo $i; i=$((i+1)); sleep 0.1; done"),
                    await world.submit(f"echo begun; {after.wait}; echo done"),
                ]
                for task, word in zip(tasks, ("begun", "0\n", "begun"), strict=True):
                    await world.wait_output(task, word)
            gone = trio.current_time()
            meanwhile.open()
            await until(lambda: one_finished(world), what="a job that ended while nobody could be told")
            await is_refused(world)
            world.wire.upstream = None
            await trio.sleep_until(gone + AWAY)  # the fault itself
            async with open_postgres(state):
                for control in (first, second):
                    await control.wait_said("reap: the database is back")
                world.wire.upstream = port_of(first)
                again = await submit_when_back(world)
                stop.touch()
                after.open()
                results = [await world.result(task) for task in tasks]
                assert [result["stdout"] for result in results[::2]] == ["begun\ndone\n"] * 2
                said = results[1]["stdout"].split()
                assert said == [str(nth) for nth in range(len(said))]
                assert len(said) > AWAY  # it spoke meanwhile
                assert (await world.result(again))["stdout"] == "again\n"
                for task in (*tasks, again):
                    assert await world.attempts(task) == [("completed", "n1")]
                assert await world.sql("SELECT 1 FROM jobs WHERE tries > 0") == []
            assert all(part.popen.poll() is None for part in (gateway, first, second, node))


async def one_finished(world: World) -> bool:
    return "finished" in [held["state"] for held in (await world.agent_status("n1"))["held"]]


async def is_refused(world: World) -> None:
    answer = await world.client.post("/v1/tasks", json={"prompt": "true", "input_mode": "script"})
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0


async def submit_when_back(world: World) -> str:
    async def submitted() -> str | None:
        answer = await world.client.post("/v1/tasks", json={"prompt": "echo again", "input_mode": "script"})
        return str(answer.json()["id"]) if answer.status_code == 201 else None

    return str(await until(submitted, 60, "an accepted task"))


def cut_off(proxy: Proxy, how: str) -> None:
    if how == "silent":
        proxy.swallow_answers_after(b"\0")  # which is in all that a client of PostgreSQL says
    else:
        proxy.refuse = True
        proxy.cut()


@pytest.mark.parametrize("how", ["refused", "silent"])
async def test_a_control_plane_cut_off_from_the_database_hands_its_nodes_to_the_other(
    world: World, database: str, how: str
) -> None:
    gate = world.gate()
    async with open_proxy(database) as proxy, open_wire() as other_way:
        await world.gateway()
        await world.log_in()
        first = await world.control_plane(DATABASE_URL=proxy.dsn, **SLOW)
        node = await world.node("n1", ORCHESTRATOR_URL=f"{world.wire.url},{other_way.url}")
        second = await world.control_plane(wired=False, **SLOW)
        other_way.upstream = port_of(second)
        task = await world.submit(f"echo begun; {gate.wait}; echo done")
        await world.wait_output(task, "begun")

        said = len(node.said)
        cut_off(proxy, how)
        await first.wait_said("links are closed")
        await node.wait_said("closed with 1013 this control-plane has lost its database", since=said)
        await node.wait_said('"linked"', since=said)
        await second.wait_said('"linked"')
        assert await readiness(world) == 503
        gate.open()
        assert (await world.result(task))["stdout"] == "begun\ndone\n"
        assert await world.attempts(task) == [("completed", "n1")]

        proxy.mend()
        await first.wait_said("links are taken again")
        said = len(first.said)
        await second.stop()
        await first.wait_said('"linked"', since=said)
        back = await world.submit("echo back")
        assert (await world.result(back))["stdout"] == "back\n"


async def readiness(world: World) -> int:
    """Of the first control-plane."""
    return (await world.client.get(f"http://127.0.0.1:{world.wire.upstream}/readyz")).status_code
