"""Tasks over REST: made, listed, read, canceled."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
import trio

from orchestrator.app.clock import new_id
from orchestrator.store.db import Database
from task_world import Headers, World, open_world

ROUTES = [
    ("POST", "/v1/tasks"),
    ("POST", "/v1/tasks/batch"),
    ("GET", "/v1/tasks"),
    ("GET", "/v1/tasks/{id}"),
    ("POST", "/v1/tasks/{id}/cancel"),
    ("GET", "/v1/tasks/{id}/result"),
    ("GET", "/v1/tasks/{id}/logs"),
    ("GET", "/v1/tasks/{id}/events"),
    ("GET", "/v1/jobs/{job}"),
    ("GET", "/v1/queue"),
]


@pytest.fixture
async def world(database: str, db: Database) -> AsyncIterator[World]:
    async with open_world(database, db) as made:
        yield made


@pytest.fixture
async def ann(world: World) -> Headers:
    return await world.log_in("ann")


async def test_nobody_gets_nothing(world: World) -> None:
    for method, path in ROUTES:
        answer = await world.client.request(method, path.format(id=uuid4(), job=uuid4()), json={})
        assert (answer.status_code, answer.json()["detail"]) == (401, "Missing authorization header"), path


async def test_another_user_learns_nothing(world: World, ann: Headers) -> None:
    bob = await world.log_in("bob")
    task = await world.create(ann, task_name="Secret")
    job = (await world.hand(task)).job
    ways = [(task["id"], job), (new_id(), new_id()), ("secret", "secret")]
    for method, path in ROUTES:
        if "{" in path:
            answers = [await world.client.request(method, path.format(id=t, job=j), headers=bob) for t, j in ways]
            assert {a.status_code for a in answers} == {404}, path
            assert {a.json()["detail"] for a in answers} == {"Job not found" if "{job}" in path else "Task not found"}
    assert (await world.get(f"/v1/tasks/{task['id']}", ann))["status"] == "queued"


async def test_a_task_is_stored_with_its_job_and_stands_in_the_queue(world: World, ann: Headers) -> None:
    body = {
        "prompt": "echo one\necho two",
        "input_mode": "commands",
        "task_name": "My First Task",
        "attachments": ['odd "name" {1}, \\2', "b.txt"],
        "labels": {"team": "red"},
        "priority": 7,
        "job": {"image": "busybox", "env": {"SECRET": "s3cret"}, "timeout_seconds": 5, "max_attempts": 1,
                "retry_on": ["exit", "timeout"], "queue_timeout_seconds": 60, "resources": {"cpus": 2}},
    }  # fmt: skip
    answer = await world.client.post("/v1/tasks", json=body, headers=ann)
    task = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v1/tasks/{task['id']}"
    assert "s3cret" not in answer.text
    assert task["id"] == task["task_id"]
    assert (task["status"], task["task_name"], task["summary"]) == ("queued", "my-first-task", "my-first-task")
    assert task["attachments"] == body["attachments"]
    assert (task["labels"], task["priority"], task["input_mode"]) == ({"team": "red"}, 7, "commands")
    assert task["created_at"].endswith("Z")
    assert await world.get(f"/v1/tasks/{task['id']}", ann) == task
    assert await world.get("/v1/tasks/my-first-task", ann) == task
    assert await world.get("/v1/tasks/My First Task", ann) == task
    [row] = await world.sql(
        """SELECT j.spec, j.timeout_seconds, j.max_attempts, j.retry_on, j.queue_deadline - j.created_at, g.active,
                  q.priority, r.body::jsonb
             FROM job_queue q JOIN jobs j ON j.id = q.job_id JOIN queue_groups g ON g.id = q.group_id
             JOIN requirements r ON r.id = g.requirement_id WHERE j.task_id = $1""",
        UUID(task["id"]),
    )
    spec, timeout, attempts, retry_on, waits, active, priority, requirement = row
    assert spec == {
        "input_mode": "commands", "commands": ["echo one", "echo two"], "network": "none", "image": "busybox",
        "env": {"SECRET": "s3cret"}, "resources": {"cpus": 2}, "task_name": "my-first-task",
    }  # fmt: skip
    assert (timeout, attempts, retry_on) == (5, 1, ["exit", "timeout"])
    assert 59 < waits.total_seconds() < 61  # counted by the database's clock
    assert (active, priority, requirement["image"]) == (True, 7, "busybox")


async def test_a_task_without_a_name_gets_one_of_its_id(world: World, ann: Headers) -> None:
    task = await world.create(ann, task_name="")
    assert task["task_name"] == "task-" + task["id"].replace("-", "")[-12:]
    assert "labels" not in task and "attachments" not in task


REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"prompt": ""}, 400, "prompt"),
    ({"prompt": None}, 400, "prompt"),
    ({"prompt": 5}, 400, "prompt"),
    ({"prompt": "a\0b"}, 400, "prompt"),
    ({"input_mode": "shell"}, 400, "input_mode"),
    ({"promt": "x"}, 400, "unknown field promt"),
    ({"job": {"timeout_secs": 5}}, 400, "unknown field job.timeout_secs"),
    ({"job": {"timeout_seconds": 10801}}, 400, "job.timeout_seconds"),
    ({"job": {"timeout_seconds": 0}}, 400, "job.timeout_seconds"),
    ({"job": {"timeout_seconds": "5"}}, 400, "job.timeout_seconds"),
    ({"job": {"max_attempts": 0}}, 400, "job.max_attempts"),
    ({"job": {"max_attempts": True}}, 400, "job.max_attempts"),
    ({"job": {"retry_on": ["exits"]}}, 400, "job.retry_on"),
    ({"job": {"network": "host"}}, 400, "job.network"),
    ({"job": {"env": {"CYNODE_X": "1"}}}, 400, "CYNODE_"),
    ({"job": {"env": {"A": 1}}}, 400, "job.env"),
    ({"job": {"resources": {"memory_mb": -1}}}, 400, "job.resources.memory_mb"),
    ({"job": {"requires": {"runtime": "vm"}}}, 400, "job.requires.runtime"),
    ({"priority": 101}, 400, "priority"),
    ({"attachments": ["a"] * 17}, 400, "attachments"),
    ({"labels": {f"l{n}": "" for n in range(33)}}, 400, "labels"),
    ({"task_name": str(uuid4())}, 400, "task_name"),
    ({"project_id": "mine"}, 400, "project_id"),
    ({"project_id": str(uuid4())}, 404, "Project not found"),
    ({"prompt": "x" * (256 * 1024 + 1)}, 413, "256 KiB"),
    ({"prompt": "x" * (64 * 1024 + 1), "input_mode": "commands"}, 413, "64 KiB"),
    ({"prompt": "x" * (1024 * 1024 + 1), "input_mode": "prompt"}, 413, "1024 KiB"),
    ({"input_mode": "prompt", "prompt": "rm -rf x"}, 503, "no inference path available"),
    ({"use_inference": True}, 503, "no inference path available"),
    ({"use_sba": True}, 503, "no inference path available"),
]


async def test_a_task_that_is_refused_leaves_nothing(world: World, ann: Headers) -> None:
    good = {"prompt": "true", "input_mode": "script"}
    for fields, status, text in REFUSED:
        body = good | fields
        for path, sent in (("/v1/tasks", body), ("/v1/tasks/batch", {"tasks": [good, body]})):
            answer = await world.client.post(path, json=sent, headers=ann)
            assert answer.status_code == status, (fields, answer.text)
            assert text.rpartition(" ")[2] in answer.json()["detail"], (fields, answer.text)
    assert await world.sql("SELECT count(*) FROM tasks") == [(0,)]


async def test_what_is_no_json_is_refused(world: World, ann: Headers) -> None:
    for content in (b"", b"{", b"[]", b"null"):
        answer = await world.client.post("/v1/tasks", content=content, headers=ann)
        assert (answer.status_code, answer.json()["detail"]) == (400, "Invalid request body")


async def test_projects_are_the_callers_own_or_bound_to_them(world: World, ann: Headers) -> None:
    bob = await world.log_in("bob")
    [(own,)] = await world.sql("SELECT id FROM projects WHERE slug = 'ann'")
    [(foreign,)] = await world.sql("SELECT id FROM projects WHERE slug = 'bob'")
    assert (await world.create(ann))["project_id"] == str(own)
    assert (await world.create(ann, project_id=str(own)))["project_id"] == str(own)
    answer = await world.client.post(
        "/v1/tasks", json={"prompt": "x", "input_mode": "script", "project_id": str(foreign)}, headers=ann
    )
    assert answer.status_code == 404
    assert (await world.create(bob, project_id=""))["project_id"] == str(foreign)
    await world.sql(
        """INSERT INTO role_bindings (subject_type, subject_id, role_id, scope_type, scope_id)
           SELECT 'user', u.id, r.id, 'project', $1 FROM users u, roles r
            WHERE u.handle = 'ann' AND r.name = 'member'""",
        foreign,
    )
    assert (await world.create(ann, project_id=str(foreign)))["project_id"] == str(foreign)


async def test_fifty_creates_of_one_name_at_once_make_fifty_names(world: World, ann: Headers) -> None:
    bob = await world.log_in("bob")
    names: list[str] = []

    async def create() -> None:
        names.append((await world.create(ann, task_name="Build"))["task_name"])

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(create)
        nursery.start_soon(world.create, bob)
    assert sorted(names) == sorted(["build", *(f"build-{n}" for n in range(2, 51))])
    assert (await world.create(bob, task_name="build"))["task_name"] == "build"


async def test_two_gateways_do_not_give_one_name_twice(database: str, db: Database, world: World, ann: Headers) -> None:
    async with open_world(database, db) as other:
        names: list[str] = []

        async def create(via: World) -> None:
            tasks = [{"prompt": "x", "input_mode": "script", "task_name": n} for n in ("b", "a", "b", "a-2")]
            answer = await via.client.post("/v1/tasks/batch", json={"tasks": tasks}, headers=ann)
            assert answer.status_code == 201, answer.text
            names.extend(task["task_name"] for task in answer.json()["tasks"])

        async with trio.open_nursery() as nursery:
            for n in range(20):
                nursery.start_soon(create, world if n % 2 else other)
    assert len(set(names)) == len(names) == 80


async def test_suffixes_pass_over_names_that_users_gave(world: World, ann: Headers) -> None:
    for name in ("job", "job-2", "job-4", "x" * 128):
        await world.create(ann, task_name=name)
    assert (await world.create(ann, task_name="job"))["task_name"] == "job-3"
    assert (await world.create(ann, task_name="job"))["task_name"] == "job-5"
    assert (await world.create(ann, task_name="x" * 130))["task_name"] == "x" * 126 + "-2"


async def test_a_long_row_of_taken_suffixes_is_passed(world: World, ann: Headers) -> None:
    taken = [{"prompt": "x", "input_mode": "script", "task_name": f"n-{n}"} for n in range(2, 202)]
    await world.client.post("/v1/tasks/batch", json={"tasks": taken}, headers=ann)
    again = [{"prompt": "x", "input_mode": "script", "task_name": "n"}] * 5
    answer = await world.client.post("/v1/tasks/batch", json={"tasks": again}, headers=ann)
    assert [task["task_name"] for task in answer.json()["tasks"]] == ["n", "n-202", "n-203", "n-204", "n-205"]


async def test_a_batch_is_one_transaction_in_its_order(world: World, ann: Headers) -> None:
    tasks = [{"prompt": f"echo {n}", "input_mode": "script"} for n in range(1000)]
    answer = await world.client.post("/v1/tasks/batch", json={"tasks": tasks}, headers=ann)
    assert answer.status_code == 201
    assert [task["prompt"] for task in answer.json()["tasks"]] == [task["prompt"] for task in tasks]
    assert await world.sql("SELECT count(*), count(DISTINCT xmin::text) FROM tasks") == [(1000, 1)]
    assert await world.sql("SELECT count(*) FROM job_queue") == [(1000,)]
    for bad in ([], tasks + tasks[:1]):
        assert (await world.client.post("/v1/tasks/batch", json={"tasks": bad}, headers=ann)).status_code == 400


async def test_the_same_key_and_body_give_the_first_task_as_it_is_now(world: World, ann: Headers) -> None:
    bob, body = await world.log_in("bob"), {"prompt": "x", "input_mode": "script", "task_name": "once"}
    keyed = ann | {"Idempotency-Key": "k1"}
    first = await world.client.post("/v1/tasks", json=body, headers=keyed)
    await world.client.post("/v1/tasks/once/cancel", headers=ann)
    again = await world.client.post("/v1/tasks", content=str(body).replace("'", '"'), headers=keyed)
    assert (first.status_code, again.status_code) == (201, 200)
    assert (again.json()["id"], again.json()["status"]) == (first.json()["id"], "canceled")
    other = await world.client.post("/v1/tasks", json=body | {"prompt": "y"}, headers=keyed)
    assert other.status_code == 409
    batch = await world.client.post("/v1/tasks/batch", json={"tasks": [body]}, headers=keyed)
    assert batch.status_code == 409
    foreign = await world.client.post("/v1/tasks", json=body, headers=bob | {"Idempotency-Key": "k1"})
    assert foreign.status_code == 201
    for key in ("", "k" * 129):
        answer = await world.client.post("/v1/tasks", json=body, headers=ann | {"Idempotency-Key": key})
        assert answer.status_code == 400


@pytest.mark.parametrize("path", ["/v1/tasks", "/v1/tasks/batch"])
async def test_repeated_at_once_a_key_makes_its_tasks_once(
    database: str, db: Database, world: World, ann: Headers, path: str
) -> None:
    one = {"prompt": "x", "input_mode": "script"}
    body = {"tasks": [one, one]} if path.endswith("batch") else one
    answers: list[tuple[int, Any]] = []

    async def send(via: World) -> None:
        answer = await via.client.post(path, json=body, headers=ann | {"Idempotency-Key": "same"})
        tasks = answer.json().get("tasks", [answer.json()])
        answers.append((answer.status_code, tuple(task["id"] for task in tasks)))

    async with open_world(database, db) as other, trio.open_nursery() as nursery:
        for n in range(20):
            nursery.start_soon(send, world if n % 2 else other)
    assert sorted(status for status, _ in answers) == [200] * 19 + [201]
    assert len({ids for _, ids in answers}) == 1
    assert await world.sql("SELECT count(*) FROM tasks") == [(len(answers[0][1]),)]


async def test_pages_stay_as_they_are_while_tasks_come(world: World, ann: Headers) -> None:
    bob = await world.log_in("bob")
    made = [(await world.create(ann))["id"] for _ in range(7)]
    await world.create(bob)
    seen: list[str] = []
    params: dict[str, Any] = {"limit": 3}
    while True:
        page = await world.get("/v1/tasks", ann, **params)
        seen += [task["id"] for task in page["tasks"]]
        await world.create(ann)
        if "next_cursor" not in page:
            break
        params["cursor"] = page["next_cursor"]
    assert seen == made[::-1]


async def test_pages_by_offset(world: World, ann: Headers) -> None:
    made = [(await world.create(ann))["id"] for _ in range(5)]
    first = await world.get("/v1/tasks", ann, limit=2)
    assert first["next_offset"] == 2
    second = await world.get("/v1/tasks", ann, limit=2, offset=2)
    last = await world.get("/v1/tasks", ann, limit=2, offset=4)
    assert [task["id"] for page in (first, second, last) for task in page["tasks"]] == made[::-1]
    assert "next_offset" not in last and "next_cursor" not in last


async def test_filters_come_before_paging(world: World, ann: Headers) -> None:
    odd = [
        (await world.create(ann, labels={"kind": "odd", "n": str(n)}))["id"]
        for n in range(3)
        if await world.create(ann)
    ]
    await world.client.post(f"/v1/tasks/{odd[0]}/cancel", headers=ann)
    page = await world.get("/v1/tasks", ann, label="kind=odd", limit=2)
    assert [task["id"] for task in page["tasks"]] == odd[:0:-1]
    rest = await world.get("/v1/tasks", ann, label="kind=odd", limit=2, cursor=page["next_cursor"])
    assert [task["id"] for task in rest["tasks"]] == odd[:1]
    assert "next_cursor" not in rest
    both = await world.get("/v1/tasks", ann, label=["kind=odd", "n=1"])
    assert [task["id"] for task in both["tasks"]] == [odd[1]]
    canceled = await world.get("/v1/tasks", ann, status="canceled")
    assert [task["id"] for task in canceled["tasks"]] == [odd[0]]
    queued = await world.get("/v1/tasks", ann, status="queued", label="kind=odd")
    assert [task["id"] for task in queued["tasks"]] == odd[:0:-1]
    assert len((await world.get("/v1/tasks", ann, status="queued"))["tasks"]) == 5


BAD_LISTS: list[tuple[dict[str, str], str]] = [
    ({"limit": "0"}, "Invalid limit, offset, or cursor"),
    ({"limit": "201"}, "Invalid limit, offset, or cursor"),
    ({"limit": "x"}, "Invalid limit, offset, or cursor"),
    ({"limit": "1.0"}, "Invalid limit, offset, or cursor"),
    ({"offset": "-1"}, "Invalid limit, offset, or cursor"),
    ({"offset": "9" * 30}, "Invalid limit, offset, or cursor"),
    ({"cursor": "nonsense"}, "Invalid limit, offset, or cursor"),
    ({"cursor": "é"}, "Invalid limit, offset, or cursor"),
    ({"cursor": "AZrnhVwmfx2V5HLdYIoTEQ", "offset": "1"}, "Invalid limit, offset, or cursor"),
    ({"status": "pending"}, "Invalid status"),
    ({"label": "x"}, "label"),
]


async def test_a_bad_list_is_refused(world: World, ann: Headers) -> None:
    for params, text in BAD_LISTS:
        answer = await world.client.get("/v1/tasks", params=params, headers=ann)
        assert answer.status_code == 400, params
        assert text in answer.json()["detail"], params


async def test_what_cannot_be_a_task_is_not_found(world: World, ann: Headers) -> None:
    for reference in ("nope", "!!!", "a%00b", "%ff", "0" * 32, "x" * 3000):
        answer = await world.client.get(f"/v1/tasks/{reference}", headers=ann)
        assert (answer.status_code, answer.json()["detail"]) == (404, "Task not found")


async def test_cancel_ends_task_job_and_attempt_in_one_commit(world: World, ann: Headers) -> None:
    task = await world.create(ann)
    hand = await world.hand(task)
    await hand.start()
    answers = [await world.client.post(f"/v1/tasks/{task['id']}/cancel", headers=ann) for _ in range(2)]
    assert [answer.json() for answer in answers] == [{"task_id": task["id"], "canceled": True}] * 2
    [row] = await world.sql(
        """SELECT t.status, t.closed, j.status, j.node_id, a.outcome, a.stop_reason, a.stopped_at,
                  t.ended_at = j.ended_at AND j.ended_at = a.ended_at AND a.ended_at = a.stop_requested_at
             FROM tasks t JOIN jobs j ON j.task_id = t.id JOIN job_attempts a ON a.job_id = j.id"""
    )
    assert row == ("canceled", True, "canceled", None, "canceled", "canceled", None, True)


async def test_cancel_of_a_queued_task_takes_it_out_of_the_queue(world: World, ann: Headers) -> None:
    await world.create(ann, task_name="one")
    assert (await world.client.post("/v1/tasks/one/cancel", headers=ann)).json()["canceled"] is True
    assert await world.sql("SELECT count(*) FROM job_queue") == [(0,)]


async def test_a_task_that_ended_otherwise_stays_so(world: World, ann: Headers) -> None:
    task = await world.create(ann)
    hand = await world.hand(task)
    await hand.start()
    await hand.finish()
    answer = await world.client.post(f"/v1/tasks/{task['id']}/cancel", headers=ann)
    assert (answer.status_code, answer.json()["canceled"]) == (200, False)
    assert (await world.get(f"/v1/tasks/{task['id']}", ann))["status"] == "completed"


async def test_the_queue_in_figures(world: World, ann: Headers) -> None:
    empty = await world.get("/v1/queue", ann)
    assert empty == {
        "depth": {"queued": 0, "delayed": 0, "assigned": 0, "running": 0},
        "oldest_age_seconds": None, "rate": {"ended_per_second": 0.0}, "links": 0,
    }  # fmt: skip
    hands = [await world.hand(await world.create(ann)) for _ in range(4)]
    await hands[0].start()
    await hands[0].finish()
    await hands[1].start()
    await hands[2].assign()
    busy = await world.get("/v1/queue", ann)
    assert busy["depth"] == {"queued": 1, "delayed": 0, "assigned": 1, "running": 1}
    assert busy["oldest_age_seconds"] >= 0
    assert busy["rate"]["ended_per_second"] > 0
