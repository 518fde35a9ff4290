"""Silence: of a node, of a lease, of a reader. Heartbeats are half a second here."""

from collections.abc import AsyncIterator

import pytest
import trio

from link_node import FakeLink, LinkWorld, open_links, ref
from orchestrator.store.db import Database

BEAT = 0.5


@pytest.fixture
async def world(db: Database, database: str) -> AsyncIterator[LinkWorld]:
    async with open_links(db, database, node_heartbeat_seconds=BEAT, node_lease_seconds=3 * BEAT) as made:
        yield made


async def keep_beating(link: FakeLink) -> None:
    while True:
        await link.beat_as_before()
        await trio.sleep(BEAT / 2)


@pytest.mark.parametrize(
    "word", [b"", b"\x81\xfe\x40\x00\x00\x00\x00\x00half a frame"], ids=["nothing", "half a frame"]
)
async def test_a_silent_node_loses_its_link_and_then_its_lease(world: LinkWorld, word: bytes) -> None:
    link, _ = await world.running()
    began = trio.current_time()
    await link.socket._stream.send_all(word)
    assert (await link.hear_close())[0] == 4408
    assert BEAT < trio.current_time() - began < 4 * BEAT
    rows = await world.rows.sql("SELECT link_id, lease FROM node_links")
    if rows != [{"link_id": None, "lease": "expired"}]:
        assert rows == [{"link_id": None, "lease": "held"}]
    await world.until("SELECT lease FROM node_links", "expired")
    assert await world.attempts() == [("lost", True, True, True)]
    assert (await world.job_row())[:2] == ("queued", 1)


async def test_heartbeats_alone_keep_link_and_lease(world: LinkWorld) -> None:
    link, job = await world.running()
    link.held = ({**ref(job), "state": "running"},)
    with trio.move_on_after(5 * BEAT):
        await keep_beating(link)
    assert link.closed is None
    assert await world.attempts() == [(None, True, True, False)]


async def test_a_node_whose_lease_has_ended_links_again_and_finds_its_attempt_killed(world: LinkWorld) -> None:
    link, job = await world.running()
    await link.hear_close()
    await world.until("SELECT lease FROM node_links", "expired")
    again = await world.dial()
    await again.hello(held=[{**ref(job), "state": "running"}])
    assert (await again.hear("welcome"))["kill"] == [ref(job)]


async def test_a_reader_that_does_not_read_loses_its_own_link_only(world: LinkWorld) -> None:
    """Twenty half-megabyte jobs are more than what fits between the two; another node's jobs pass by."""
    await world.register("n1")
    slow = await world.dial("n1", reads=False)
    await slow.hello(slots=1000)
    await world.until("SELECT count(link_id) FROM node_links", 1)
    owner = await world.rows.user("ann")
    await world.rows.jobs(owner, 20)
    quick = await world.link("n2", spool_id="another", slots=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_beating, quick)
        await world.until("SELECT count(*) FROM node_links WHERE link_id IS NULL", 1)
        await world.rows.jobs(owner, 1)
        await quick.assigned()
        nursery.cancel_scope.cancel()
    assert quick.closed is None


async def test_no_hello_at_all(db: Database, database: str) -> None:
    """Ten seconds are given; what is held meanwhile is nothing."""
    async with open_links(db, database) as world:
        await world.register()
        link = await world.dial()
        with trio.fail_after(15):
            while link.closed is None:
                await link._news.wait()
        assert link.closed == (4408, "no hello within 10 s")
        assert await world.rows.sql("SELECT 1 FROM node_links") == []
