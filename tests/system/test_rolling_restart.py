"""Both control-planes restarted, one after the other, while jobs come, run and speak."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from link_wire import Wire, open_wire
from real_process import Process
from world import World, port_of, until

pytestmark = [pytest.mark.crash, pytest.mark.timeout(300)]

LEASE = {"NODE_LEASE_SECONDS": "30"}
NODES = ["n1", "n2", "n3"]
SLOTS = 3
LINES = 400
AT_ONCE = 15
SCRIPT = (
    f"i=0; while [ $i -lt {LINES} ]; do echo line $i; echo error $i >&2; i=$((i+1)); "
    "[ $((i % 40)) -gt 0 ] || sleep 0.2; done"
)
OPEN = "SELECT count(*) AS n FROM jobs WHERE status IN ('queued', 'assigned', 'running')"
RUNNING = "SELECT count(*) AS n FROM jobs WHERE status = 'running'"
LINKED = "SELECT count(link_id) AS n FROM node_links"


async def count(world: World, query: str) -> int:
    [row] = await world.sql(query)
    return int(row["n"])


@asynccontextmanager
async def load(world: World, tasks: list[str]) -> AsyncIterator[None]:
    """More jobs than there are slots, until it is left."""

    async def submit() -> None:
        while True:
            while await count(world, OPEN) >= AT_ONCE:  # noqa: ASYNC110 - a row rings no bell here
                await trio.sleep(0.1)
            tasks.append(await world.submit(SCRIPT))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(submit)
        yield
        nursery.cancel_scope.cancel()


async def restart(world: World, control: Process, way: Wire) -> Process:
    """Only when the nodes run jobs; the next one may be stopped when they are all linked again."""

    async def all_linked() -> bool:
        return await count(world, LINKED) == len(NODES)

    async def all_busy() -> bool:
        return await count(world, RUNNING) >= len(NODES)

    await until(all_busy, 60, "jobs on every node")
    assert await control.stop() == 0
    await until(all_linked, 60, "every node with the other control-plane")
    started = await world.control_plane(wired=False, **LEASE)
    way.upstream = port_of(started)
    return started


async def test_a_rolling_restart_under_load_loses_no_output_byte_and_restarts_no_job(world: World) -> None:
    gate = world.gate()
    async with open_wire() as other_way:
        await world.gateway()
        await world.log_in()
        ways = [world.wire, other_way]
        controls = []
        for way in ways:
            controls.append(await world.control_plane(wired=False, **LEASE))
            way.upstream = port_of(controls[-1])
        for nth, slug in enumerate(NODES):
            urls = [ways[(nth + turn) % 2].url for turn in range(2)]
            await world.node(slug, ORCHESTRATOR_URL=",".join(urls), NODE_SLOTS=str(SLOTS))
        throughout = await world.submit(f"echo begun; {gate.wait}; echo done")
        await world.wait_output(throughout, "begun")
        tasks: list[str] = []
        async with load(world, tasks):
            for nth in (0, 1, 0, 1):
                controls[nth] = await restart(world, controls[nth], ways[nth])
        gate.open()
        assert (await world.result(throughout))["stdout"] == "begun\ndone\n"
        await until(lambda: none_open(world), 100, "the end of all jobs")
        for task in tasks:
            for stream, word in (("stdout", "line"), ("stderr", "error")):
                assert await world.logs(task, stream) == "".join(f"{word} {nth}\n" for nth in range(LINES)), task
        assert len(tasks) > AT_ONCE
        for task in (throughout, *tasks):
            [(outcome, _)] = await world.attempts(task)
            assert outcome == "completed"


async def none_open(world: World) -> bool:
    return await count(world, OPEN) == 0
