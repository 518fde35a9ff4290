"""What a lost connection makes of tasks: nobody gets an error for what was stored, and nothing is stored twice."""

from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import UUID

import pytest
import trio

from orchestrator.app.submit import Submission, Submissions
from orchestrator.domain.errors import BadData
from orchestrator.domain.tasks import NewTask
from orchestrator.store.db import Database, open_database
from plane import Plane, planned
from task_world import Hand, World, open_world
from tcp_proxy import Proxy, open_proxy


@pytest.fixture
async def far(database: str) -> AsyncIterator[tuple[Proxy, World]]:
    """A gateway whose wire to the database can be cut."""
    async with (
        open_proxy(database) as proxy,
        open_database(proxy.dsn, pool_size=1) as db,
        open_world(database, db) as world,
    ):
        yield proxy, world


@pytest.mark.parametrize("stored", [True, False])
async def test_a_create_whose_commit_went_unanswered_is_answered(far: tuple[Proxy, World], stored: bool) -> None:
    proxy, world = far
    ann = await world.log_in("ann")
    await world.create(ann)
    proxy.cut_at(b"COMMIT", deliver=stored)
    task = await world.create(ann, task_name="once")
    assert task["task_name"] == "once"
    assert await world.sql("SELECT count(*) FROM tasks WHERE name = 'once'") == [(1,)]
    assert await world.sql("SELECT count(*) FROM job_queue") == [(2,)]


@pytest.mark.parametrize("stored", [True, False])
async def test_a_keyed_batch_whose_commit_went_unanswered_is_new(far: tuple[Proxy, World], stored: bool) -> None:
    proxy, world = far
    ann = await world.log_in("ann")
    body = {"tasks": [{"prompt": "x", "input_mode": "script"}] * 3}
    proxy.cut_at(b"COMMIT", deliver=stored)
    answers = [
        await world.client.post("/v1/tasks/batch", json=body, headers=ann | {"Idempotency-Key": "k"}) for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [201, 200]
    assert answers[0].json() == answers[1].json()
    assert await world.sql("SELECT count(*) FROM tasks") == [(3,)]


@pytest.mark.parametrize("stored", [True, False])
async def test_a_create_in_one_statement_that_went_unanswered_is_answered(
    far: tuple[Proxy, World], stored: bool
) -> None:
    proxy, world = far
    ann = await world.log_in("ann")
    body = {"prompt": "echo this-was-cut", "input_mode": "script"}
    await world.create(ann)  # its group is known from now on
    proxy.cut_at(b"this-was-cut", deliver=stored)
    answers = [await world.client.post("/v1/tasks", json=body, headers=ann | {"Idempotency-Key": "k"}) for _ in "12"]
    assert [answer.status_code for answer in answers] == [201, 200]
    assert answers[0].json() == answers[1].json()
    assert await world.sql("SELECT count(*) FROM tasks") == [(2,)]
    assert await world.sql("SELECT count(*) FROM job_queue") == [(2,)]


@pytest.mark.parametrize("stored", [True, False])
async def test_a_cancel_whose_commit_went_unanswered_counts(far: tuple[Proxy, World], stored: bool) -> None:
    proxy, world = far
    ann = await world.log_in("ann")
    task = await world.create(ann)
    proxy.cut_at(b"COMMIT", deliver=stored)
    answer = await world.client.post(f"/v1/tasks/{task['id']}/cancel", headers=ann)
    assert (answer.status_code, answer.json()["canceled"]) == (200, True)


async def test_while_the_database_is_away_nothing_is_taken_and_it_is_said(far: tuple[Proxy, World]) -> None:
    proxy, world = far
    ann = await world.log_in("ann")
    proxy.cut_at(b"INSERT INTO tasks", deliver=False)
    answer = await world.client.post("/v1/tasks", json={"prompt": "x", "input_mode": "script"}, headers=ann)
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:cynodeai:error:unavailable")
    assert int(answer.headers["retry-after"]) > 0
    assert await world.sql("SELECT count(*) FROM tasks") == [(0,)]


async def test_an_unknown_commit_that_cannot_be_settled_is_said(far: tuple[Proxy, World]) -> None:
    proxy, world = far
    ann = await world.log_in("ann")
    await world.create(ann)
    proxy.refuse = True
    proxy.cut_at(b"this-was-cut", deliver=True)
    body = {"prompt": "echo this-was-cut", "input_mode": "script"}
    answer = await world.client.post("/v1/tasks", json=body, headers=ann)
    assert answer.status_code == 503
    assert "not known" in answer.json()["detail"]
    assert int(answer.headers["retry-after"]) > 0
    proxy.refuse = False
    assert (await world.create(ann))["status"] == "queued"
    assert await world.sql("SELECT count(*) FROM tasks") == [(3,)]


@pytest.mark.parametrize("known", [False, True], ids=["by many statements", "by one"])
async def test_one_bad_submission_among_fifty_fails_alone(db: Database, known: bool) -> None:
    """PostgreSQL takes no NUL; the edge refuses it, and here nobody has."""
    ann, submissions = await Plane(db).user("ann"), Submissions(db)
    good = [planned(ann) for _ in range(50)]
    bad = replace(good.pop(17), prompt="a\0b")
    refused: list[NewTask] = []

    async def submit(task: NewTask) -> None:
        try:
            done = await submissions.submit(Submission(ann, (task,)))
        except BadData:
            refused.append(task)
        else:
            assert [stored.id for stored in done.tasks] == [task.id]

    async with trio.open_nursery() as nursery:
        await nursery.start(submissions.run)
        if known:
            await submit(good[0])  # its group is known from now on
        async with trio.open_nursery() as fifty:
            for task in (*good[known:25], bad, *good[25:]):
                fifty.start_soon(submit, task)
        nursery.cancel_scope.cancel()
    assert refused == [bad]
    rows = await Plane(db).sql("SELECT t.id, t.xmin::text AS c FROM tasks t JOIN jobs j ON j.task_id = t.id")
    assert {row["id"] for row in rows} == {task.id for task in good}
    assert len({row["c"] for row in rows}) < 10, "they did not share a commit"


async def test_cancel_and_finish_decide_once(database: str, db: Database) -> None:
    async with open_world(database, db) as world:
        ann = await world.log_in("ann")
        hands = [await world.hand(await world.create(ann)) for _ in range(20)]
        canceled: dict[UUID, set[bool]] = {hand.task: set() for hand in hands}
        finished: dict[UUID, bool] = {}

        async def cancel(hand: Hand) -> None:
            answer = await world.client.post(f"/v1/tasks/{hand.task}/cancel", headers=ann)
            canceled[hand.task].add(answer.json()["canceled"])

        async def finish(hand: Hand) -> None:
            finished[hand.task] = await hand.finish()

        for hand in hands:
            await hand.start()
        async with trio.open_nursery() as nursery:
            for nth, hand in enumerate(hands):
                for act in (cancel, finish, cancel) if nth % 2 else (finish, cancel, cancel):
                    nursery.start_soon(act, hand)
        rows = await world.sql(
            """SELECT t.id, t.status, j.status, a.outcome FROM tasks t JOIN jobs j ON j.task_id = t.id
                 JOIN job_attempts a ON a.job_id = j.id"""
        )
        for task, *states in rows:
            assert states == ["completed" if finished[task] else "canceled"] * 3
            assert canceled[task] == {not finished[task]}
