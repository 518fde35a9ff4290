"""A task's events over a real stream: live, late, resumed, many readers at once."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import uuid4

import pytest
import trio

from orchestrator.domain.ids import TaskId
from orchestrator.domain.states import TaskStatus
from orchestrator.store.db import Database
from sse_client import Stream, Told, open_stream
from task_world import Hand, Headers, World, open_world


def stream(
    world: World, task: dict[str, Any], headers: Headers, after: str | None = None
) -> AbstractAsyncContextManager[Stream]:
    port = world.client.base_url.port
    assert port is not None
    return open_stream(port, f"/v1/tasks/{task['id']}/events", headers, after)


async def read_all(world: World, task: dict[str, Any], headers: Headers, after: str | None = None) -> list[Told]:
    with trio.fail_after(20):
        async with stream(world, task, headers, after) as told:
            return await told.rest()


def plain(events: list[Told]) -> list[tuple[str, dict[str, Any]]]:
    return [(event.kind, event.data) for event in events]


@pytest.fixture
async def world(database: str, db: Database) -> AsyncIterator[World]:
    async with open_world(database, db) as made:
        yield made


@pytest.fixture
async def ann(world: World) -> Headers:
    return await world.log_in("ann")


async def a_life(hand: Hand) -> None:
    """An attempt that is lost, one that no node took, one that ends well."""
    await hand.start("node-1")
    await hand.write(b"one \xf0\x9f")
    await hand.write(b"oops\n", "stderr")
    await hand.write(b"\x98\x80 two\n")
    await hand.end_attempt("lost")
    await hand.assign("node-2")
    await hand.end_attempt("rejected")
    await hand.start("node-3")
    for n in range(5):
        await hand.write(f"line {n}\n".encode())
    await hand.finish()


async def test_a_whole_life_told_late_and_resumed_at_every_event(world: World, ann: Headers) -> None:
    task = await world.create(ann)
    hand = await world.hand(task)
    await a_life(hand)
    whole = await read_all(world, task, ann)
    job = {"job_id": str(hand.job)}
    one, three = job | {"attempt": 1}, job | {"attempt": 3}
    assert plain(whole) == [
        ("status", {"status": "queued"}),
        ("status", {"status": "running"}),
        ("job", one | {"status": "running", "node_slug": "node-1"}),
        ("output", one | {"stream": "stdout", "offset": 0, "text": "one "}),
        ("output", one | {"stream": "stderr", "offset": 0, "text": "oops\n"}),
        ("output", one | {"stream": "stdout", "offset": 4, "text": "😀 two\n"}),
        ("job", one | {"status": "queued", "node_slug": "node-1"}),
        ("job", three | {"status": "running", "node_slug": "node-3"}),
        ("output", three | {"stream": "stdout", "offset": 0, "text": "".join(f"line {n}\n" for n in range(5))}),
        ("job", three | {"status": "completed", "node_slug": "node-3"}),
        ("status", {"status": "completed"}),
        ("end", {"status": "completed"}),
    ]
    for nth, event in enumerate(whole):
        assert plain(await read_all(world, task, ann, event.id)) == plain(whole[nth + 1 :])
    for unknown in ("nonsense", "", whole[3].id[:-4]):
        assert plain(await read_all(world, task, ann, unknown)) == plain(whole)


async def test_events_come_while_the_job_runs(world: World, ann: Headers) -> None:
    task = await world.create(ann)
    hand = await world.hand(task)
    with trio.fail_after(20):
        async with stream(world, task, ann) as told:

            async def comes(act: Callable[[], Awaitable[object]] | None, *kinds: str) -> list[Told]:
                if act:
                    await act()
                found = [await told.next() for _ in kinds]
                assert [event.kind for event in found if event] == list(kinds)
                return [event for event in found if event]

            await comes(None, "status")
            await comes(hand.start, "status", "job")
            for n in range(20):
                [event] = await comes(lambda n=n: hand.write(f"{n}\n".encode()), "output")  # type: ignore[misc]
                assert event.data["text"] == f"{n}\n"
            await comes(hand.finish, "job", "status", "end")
            assert await told.next() is None


async def test_a_reader_who_is_cut_off_and_comes_back_misses_nothing(world: World, ann: Headers) -> None:
    """Reads one event, hangs up, comes back; while the job goes on."""
    task = await world.create(ann)
    hand = await world.hand(task)
    seen: list[Told] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(a_life, hand)
        with trio.fail_after(30):
            while not seen or seen[-1].kind != "end":
                async with stream(world, task, ann, seen[-1].id if seen else None) as told:
                    event = await told.next()
                    assert event is not None
                    seen.append(event)
    text: dict[tuple[int, str], str] = {}
    for event in seen:
        if event.kind == "output":
            key = event.data["attempt"], event.data["stream"]
            assert event.data["offset"] == len(text.get(key, "").encode())
            text[key] = text.get(key, "") + event.data["text"]
    assert text == {
        (1, "stdout"): "one 😀 two\n",
        (1, "stderr"): "oops\n",
        (3, "stdout"): "".join(f"line {n}\n" for n in range(5)),
    }
    assert [event.data["status"] for event in seen if event.kind == "status"] == ["queued", "running", "completed"]


async def test_canceled_is_the_end_and_what_comes_later_is_in_the_logs(world: World, ann: Headers) -> None:
    task = await world.create(ann)
    hand = await world.hand(task)
    await hand.start()
    await hand.write(b"before\n")
    with trio.fail_after(20):
        async with stream(world, task, ann) as told:
            for _ in range(4):
                await told.next()
            await world.client.post(f"/v1/tasks/{task['id']}/cancel", headers=ann)
            rest = await told.rest()
    assert [(event.kind, event.data["status"]) for event in rest] == [
        ("job", "canceled"), ("status", "canceled"), ("end", "canceled"),
    ]  # fmt: skip
    await hand.write(b"after\n")
    assert (await world.get(f"/v1/tasks/{task['id']}/logs", ann))["stdout"] == "before\nafter\n"
    result = await world.get(f"/v1/tasks/{task['id']}/result", ann)
    assert json.loads(result["jobs"][0]["result"])["stdout"] == "before\nafter\n"
    assert await read_all(world, task, ann, rest[-1].id) == []


async def test_a_task_that_never_started(world: World, ann: Headers) -> None:
    task = await world.create(ann)
    hand = await world.hand(task)
    await world.client.post(f"/v1/tasks/{task['id']}/cancel", headers=ann)
    assert plain(await read_all(world, task, ann)) == [
        ("status", {"status": "queued"}),
        ("job", {"job_id": str(hand.job), "attempt": 0, "status": "canceled"}),
        ("status", {"status": "canceled"}),
        ("end", {"status": "canceled"}),
    ]


async def test_much_output_comes_in_pages(world: World, ann: Headers) -> None:
    task = await world.create(ann)
    hand = await world.hand(task)
    await hand.start()
    for name in ("stdout", "stderr"):
        await world.sql(
            """INSERT INTO job_output (job_id, attempt, stream, byte_offset, data, at)
               SELECT $1, 1, $2, n * 5, convert_to(to_char(n, 'FM0000') || chr(10), 'UTF8'), now()
                 FROM generate_series(0, 899) AS n""",
            hand.job, name,
        )  # fmt: skip
    await world.sql("UPDATE job_attempts SET stdout_length = 4500, stderr_length = 4500")
    await hand.finish()
    whole = "".join(f"{n:04}\n" for n in range(900))
    for stream_name in ("stdout", "stderr"):
        told = await read_all(world, task, ann)
        texts = [event.data["text"] for event in told if event.data.get("stream") == stream_name]
        assert "".join(texts) == whole
    middle = told[len(told) // 2]
    resumed = await read_all(world, task, ann, middle.id)
    assert "".join(e.data.get("text", "") for e in resumed) == "".join(
        e.data.get("text", "") for e in told[told.index(middle) + 1 :]
    )


async def test_fifty_readers_of_one_job_all_read_the_same(world: World, ann: Headers) -> None:
    task = await world.create(ann)
    hand = await world.hand(task)
    ended: list[str] = []

    async def follow() -> None:
        async with stream(world, task, ann) as told:
            ended.append("".join(event.data.get("text", "") for event in await told.rest()))

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(follow)
            await hand.start()
            for n in range(20):
                await hand.write(f"{n}\n".encode())
            await hand.finish()
    assert ended == ["".join(f"{n}\n" for n in range(20))] * 50


async def test_a_quiet_stream_has_a_comment_with_each_beat_and_ends_with_the_session(
    database: str, db: Database
) -> None:
    async with open_world(database, db, beat_seconds=0.1) as world:
        ann = await world.log_in("ann")
        task = await world.create(ann)
        with trio.fail_after(20):
            async with stream(world, task, ann) as told, trio.open_nursery() as nursery:

                async def revoke() -> None:
                    await told.commented.wait()
                    await world.sql("UPDATE refresh_sessions SET is_active = false")

                nursery.start_soon(revoke)
                assert [event.kind for event in await told.rest()] == ["status"]


async def test_a_server_that_stops_ends_its_streams(world: World, ann: Headers) -> None:
    task = await world.create(ann)
    with trio.fail_after(20):
        async with stream(world, task, ann) as told:
            await told.next()
            world.watch.close()
            assert await told.rest() == []
    assert await read_all(world, task, ann) == []


async def test_watching_ends_with_the_last_watcher(world: World, ann: Headers) -> None:
    task = await world.create(ann)
    task_id = TaskId((await world.hand(task)).task)
    with trio.fail_after(10), world.watch.follow(task_id) as one, world.watch.follow(task_id) as other:
        first = await one.wait_news()
        assert first is not None and first.status is TaskStatus.PENDING
        assert await other.wait_news() is first
        await (await world.hand(task)).start()
        news = await one.wait_news()
        while news is not None and news.status is not TaskStatus.RUNNING:
            news = await one.wait_news()
    with world.watch.follow(TaskId(uuid4())) as nobody, trio.move_on_after(0.2) as waiting:
        await nobody.wait_news()
    assert waiting.cancelled_caught
