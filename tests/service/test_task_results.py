"""Results, logs and jobs, as users see them."""

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
import trio

from orchestrator.store.db import Database
from task_world import Headers, World, open_world


@pytest.fixture
async def world(database: str, db: Database) -> AsyncIterator[World]:
    async with open_world(database, db) as made:
        yield made


@pytest.fixture
async def ann(world: World) -> Headers:
    return await world.log_in("ann")


async def document(world: World, ann: Headers, task: dict[str, Any]) -> dict[str, Any]:
    result = await world.get(f"/v1/tasks/{task['id']}/result", ann)
    found: dict[str, Any] = json.loads(result["jobs"][0]["result"])
    return found


async def test_a_result_before_while_and_after(world: World, ann: Headers) -> None:
    task = await world.create(ann)
    hand = await world.hand(task)
    path = f"/v1/tasks/{task['id']}/result"
    before = await world.get(path, ann)
    assert before == {"task_id": task["id"], "status": "queued", "jobs": [{"id": str(hand.job), "status": "queued"}]}
    await hand.assign()
    assert (await world.get(path, ann))["jobs"][0]["status"] == "queued"
    hand.attempt -= 1
    await world.sql("DELETE FROM job_attempts")
    await hand.start()
    running = await world.get(path, ann)
    assert (running["status"], running["jobs"][0]["status"]) == ("running", "running")
    assert "started_at" in running["jobs"][0] and "result" not in running["jobs"][0]
    await hand.write(b"out\n")
    await hand.write(b"err \xff\0\n", "stderr")
    await hand.finish("failed", 3)
    result = await world.get(path, ann)
    assert (result["status"], result["jobs"][0]["status"]) == ("failed", "failed")
    shown = json.loads(result["jobs"][0]["result"])
    times = shown.pop("started_at"), shown.pop("ended_at")
    assert times[0] < times[1]
    assert shown == {
        "version": 1, "task_id": task["id"], "job_id": str(hand.job), "status": "failed", "exit_code": 3,
        "stdout": "out\n", "stderr": "err \ufffd\0\n", "truncated": {"stdout": False, "stderr": False},
        "attempt": 1, "node_slug": "node-1", "runtime": "bubblewrap",
    }  # fmt: skip


async def test_a_timeout_is_told_from_a_failure(world: World, ann: Headers) -> None:
    task = await world.create(ann)
    hand = await world.hand(task)
    await hand.start()
    await hand.write("ab€".encode()[:-1])
    await hand.finish("timeout", 143, error="timeout", cut=True)
    shown = await document(world, ann, task)
    assert (shown["status"], shown["exit_code"], shown["error"]) == ("timeout", 143, "timeout")
    assert (shown["stdout"], shown["truncated"]["stdout"]) == ("ab", True)


async def test_the_output_is_that_of_the_last_attempt_that_started(world: World, ann: Headers) -> None:
    task = await world.create(ann)
    hand = await world.hand(task)
    await hand.start("node-1")
    await hand.write(b"first\n")
    await hand.end_attempt("failed", 9)
    await hand.assign("node-2")
    await hand.finish("lost", None, error="node_lost")
    shown = await document(world, ann, task)
    assert (shown["status"], shown["error"], shown["stdout"]) == ("failed", "node_lost", "first\n")
    assert (shown["attempt"], shown["node_slug"]) == (1, "node-1")
    assert "exit_code" not in shown


async def test_a_job_that_never_ran_has_a_result_too(world: World, ann: Headers) -> None:
    task = await world.create(ann)
    await world.client.post(f"/v1/tasks/{task['id']}/cancel", headers=ann)
    shown = await document(world, ann, task)
    assert (shown["status"], shown["stdout"], shown["started_at"]) == ("canceled", "", None)
    assert "exit_code" not in shown and "attempt" not in shown


async def test_waiting_for_a_result_ends_with_the_task(world: World, ann: Headers) -> None:
    task = await world.create(ann)
    hand = await world.hand(task)
    results: list[dict[str, Any]] = []

    async def wait() -> None:
        results.append(await world.get(f"/v1/tasks/{task['id']}/result", ann, wait=30))

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(wait)
            await hand.start()
            await hand.finish()
        assert [result["status"] for result in results] == ["completed"] * 5
        began = trio.current_time()
        await wait()
        assert trio.current_time() - began < 3


async def test_waiting_for_a_result_ends_with_the_time(world: World, ann: Headers) -> None:
    task = await world.create(ann)
    began = trio.current_time()
    result = await world.get(f"/v1/tasks/{task['id']}/result", ann, wait="0.3")
    assert result["status"] == "queued"
    assert 0.3 <= trio.current_time() - began < 4
    for wait in ("61", "-1", "x", "nan", "1e1"):
        answer = await world.client.get(f"/v1/tasks/{task['id']}/result", params={"wait": wait}, headers=ann)
        assert (answer.status_code, answer.json()["field"]) == (400, "wait")


async def test_logs_by_stream_and_attempt(world: World, ann: Headers) -> None:
    task = await world.create(ann, task_name="noisy")
    path = "/v1/tasks/noisy/logs"
    assert await world.get(path, ann) == {"task_id": task["id"], "stdout": "", "stderr": ""}
    hand = await world.hand(task)
    await hand.start()
    await hand.write("first é".encode()[:-1])
    await hand.write(b"e1", "stderr")
    assert (await world.get(path, ann))["stdout"] == "first "
    await hand.end_attempt("lost")
    await hand.start()
    await hand.write(b"second")
    assert await world.get(path, ann) == {"task_id": task["id"], "stdout": "second", "stderr": ""}
    await hand.write(b"e2", "stderr")
    assert await world.get(path, ann, stream="stderr") == {"task_id": task["id"], "stdout": "", "stderr": "e2"}
    assert await world.get(path, ann, stream="stdout") == {"task_id": task["id"], "stdout": "second", "stderr": ""}
    assert (await world.get(path, ann, attempt=1)) == {"task_id": task["id"], "stdout": "first \ufffd", "stderr": "e1"}
    bad = [("stream", "both", 400), ("attempt", "0", 400), ("attempt", "x", 400), ("attempt", "3", 404)]
    for name, value, status in bad:
        assert (await world.client.get(path, params={name: value}, headers=ann)).status_code == status


async def test_a_job_with_its_attempts(world: World, ann: Headers) -> None:
    task = await world.create(ann)
    hand = await world.hand(task)
    path = f"/v1/jobs/{hand.job}"
    queued = await world.get(path, ann)
    assert (queued["id"], queued["task_id"], queued["status"], queued["attempts"]) == (
        str(hand.job), task["id"], "queued", [],
    )  # fmt: skip
    await hand.start("node-1")
    await hand.end_attempt("lost")
    await hand.start("node-2")
    await hand.finish("completed", 0)
    job = await world.get(path, ann)
    assert job["result"]["exit_code"] == 0
    assert [(a["attempt"], a["node_slug"], a["outcome"]) for a in job["attempts"]] == [
        (1, "node-1", "lost"), (2, "node-2", "completed"),
    ]  # fmt: skip
    assert all("started_at" in attempt and "ended_at" in attempt for attempt in job["attempts"])
    for job_id in (str(uuid4()), "nonsense", "a%00"):
        answer = await world.client.get(f"/v1/jobs/{job_id}", headers=ann)
        assert (answer.status_code, answer.json()["detail"]) == (404, "Job not found")
