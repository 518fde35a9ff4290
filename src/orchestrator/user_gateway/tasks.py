"""Tasks: made, listed, read, canceled; their results and logs."""

import hashlib
import re
from typing import Any

from quart import Blueprint, Response, request

from orchestrator.api.auth import UserGate
from orchestrator.api.http import Body, read_body, reply
from orchestrator.app.results import JobReport, LogStream, Results, TaskReport
from orchestrator.app.sandbox_rule import SandboxRule
from orchestrator.app.tasks import RepeatKey, Tasks
from orchestrator.domain.errors import Invalid
from orchestrator.domain.results import encode_result
from orchestrator.domain.task_lists import read_wanted
from orchestrator.domain.tasks import show_status
from orchestrator.domain.times import rfc3339
from orchestrator.user_gateway.task_models import CreateBatch, CreateTask, task_view

LONGEST_WAIT = 60.0
LONGEST_KEY = 128
_SECONDS = re.compile(r"\d{1,4}(\.\d{1,9})?", re.ASCII)
_STREAMS: dict[str, LogStream] = {"all": "all", "stdout": "stdout", "stderr": "stderr"}


def task_routes(tasks: Tasks, results: Results, gate: UserGate, rule: SandboxRule) -> Blueprint:
    routes = Blueprint("tasks", __name__, url_prefix="/v1/tasks")

    @routes.post("")
    async def create() -> Response:
        who = await gate.authenticated()
        body = await read_body(CreateTask)
        wanted = await rule.apply(who, [body.wanted()])
        done = await tasks.submit(who.user_id, wanted, _repeat_key("task", body))
        task = done.tasks[0]
        return reply(task_view(task), 201 if done.fresh else 200, Location=f"/v1/tasks/{task.id}")

    @routes.post("/batch")
    async def create_batch() -> Response:
        who = await gate.authenticated()
        body = await read_body(CreateBatch)
        wanted = await rule.apply(who, [task.wanted() for task in body.tasks])
        done = await tasks.submit(who.user_id, wanted, _repeat_key("batch", body))
        return reply({"tasks": [task_view(task) for task in done.tasks]}, 201 if done.fresh else 200)

    @routes.get("")
    async def show_page() -> Response:
        who = await gate.authenticated()
        limit, offset, cursor, status = (request.args.get(name) for name in ("limit", "offset", "cursor", "status"))
        wanted = read_wanted(limit, offset, cursor, status, request.args.getlist("label"))
        page = await tasks.page(who.user_id, wanted)
        further = {"next_offset": page.next_offset, "next_cursor": page.next_cursor}
        return reply({"tasks": [task_view(task) for task in page.tasks], **_known(further)})

    @routes.get("/<task>")
    async def show(task: str) -> Response:
        who = await gate.authenticated()
        return reply(task_view(await tasks.get(who.user_id, task)))

    @routes.post("/<task>/cancel")
    async def cancel(task: str) -> Response:
        who = await gate.authenticated()
        task_id, canceled = await tasks.cancel(who.user_id, task)
        return reply({"task_id": str(task_id), "canceled": canceled})

    @routes.get("/<task>/result")
    async def show_result(task: str) -> Response:
        who = await gate.authenticated()
        wait = _read_wait(request.args.get("wait"))
        return reply(_result_view(await results.of_task(who.user_id, task, wait)))

    @routes.get("/<task>/logs")
    async def show_logs(task: str) -> Response:
        who = await gate.authenticated()
        stream = _STREAMS.get(request.args.get("stream") or "all")
        if stream is None:
            raise Invalid("stream: must be all, stdout or stderr", field="stream")
        logs = await results.logs(who.user_id, task, stream, _read_attempt(request.args.get("attempt")))
        return reply({"task_id": str(logs.task_id), "stdout": logs.stdout, "stderr": logs.stderr})

    return routes


def _result_view(report: TaskReport) -> dict[str, Any]:
    history = report.history
    jobs = [_job_view(job) for job in report.jobs]
    return {"task_id": str(history.task_id), "status": show_status(history.status), "jobs": jobs}


def _job_view(report: JobReport) -> dict[str, Any]:
    job = report.job
    further = {
        "result": None if report.result is None else encode_result(report.result),
        "started_at": rfc3339(job.started_at) if job.started_at else None,
        "ended_at": rfc3339(job.ended_at) if job.ended_at else None,
    }
    return {"id": str(job.id), "status": job.shown, **_known(further)}


def _known(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _repeat_key(kind: str, body: Body) -> RepeatKey | None:
    """The body counts as what it says, not as how it was written."""
    keys = request.headers.getlist("Idempotency-Key")
    if not keys:
        return None
    if len(keys) > 1 or not 1 <= len(keys[0]) <= LONGEST_KEY or not keys[0].isprintable():
        raise Invalid(f"Idempotency-Key: one, of 1 to {LONGEST_KEY} printable characters", field="Idempotency-Key")
    return RepeatKey(keys[0], hashlib.sha256(f"{kind}\n{body.model_dump_json()}".encode()).digest())


def _read_wait(text: str | None) -> float:
    if not text:
        return 0.0
    if not _SECONDS.fullmatch(text) or float(text) > LONGEST_WAIT:
        raise Invalid(f"wait: must be a number of seconds from 0 to {LONGEST_WAIT:g}", field="wait")
    return float(text)


def _read_attempt(text: str | None) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) >= 1):
        raise Invalid("attempt: must be a whole number from 1 on", field="attempt")
    return int(text)
