"""A control-plane that is killed and started again, and a whole fleet that dials it at once."""

import trio

from link_node import FakeLink, Json, LinkWorld, finished, open_peers, ref
from nodes_parts import PSK
from orchestrator.store.db import open_database
from world import World

SLUGS = [f"n{nth}" for nth in range(200)]
SECONDS = 60.0
"""The figure itself is a row of the benchmarks."""
QUIET = {"NODE_REGISTRATION_PSK": PSK, "NODE_HEARTBEAT_SECONDS": "60", "NODE_LEASE_SECONDS": "180"}
"""No node needs to speak meanwhile."""


async def all_running(peers: LinkWorld) -> dict[str, Json]:
    """Every node is linked, and runs one job."""
    running: dict[str, Json] = {}

    async def run_one(slug: str) -> None:
        link = await peers.link(slug, slots=1)
        job = running[slug] = await link.assigned()
        await link.accept(job)
        await link.start(job)

    await peers.rows.backlog(await peers.rows.user("ann"), len(SLUGS))
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            for slug in SLUGS:
                nursery.start_soon(run_one, slug)
    return running


async def test_two_hundred_nodes_that_dial_at_once_are_linked_and_keep_their_jobs(world: World, database: str) -> None:
    first = await world.control_plane(**QUIET)
    assert world.wire.upstream is not None
    async with open_database(database, pool_size=5) as db, open_peers(db, world.wire.upstream) as peers:
        running = await all_running(peers)
        await first.kill()
        await world.control_plane(**QUIET)
        peers.port = world.wire.upstream
        linked: dict[str, tuple[FakeLink, Json]] = {}

        async def dial(slug: str) -> None:
            link = await peers.dial(slug, seconds=SECONDS)
            await link.hello(slug, slots=1, held=[{**ref(running[slug]), "state": "running"}])
            linked[slug] = link, await link.hear("welcome", SECONDS)

        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                for slug in SLUGS:
                    nursery.start_soon(dial, slug)
        for slug, (link, welcome) in linked.items():
            assert (welcome["keep"], welcome["kill"]) == ([ref(running[slug])], [])
            await link.report("jobs.finished", finished(running[slug]))
        await peers.until("SELECT count(*) FROM tasks WHERE status = 'completed'", len(SLUGS), SECONDS)
        assert await peers.rows.one("SELECT count(*) FROM job_attempts") == len(SLUGS)
